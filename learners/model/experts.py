"""Routed experts in 4 bit. transformers keeps all experts of a layer in one tensor, which bitsandbytes' layers do not reach.

Each expert is quantized by itself as the weights arrive, so that all of them are never there unpacked, and only those that tokens are routed to are
unpacked in a forward. For the backward pass they are unpacked again rather than kept.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from learners.model.shards import LAYER

BLOCK = 64
"""Weights that share a scale, as in QLoRA (Dettmers et al. 2023)."""
MULTIPLIED_AT_ONCE = {"Llama4TextExperts"}
"""Experts that all work on every token, as one product: unpacking them one by one would save nothing."""
SCALES = "_expert_scales"
"""Where a module keeps the scales and shapes of weights that are being loaded."""


class FourBitExperts(nn.Module):
    """Matrices (E, a, b) as NF4; indexing gives one of them, unpacked."""

    packed: Tensor  # (E, a·b / 2) uint8
    scales: Tensor  # (E, a·b / 64) float32
    code: Tensor  # (16,) float32, what the four bits stand for

    def __init__(self, packed: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> None:
        from bitsandbytes.functional import get_4bit_type

        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.register_buffer("code", get_4bit_type("nf4", device=packed.device))

    def __getitem__(self, expert: Tensor | int) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        if (shard := self.__dict__.get(LAYER)) is not None:  # in the backward pass they may be gone
            shard.need()
        i = int(expert)
        state = QuantState(self.scales[i], shape=self.shape, dtype=self.dtype, blocksize=BLOCK, code=self.code, quant_type="nf4")
        weight = dequantize_4bit(self.packed[i].unsqueeze(1), state)
        if torch.is_grad_enabled():
            _unpacked()[weight.data_ptr()] = (weakref.ref(weight), self, i)
        return weight


def _unpacked() -> dict[int, tuple[weakref.ref[Tensor], FourBitExperts, int]]:
    """This thread's weights that may be alive, by their place in memory."""
    found: dict[int, Any] | None = getattr(_local, "unpacked", None)
    if found is None:
        found = _local.unpacked = {}
    return found


_local = threading.local()


def _instead_of_keeping(tensor: Tensor) -> Any:
    known = _unpacked().get(tensor.data_ptr())
    weight = known[0]() if known is not None else None
    if known is None or weight is None or weight.numel() != tensor.numel():
        return tensor
    return known[1], known[2], tensor.shape, tensor.stride()


def _unpacked_again(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    weights, i, shape, stride = kept
    return weights[i].as_strided(shape, stride)


class _UnpacksAgain:
    """Mixed into the class of a layer's experts."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*arguments, **named)  # type: ignore[misc]
        with torch.autograd.graph.saved_tensors_hooks(_instead_of_keeping, _unpacked_again):
            found = super().forward(*arguments, **named)  # type: ignore[misc]
        _unpacked().clear()
        return found


def is_experts(module: nn.Module) -> bool:
    """Whether it holds the weights of all experts of a layer."""
    return "Experts" in type(module).__name__ and any(p.dim() == 3 for p in module._parameters.values() if p is not None)


def unquantized_experts(model: nn.Module) -> int:
    """Weights of experts that are kept in full."""
    return sum(p.numel() for module in model.modules() if is_experts(module) for p in module._parameters.values() if p is not None and p.dim() == 3)


@contextmanager
def experts_in_four_bits() -> Iterator[None]:
    """Models that transformers quantizes to 4 bit in this block get their experts quantized too; `finish_experts` completes them."""
    from transformers.quantizers import auto
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    class WithExperts(Bnb4BitHfQuantizer):
        def param_needs_quantization(self, model: Any, param_name: str, **named: Any) -> bool:
            return _expert_weight(model, param_name) or super().param_needs_quantization(model, param_name, **named)

        def get_quantize_ops(self) -> Any:
            return _quantize_ops(super().get_quantize_ops())

    name, own = "bitsandbytes_4bit", auto.AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"]
    auto.AUTO_QUANTIZER_MAPPING[name] = WithExperts
    try:
        yield
    finally:
        auto.AUTO_QUANTIZER_MAPPING[name] = own


def _expert_weight(model: nn.Module, name: str) -> bool:
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    weight = module._parameters.get(last)
    if type(module).__name__ in MULTIPLIED_AT_ONCE:
        return False
    return is_experts(module) and weight is not None and (weight.dim() == 3 or last in module.__dict__.get(SCALES, {}))


def _quantize_ops(linear: Any) -> Any:
    """Experts here, linear layers by the operation that is given."""

    class Quantize(type(linear)):  # type: ignore[misc]
        def convert(self, input_dict: dict[str, Any], full_layer_name: str | None = None, model: Any = None, **named: Any) -> dict[str, Any]:
            ((name, value),) = input_dict.items()
            if not _expert_weight(model, name):
                return super().convert(input_dict, full_layer_name=full_layer_name, model=model, **named)
            path, _, last = name.rpartition(".")
            weights = value[0] if isinstance(value, list) else value
            packed, scales = quantize(weights)
            model.get_submodule(path).__dict__.setdefault(SCALES, {})[last] = scales, tuple(weights.shape[1:])
            return {name: nn.Parameter(packed, requires_grad=False)}

    return Quantize(linear.hf_quantizer)


def quantize(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(E, a, b) -> NF4 of each matrix (E, a·b / 2) uint8 and its scales (E, a·b / 64) float32."""
    from bitsandbytes.functional import quantize_4bit

    found = [quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4") for weight in weights]
    return torch.stack([packed.flatten() for packed, _ in found]), torch.stack([state.absmax.float() for _, state in found])


def finish_experts(model: Any, dtype: torch.dtype) -> int:
    """Let experts compute from what was quantized while the model was loaded; how many weights that are."""
    own = [module for module in model.modules() if SCALES in module.__dict__]
    count = 0
    for module in own:
        for name, (scales, shape) in module.__dict__.pop(SCALES).items():
            packed = module._parameters.pop(name).data
            module.add_module(name, FourBitExperts(packed, scales, shape, dtype))
            count += 2 * packed.numel()
        kind = type(module)
        module.__class__ = type(f"FourBit{kind.__name__}", (_UnpacksAgain, kind), {})
    if own:
        model.set_experts_implementation("eager")  # the one that takes experts one by one
    return count
