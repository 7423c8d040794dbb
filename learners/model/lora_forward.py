"""The forward of a layer with one LoRA, without PEFT's checks of what a tree of ours never has: several adapters, merging, dropout, variants.

A layer of a small model computes for less time than those checks take. What is computed is the same up to rounding: the scaling is applied between
A and B, where it is a factor of r numbers instead of all outputs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

ADAPTER = "default"
"""PEFT's name of the only adapter on a tree."""
PLAIN = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit"), ("peft.tuners.lora.bnb", "Linear8bitLt")}
"""PEFT's layers that this is for."""


def simplify(tree: nn.Module) -> None:
    """Let the LoRA layers of a new tree compute by `_forward`; layers with something more keep PEFT's."""
    for module in tree.modules():
        if (type(module).__module__, type(module).__name__) in PLAIN and _is_plain(module):
            kind: Any = type(module)
            module.__class__ = _simple_class(kind)


def _is_plain(layer: Any) -> bool:
    dropout = layer.lora_dropout[ADAPTER]
    variants = getattr(layer, "lora_variant", {})
    return list(layer.lora_A) == [ADAPTER] and isinstance(dropout, nn.Identity) and not variants and layer.lora_B[ADAPTER].bias is None


@cache
def _simple_class(kind: Any) -> Any:
    return type(f"Simple{kind.__name__}", (kind,), {"forward": _forward})


def _forward(self: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """W x + B (scaling · A x), the second in the adapter's dtype; (…, in) -> (…, out)."""
    modules = self._modules
    base, scaling = modules["base_layer"], self.scaling[ADAPTER]
    if self._disable_adapters:
        return base(x)
    a, b = modules["lora_A"]._modules[ADAPTER]._parameters["weight"], modules["lora_B"]._modules[ADAPTER]._parameters["weight"]
    if x.dtype is a.dtype and not torch.is_grad_enabled() and isinstance(scaling, float | Tensor):
        return _in_place(base, x, a, b, scaling)
    result = base(x)
    return (result + nn.functional.linear(nn.functional.linear(x.to(a.dtype), a) * scaling, b)).to(result.dtype)


def _in_place(base: Any, x: Tensor, a: Tensor, b: Tensor, scaling: float | Tensor) -> Tensor:
    """The same in three kernels, for a few rows of a small model, where what goes on around a kernel takes longer than the kernel."""
    rows = x.reshape(-1, x.shape[-1])
    product, inner = base.forward(rows), torch.mm(rows, a.t())
    if isinstance(scaling, Tensor):  # (B, 1, 1)
        inner.view(scaling.shape[0], -1, inner.shape[1]).mul_(scaling)
        scaling = 1.0
    return product.addmm_(inner, b.t(), alpha=scaling).view(*x.shape[:-1], -1)
