"""The forward of a layer with one LoRA, without PEFT's checks of what a tree of ours never has: several adapters, merging, dropout, variants.

A layer of a small model computes for less time than those checks take. What is computed is the same up to rounding: the scaling is applied between
A and B, where it is a factor of r numbers instead of all outputs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn

ADAPTER = "default"
"""PEFT's name of the only adapter on a tree."""
PLAIN = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit"), ("peft.tuners.lora.bnb", "Linear8bitLt")}
"""PEFT's layers that this is for."""


def simplify(tree: nn.Module) -> None:
    """Let the LoRA layers of a new tree compute by `_forward`; layers with something more keep PEFT's."""
    for module in tree.modules():
        if (type(module).__module__, type(module).__name__) in PLAIN and _is_plain(module):
            module.__class__ = _simple_class(type(module))


def _is_plain(layer: Any) -> bool:
    dropout = layer.lora_dropout[ADAPTER]
    variants = getattr(layer, "lora_variant", {})
    return list(layer.lora_A) == [ADAPTER] and isinstance(dropout, nn.Identity) and not variants and layer.lora_B[ADAPTER].bias is None


@cache
def _simple_class(kind: type) -> type:
    return type(f"Simple{kind.__name__}", (kind,), {"forward": _forward})


def _forward(self: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """W x + B (scaling · A x), the second in float32; (…, in) -> (…, out)."""
    modules = self._modules
    result = modules["base_layer"](x)
    if self._disable_adapters:
        return result
    a, b = (modules[name]._modules[ADAPTER]._parameters["weight"] for name in ("lora_A", "lora_B"))
    scaled = nn.functional.linear(x.to(a.dtype), a) * self.scaling[ADAPTER]
    return (result + nn.functional.linear(scaled, b)).to(result.dtype)
