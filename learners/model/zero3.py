"""Weights in shards by DeepSpeed, its stage 3 (Rajbhandari et al. 2020), where shards.py takes FSDP2 by itself.

DeepSpeed's own hooks gather what one model's modules need, in an order that all processes share; here only its partitioning is used. It gives a
parameter other memory each time, and graphs keep views of a weight, so what was gathered goes into memory that stays the same to who looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Holder:
    """Some tensors in shards; has of a module of FSDP2 what shards.py uses."""

    def __init__(self, tensors: Sequence[Tensor], settings: dict[str, Any]) -> None:
        """settings: DeepSpeed's `zero_optimization`."""
        import deepspeed

        module = nn.Module()
        for i, tensor in enumerate(tensors):
            module.register_parameter(str(i), nn.Parameter(tensor.detach().clone(), requires_grad=False))
        self._memory = [torch.empty_like(tensor) for tensor in tensors]
        config = {"zero_optimization": settings, "train_micro_batch_size_per_gpu": 1}
        deepspeed.zero.Init(module=module, config_dict_or_path=config, dtype=tensors[0].dtype, mem_efficient_linear=False)
        self._shards: list[Any] = [*module.parameters()]

    @property
    def nbytes(self) -> int:
        """Of this process's shards."""
        return sum(shard.ds_tensor.nbytes for shard in self._shards)

    def parameters(self) -> list[Tensor]:
        """The memory that is filled and freed."""
        return self._memory

    def unshard(self) -> None:
        """Collective."""
        self._shards[0].all_gather(self._shards)
        for memory, shard in zip(self._memory, self._shards, strict=True):
            memory.untyped_storage().resize_(memory.nbytes)
            memory.copy_(shard.data)
        self._shards[0].partition(self._shards)

    def reshard(self) -> None:
        """Free the memory."""
        for memory in self._memory:
            memory.untyped_storage().resize_(0)
