"""What makes a frozen base take fewer kernels on a GPU, where those of a small model take less time than their launches.

- RMS norms in one kernel. transformers spells them out, in eight forward and a dozen backward.
- Second copies of 4-bit weights in the dtype that they are computed in, where an eighth of the free memory holds all of them. bitsandbytes unpacks
  weights anew in each forward and again in each backward pass. The copies serve what trains; a step of drawing for few answers reads the packed ones,
  which are smaller.
"""

from __future__ import annotations

from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from learners.model.cpu_weights import COPY, is_drawing
from learners.model.memory import free_on_gpu

SHARE = 1 / 8
"""Of the memory that is free once the model is loaded, for copies."""
READ_PACKED = 4
"""Tokens of a step for which bitsandbytes always computes with packed weights as they are. For more it unpacks all of them first, on most cards and
for most sizes, which costs more than reading the copies."""
TRIED_ROWS = 16
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}
"""By how much of it a number may be off: transformers rounds twice on the way."""


def speed_up_on_gpu(model: nn.Module) -> None:
    """Of a frozen model on a CUDA device; anything else is left alone."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        fuse_norms(model)
        unpack_for_training(model, SHARE * free_on_gpu(device))


def fuse_norms(model: nn.Module) -> None:
    """Let RMS norms compute by torch's own. Whether a family's are what that computes is tried on random numbers, once for each kind and weight."""
    dtype = next(model.parameters()).dtype  # of the states; some families keep norms in another
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and _is_rms_norm(module, dtype):
            kind: Any = type(module)
            module.__class__ = _fused_class(kind)


@torch.no_grad()
def _is_rms_norm(norm: Any, dtype: torch.dtype) -> bool:
    weight = getattr(norm, "weight", None)
    if len(signature(norm.forward).parameters) != 1:  # a gate beside the states
        return False
    if not isinstance(weight, Tensor) or weight.dim() != 1 or weight.dtype != dtype or _epsilon(norm) is None:
        return False
    drawn = torch.randn(TRIED_ROWS, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    expected = norm(drawn)
    found = nn.functional.rms_norm(drawn, weight.shape, weight, _epsilon(norm))
    return bool(((found - expected).abs() <= CLOSE.get(weight.dtype, 0.0) * expected.abs() + 1e-6).all())


def _epsilon(norm: Any) -> float | None:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))


@cache
def _fused_class(kind: Any) -> Any:
    def forward(self: Any, states: Tensor) -> Tensor:
        return nn.functional.rms_norm(states, self.weight.shape, self.weight, _epsilon(self))

    return type(f"Fused{kind.__name__}", (kind,), {"forward": forward})


def unpack_for_training(model: nn.Module, most_bytes: float) -> None:
    """Give all 4-bit layers a copy of what their weights stand for, or none of them where that takes more."""
    layers: list[Any] = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    dtypes = [layer.compute_dtype or torch.bfloat16 for layer in layers]
    wanted = sum(layer.in_features * layer.out_features * dtype.itemsize for layer, dtype in zip(layers, dtypes, strict=True))
    if not layers or wanted > most_bytes:
        return
    from bitsandbytes.functional import dequantize_4bit

    for layer, dtype in zip(layers, dtypes, strict=True):
        layer.weight.__dict__[COPY] = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
        layer.__class__ = _unpacked_class()


@cache
def _unpacked_class() -> type:
    from bitsandbytes.nn import Linear4bit

    class UnpackedForTraining(Linear4bit):
        """A 4-bit layer that trains with the numbers that its weights stand for."""

        def forward(self, x: Tensor) -> Tensor:
            if is_drawing() and x.numel() <= READ_PACKED * x.shape[-1]:
                return super().forward(x)
            return nn.functional.linear(x, self.weight.__dict__[COPY], self.bias)

        def float_weight(self, dtype: torch.dtype) -> Tensor:
            return self.weight.__dict__[COPY]

    return UnpackedForTraining
