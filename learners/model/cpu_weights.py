"""Second copies of weights in forms that a CPU computes with fast, made once at load where memory allows.

A step of decoding on a CPU is a few rows times every matrix, so what counts is how weights are read. Two forms:

- 4-bit weights as the float32 numbers that they stand for. bitsandbytes would unpack them anew in every forward, and again in every backward pass.
  The result is the same bit by bit.
- float32 weights that float16 holds, as those of models stored in 16 bit are, and those unpacked from 4 bit, packed for FBGEMM's float16 product: it
  reads half the bytes and is made for few rows (three to six times as fast as torch's float32 product at four rows, faster up to some hundred).
  States and sums are float32. It is used in drawing alone, inside `drawing()`: what trains computes with one kernel with and without gradients.
  What 4 bits stand for is rounded by it, at most by 2⁻¹¹ of each number: a millionth of a nat a token, where bfloat16 would be a ten-thousandth.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
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
COPY, PACKED = "_cpu_copy", "_cpu_packed"
"""Where a weight keeps its copies: on the parameter, which all trees share."""
MOST_PACKERS = 4
"""Threads."""
MOST = 65504.0
"""Of float16's numbers."""


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
        return _product(x, self.weight, self.weight, self.bias)

    def float_weight(self, dtype: torch.dtype) -> Tensor:
        return self.weight


def _product(x: Tensor, parameter: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Of a layer's weight, which belongs to a parameter; in drawing of the packed one, if there is one."""
    packed = _packed(parameter) if _drawing.on and not torch.jit.is_tracing() else None  # recordings do not hold packed weights
    if packed is None:
        return nn.functional.linear(x, weight, bias)
    product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return product if bias is None else product.add_(bias)


def _packed(parameter: Tensor) -> Any:
    """None where float16 does not hold all of it after all, or there was no room."""
    found = parameter.__dict__.get(PACKED)
    if isinstance(found, Future):
        found = parameter.__dict__[PACKED] = found.result()
    return found


def speed_up_on_cpu(model: nn.Module) -> None:
    """Give the layers of a frozen model on the CPU the forms above, as far as they fit."""
    _unpack_4bit(model)
    _pack_16bit(model)


def copied_bytes(model: nn.Module) -> int:
    """What these copies take."""
    unpacked = [p.__dict__.get(COPY) for p in model.parameters()]
    floats = sum(copy.nbytes for copy in unpacked if copy is not None)
    return floats + sum(2 * _numbers(p).numel() for p in model.parameters() if _packed_or_will_be(p))


def _packed_or_will_be(parameter: Tensor) -> bool:
    """Without a wait; a weight that is not packed yet seems to be one that will."""
    found = parameter.__dict__.get(PACKED)
    unknown = isinstance(found, Future) and not found.done()
    return unknown or _packed(parameter) is not None


def _numbers(parameter: Tensor) -> Tensor:
    """The float32 numbers that a layer's weights are, or stand for."""
    found: Tensor = parameter.__dict__.get(COPY, parameter).detach()
    return found


def _pack_16bit(model: nn.Module) -> None:
    layers: list[Any] = [m for m in model.modules() if type(m) is nn.Linear or type(m).__name__ == "UnpackedLinear4bit"]
    layers = [layer for layer in layers if _numbers(layer.weight).dtype == torch.float32]
    distinct = {id(layer.weight): layer.weight for layer in layers if layer.weight.device.type == "cpu"}
    taken = sum(2 * _numbers(weight).numel() for weight in distinct.values())
    if not distinct or not _fits(taken) or not _has_float16_products():
        return
    packer = ThreadPoolExecutor(min(MOST_PACKERS, os.cpu_count() or 1))  # a second for a hundred million weights, while trees are made
    for weight in distinct.values():
        may = _rounded_by_float16 if COPY in weight.__dict__ else _held_by_float16
        if may(_numbers(weight)[:8]):  # which says no for most models that are stored in float32
            weight.__dict__[PACKED] = packer.submit(_pack, _numbers(weight), may)
    packer.shutdown(wait=False)
    for layer in layers:
        if type(layer) is nn.Linear and PACKED in layer.weight.__dict__:
            layer.__class__ = Linear16


def _pack(weight: Tensor, may: Callable[[Tensor], bool]) -> Any:
    return torch.ops.quantized.linear_prepack_fp16(weight, None) if may(weight) else None


def _rounded_by_float16(weight: Tensor) -> bool:
    return float(weight.abs().max()) <= MOST


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
            return _product(x, self.weight, self.weight.__dict__[COPY], self.bias)

        def float_weight(self, dtype: torch.dtype) -> Tensor:
            return self.weight.__dict__[COPY]

    return UnpackedLinear4bit


def _fits(wanted: int) -> bool:
    return wanted <= SHARE * available_memory()
