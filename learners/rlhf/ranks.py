"""Several processes train one policy, each on its share of the rows: data parallelism over the adapter's weights, the base being frozen.

All processes run the same steps with the same seeds and see the same batches; each computes the rows that are its share, and what follows from all
rows (gradients, sums, answers that were drawn) is put together before anybody goes on. So what is decided is decided alike everywhere. The process
group is torch's own (learners/train/launched.py joins it); without one every function here returns what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from learners.model import shards

T = TypeVar("T")


def world() -> int:
    """Processes that train together; 1 for one alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if world() > 1 else 0


def share(n: int) -> range:
    """Of n rows those of this process: neighbours, so that answers to one prompt stay together, and as many as any other's, or one more."""
    return range(n * rank() // world(), n * (rank() + 1) // world())


def own(rows: Sequence[T]) -> Sequence[T]:
    """Those of this process's share."""
    return rows if world() == 1 else rows[share(len(rows)).start : share(len(rows)).stop]


def add_up(*tensors: Tensor) -> None:
    """Put in place of each the sum over all processes. Same shapes, types and order everywhere; alike types travel together."""
    if world() == 1:
        return
    shards.meet()
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        distributed.all_reduce(flat)
        for tensor, summed in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(summed.view_as(tensor))


def total(*figures: float) -> list[float]:
    """The sum of each over all processes, in float64."""
    if world() == 1:
        return [*figures]
    shards.meet()
    summed = torch.tensor(figures, dtype=torch.float64, device=_device())
    distributed.all_reduce(summed)
    return summed.tolist()


@torch.no_grad()
def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each process's gradient is of its rows' share of a loss that is a mean over all rows, so their sum is the gradient."""
    if world() == 1:
        return
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:  # no row of this process's had to do with it
            parameter.grad = torch.zeros_like(parameter)
    add_up(*(parameter.grad for parameter in parameters if parameter.grad is not None))


def gathered(rows: list[T]) -> list[T]:
    """The rows of all processes, in the order of their shares. Tensors among them should be on the CPU."""
    if world() == 1:
        return rows
    shards.meet()
    found: list[Any] = [None] * world()
    distributed.all_gather_object(found, rows)
    return [row for some in found for row in some]


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else torch.device("cpu")
