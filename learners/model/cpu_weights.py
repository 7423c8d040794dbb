"""Second copies of weights in forms that a CPU computes with fast, made once at load where memory allows.

A step of decoding on a CPU is a few rows times every matrix, so what counts is how weights are read. Two forms:

- 4-bit weights as the float32 numbers that they stand for. bitsandbytes would unpack them anew in every forward, and again in every backward pass.
  The result is the same bit by bit.
- float32 weights that float16 holds, as those of models stored in 16 bit are, packed for FBGEMM's float16 product: it reads half the bytes and is
  made for few rows (three to six times as fast as torch's float32 product at four rows, faster up to some hundred). States and sums are float32.
  It is used in drawing alone, inside `drawing()`: what trains computes with one kernel with and without gradients.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from learners.model.memory import available_memory

SHARE = 0.25
"""Of the memory that is available, for each of the two forms."""
LOST = 2.0**-25
"""The most that a weight may change by: half a step of float16's smallest numbers. Larger ones must be held exactly."""
COPY = "_cpu_copy"
"""Where a weight keeps its copy: on the parameter, which all trees share."""


class _Drawing(threading.local):
    on = False


_drawing = _Drawing()


@contextmanager
def drawing() -> Iterator[None]:
    """Forwards of this thread may use float16 products while the block runs."""
    before, _drawing.on = _drawing.on, True
    try:
        yield
    finally:
        _drawing.on = before


def is_drawing() -> bool:
    """Whether this thread is within `drawing`."""
    return _drawing.on


class Linear16(nn.Linear):
    """A linear layer over weights that float16 seems to hold, packed for drawing in a thread of its own; the first who draws waits for it."""

    def forward(self, x: Tensor) -> Tensor:
        if not _drawing.on or torch.jit.is_tracing():  # recordings do not hold packed weights
            return nn.functional.linear(x, self.weight, self.bias)
        packed = _packed(self.weight)
        if packed is None:
            return nn.functional.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
        return product if self.bias is None else product.add_(self.bias)

    def float_weight(self, dtype: torch.dtype) -> Tensor:
        return self.weight


def _packed(weight: Tensor) -> Any:
    """None where float16 does not hold all of it after all."""
    found = weight.__dict__[COPY]
    if isinstance(found, Future):
        found = weight.__dict__[COPY] = found.result()
    return found


def speed_up_on_cpu(model: nn.Module) -> None:
    """Give the layers of a frozen model on the CPU the forms above, as far as they fit."""
    _unpack_4bit(model)
    _pack_16bit(model)


def copied_bytes(model: nn.Module) -> int:
    """What these copies take."""
    copies = [(p, copy) for p in model.parameters() if COPY in p.__dict__ and (copy := _packed(p)) is not None]
    return sum(copy.nbytes if isinstance(copy, Tensor) else 2 * p.numel() for p, copy in copies)


def _pack_16bit(model: nn.Module) -> None:
    layers = [m for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.float32 and m.weight.device.type == "cpu"]
    distinct = {id(layer.weight): layer for layer in layers}
    taken = sum(2 * layer.weight.numel() for layer in distinct.values())
    if not layers or not _fits(taken) or not _has_float16_products():
        return
    packer = ThreadPoolExecutor(1)  # seconds for a hundred million weights, while trees are made
    for layer in distinct.values():
        if _held_by_float16(layer.weight[:8]):  # which says no for most models that are stored in float32
            layer.weight.__dict__[COPY] = packer.submit(_pack, layer.weight.detach())
    packer.shutdown(wait=False)
    for layer in layers:
        if COPY in layer.weight.__dict__:
            layer.__class__ = Linear16


def _pack(weight: Tensor) -> Any:
    return torch.ops.quantized.linear_prepack_fp16(weight, None) if _held_by_float16(weight) else None


def _held_by_float16(weight: Tensor) -> bool:
    least, most = weight.half().float().sub_(weight).aminmax()
    return float(least) >= -LOST and float(most) <= LOST  # not a number where one is too large


@cache
def _has_float16_products() -> bool:
    """Builds for other processors than x86 have none."""
    weight = torch.tensor([[1.5, -2.0], [0.25, 4.0]])
    try:
        product = torch.ops.quantized.linear_dynamic_fp16(torch.ones(1, 2), torch.ops.quantized.linear_prepack_fp16(weight, None))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return product.tolist() == [[-0.5, 4.25]]


def _unpack_4bit(model: nn.Module) -> None:
    layers: list[Any] = [m for m in model.modules() if type(m).__name__ == "Linear4bit" and m.weight.device.type == "cpu"]
    numbers = sum(4 * layer.in_features * layer.out_features for layer in layers)
    if not layers or not _fits(numbers):
        return
    from bitsandbytes.functional import dequantize_4bit

    for layer in layers:
        weight: Any = layer.weight
        weight.__dict__[COPY] = dequantize_4bit(weight.data, weight.quant_state).to(torch.float32)
        layer.__class__ = _unpacked_class()


@cache
def _unpacked_class() -> type:
    from bitsandbytes.nn import Linear4bit

    class UnpackedLinear4bit(Linear4bit):
        """A 4-bit layer that computes with the numbers that its weights stand for."""

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.__dict__[COPY], self.bias)

        def float_weight(self, dtype: torch.dtype) -> Tensor:
            return self.weight.__dict__[COPY]

    return UnpackedLinear4bit


def _fits(wanted: int) -> bool:
    return wanted <= SHARE * available_memory()
