"""The forward of a layer with one LoRA, without PEFT's checks of what a tree of ours never has: several adapters, merging, dropout, variants.

A layer of a small model computes for less time than those checks take, and on a GPU each kernel costs a launch. What is computed is the same up to
rounding, in as few kernels as there can be:

- The scaling is applied to A x, r numbers instead of all outputs, and B's product is added to the base's where that lies.
- Layers that read the same input (`q_proj`, `k_proj`, `v_proj`) have one product with their A's, one below the other.
- The LoRA computes in the dtype of its input. Weights that are kept in float32, which is what learns, have a copy in that dtype, made anew when they
  have changed; their gradients are float32. For the backward pass a layer keeps its input and A x.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.model.shards import sharded

ADAPTER = "default"
"""PEFT's name of the only adapter on a tree."""
PLAIN = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit"), ("peft.tuners.lora.bnb", "Linear8bitLt")}
"""PEFT's layers that this is for."""
SAME_INPUT = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"query", "key", "value"}, {"w1", "w3"})
"""Names of layers of one module that read the same in most families; whether they do is looked at in each forward."""
INPUT, COPY = "_lora_input", "_lora_copy"
"""Where a layer keeps what it has in common with others of the same input, and a weight its copy."""
Copying = Callable[[Sequence[Tensor], Sequence[Tensor]], None]
"""What brings copies up to date: these into those, now or in the end."""


class FirstRows(NamedTuple):
    """In the place of a scaling: the first `rows` of `of` rows have the adapter, the others none."""

    rows: int
    of: int
    scaling: float

    def __rmul__(self, delta: Tensor) -> Tensor:  # type: ignore[override]
        n = len(delta) * self.rows // self.of
        return torch.cat([delta[:n] * self.scaling, torch.zeros_like(delta[n:])])


def simplify(tree: nn.Module) -> None:
    """Let the LoRA layers of a new tree compute by `_forward`; layers with something more keep PEFT's."""
    for parent in list(tree.modules()):
        found = {name: child for name, child in parent.named_children() if _is_plain(child)}
        for module in found.values():
            kind: Any = type(module)
            module.__class__ = _simple_class(kind)
        for names in SAME_INPUT:
            SameInput([found.pop(name) for name in list(found) if name in names])
        for module in found.values():
            SameInput([module])


def refresh(tree: nn.Module) -> None:
    """Bring all copies of weights that forwards have made up to date, as one operation: steps that were captured only read them, and a forward would
    make them anew one by one. Where the base is in shards nothing is captured, and forwards do that."""
    if sharded():
        return
    if "_simplified" not in tree.__dict__:
        tree.__dict__["_simplified"] = [module for module in tree.modules() if INPUT in module.__dict__]
    copies, weights = list[Tensor](), list[Tensor]()

    def copy_later(into: Sequence[Tensor], of: Sequence[Tensor]) -> None:
        copies.extend(into)
        weights.extend(of)

    for layer in tree.__dict__["_simplified"]:
        same: SameInput = layer.__dict__[INPUT]
        if same.a is not None:
            same.stacked(same.a.dtype, copy_later)
            in_dtype(_weights(layer)[1], same.a.dtype, copy_later)
    if copies:
        torch._foreach_copy_(copies, weights)


def _is_plain(layer: Any) -> bool:
    if (type(layer).__module__, type(layer).__name__) not in PLAIN:
        return False
    alone = list(layer.lora_A) == [ADAPTER] and not getattr(layer, "lora_variant", {})
    without = isinstance(layer.lora_dropout[ADAPTER], nn.Identity) and layer.lora_B[ADAPTER].bias is None
    return alone and without and _has_float_weight(layer.base_layer)


@cache
def _simple_class(kind: Any) -> Any:
    return type(f"Simple{kind.__name__}", (kind,), {"forward": _forward})


def _weights(layer: Any) -> tuple[Tensor, Tensor]:
    """A (r, in) and B (out, r)."""
    modules = layer._modules
    return modules["lora_A"]._modules[ADAPTER]._parameters["weight"], modules["lora_B"]._modules[ADAPTER]._parameters["weight"]


def in_dtype(weight: Tensor, dtype: torch.dtype, copying: Copying = torch._foreach_copy_) -> Tensor:
    """A weight as it is computed with: itself, or its copy in this dtype, which stays where it is."""
    if weight.dtype is dtype:
        return weight.detach()
    version, made = weight.__dict__.get(COPY, (None, None))
    if made is None or made.dtype is not dtype or made.device != weight.device:
        version, made = None, torch.empty_like(weight, dtype=dtype, requires_grad=False)
    if version != weight._version:
        copying([made], [weight.detach()])
        weight.__dict__[COPY] = weight._version, made
    return made  # type: ignore[no-any-return]


class SameInput:
    """LoRA layers of one tree that may read the same input."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self.a: Tensor | None = None  # (their ranks together, in), of all A's as they are computed with
        self._layers, self._versions = layers, list[int]()
        self._at: dict[int, tuple[int, int]] = {}
        self._input: Callable[[], Tensor | None] = lambda: None  # the last, while a layer of these has not read it yet
        self._products, self._left = torch.empty(0), 0
        start = 0
        for layer in layers:
            layer.__dict__[INPUT] = self
            rank = _weights(layer)[0].shape[0]
            self._at[id(layer)] = start, (start := start + rank)

    def __deepcopy__(self, memo: dict[int, Any]) -> SameInput:
        made = memo[id(self)] = SameInput([])  # whose layers may be copied within this very copy
        made._layers = [copy.deepcopy(layer, memo) for layer in self._layers]
        made._at = {id(layer): self._at[id(old)] for layer, old in zip(made._layers, self._layers, strict=True)}
        return made

    def stacked(self, dtype: torch.dtype, copying: Copying = torch._foreach_copy_) -> Tensor:
        """All A's in this dtype, one below the other. Stays where it is."""
        weights = [_weights(layer)[0] for layer in self._layers]
        versions = [weight._version for weight in weights]
        if self.a is None or self.a.dtype is not dtype or self.a.device != weights[0].device:
            self.a, self._versions = torch.empty(sum(map(len, weights)), weights[0].shape[1], dtype=dtype, device=weights[0].device), []
        if versions != self._versions:
            copying(self.a.split([*map(len, weights)]), [weight.detach() for weight in weights])
            self._versions = versions
        return self.a

    def a_of(self, layer: Any, dtype: torch.dtype) -> Tensor:
        """The layer's A in this dtype."""
        start, stop = self._at[id(layer)]
        return self.stacked(dtype)[start:stop]

    @torch.no_grad()
    def product(self, layer: Any, x: Tensor, scaling: float | Tensor | FirstRows) -> Tensor:
        """The layer's A x, scaled: (n, r), of the first rows alone where only those have the adapter."""
        if self._input() is not x:
            rows, factor = x.reshape(-1, x.shape[-1]), 1.0
            if isinstance(scaling, FirstRows):
                rows, factor = rows[: len(rows) * scaling.rows // scaling.of], scaling.scaling
            elif not isinstance(scaling, Tensor):
                factor = scaling
            self._products = torch.addmm(rows.new_empty(()), rows, self.stacked(x.dtype).t(), beta=0, alpha=factor)
            if isinstance(scaling, Tensor):  # (B, 1, 1)
                self._products.view(scaling.shape[0], -1, self._products.shape[1]).mul_(scaling)
            self._input, self._left = weakref.ref(x), len(self._layers)
        start, stop = self._at[id(layer)]
        found = self._products[:, start:stop]
        self._left -= 1
        if not self._left:
            self._input, self._products = (lambda: None), torch.empty(0)
        return found


def _forward(self: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """W x + B (scaling · A x); (…, in) -> (…, out)."""
    base, scaling = self._modules["base_layer"], self.scaling[ADAPTER]
    if self._disable_adapters:
        return base(x)
    a, b = _weights(self)
    if torch.is_grad_enabled() and not isinstance(scaling, float):  # nothing trains like this
        return (base(x) + (nn.functional.linear(x.to(a.dtype), a) * scaling) @ b.t()).to(x.dtype)
    inner = self.__dict__[INPUT].product(self, x, scaling)
    adapted: Tensor = _Adapted.apply(x, a, b, inner, self) if torch.is_grad_enabled() else _with_lora(base, x, inner, b)
    return adapted.view(*x.shape[:-1], -1)


def _with_lora(base: Any, x: Tensor, inner: Tensor, b: Tensor) -> Tensor:
    """(n, out); no view, or nothing could be added to it in place."""
    product: Tensor = base.forward(x.reshape(-1, x.shape[-1]))
    product[: len(inner)].addmm_(inner, in_dtype(b, x.dtype).t())
    return product


class _Adapted(torch.autograd.Function):
    """The same with gradients: forward and backward take three and five kernels beside what the base's layer takes itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, inner: Tensor, layer: Any) -> Tensor:
        base = layer._modules["base_layer"]
        ctx.save_for_backward(x, inner, base.weight)  # the weight is needed again, and may be in shards until it is asked for
        ctx.layer, ctx.scaling = layer, layer.scaling[ADAPTER]
        return _with_lora(base, x, inner, b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, inner, _ = ctx.saved_tensors
        layer, of_x = ctx.layer, None
        a, b = _weights(layer)
        rows, upstream = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, gradients[0].shape[-1])
        of_inner = torch.addmm(upstream.new_empty(()), upstream, in_dtype(b, x.dtype), beta=0, alpha=ctx.scaling)
        if ctx.needs_input_grad[0]:
            of_x = upstream @ float_weight(layer._modules["base_layer"], x.dtype)
            of_x = of_x.addmm_(of_inner, layer.__dict__[INPUT].a_of(layer, x.dtype)).view(x.shape)
        return of_x, _product(of_inner.t(), rows, a.dtype), _product(upstream.t(), inner, b.dtype), None, None


def _product(first: Tensor, second: Tensor, dtype: torch.dtype) -> Tensor:
    """In this dtype, summed in float32."""
    if first.dtype is dtype:
        return first @ second
    if first.is_cuda and _gives_float32(first.device):
        return torch.mm(first, second, out_dtype=dtype)
    return (first @ second).to(dtype)


@cache
def _gives_float32(device: torch.device) -> bool:
    """Whether products of 16-bit matrices can be had in float32 there."""
    try:
        ones = torch.ones(8, 8, dtype=torch.bfloat16, device=device)
        return bool((torch.mm(ones, ones, out_dtype=torch.float32) == 8.0).all())
    except (RuntimeError, TypeError, NotImplementedError):
        return False


def float_weight(base: Any, dtype: torch.dtype) -> Tensor:
    """The numbers (out, in) that a frozen linear layer computes with. TypeError for a layer of another kind."""
    if hasattr(base, "float_weight"):  # our own
        weight: Tensor = base.float_weight(dtype)
        return weight
    kind = type(base)
    if kind is nn.Linear:
        return base.weight
    if kind.__name__ == "Conv1D":  # GPT-2's
        return base.weight.t()
    if kind.__name__ == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(base.weight.data, base.weight.quant_state).to(dtype)
    raise TypeError(kind.__name__)


def _has_float_weight(base: Any) -> bool:
    return hasattr(base, "float_weight") or type(base) is nn.Linear or type(base).__name__ in ("Conv1D", "Linear4bit")
