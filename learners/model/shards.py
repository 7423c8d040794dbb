"""A frozen base in shards: each of several processes keeps its part of every layer's weights, and a layer is whole while it computes.

ZeRO's third stage (Rajbhandari et al. 2020) by FSDP2, torch's `fully_shard`. What differs, because several trees share one base and the processes
do not run the same forwards (shares of rows are uneven, an answer that has ended takes no step):

- Not modules are sharded but tensors, of each layer once, in a holder that nobody calls. Each tensor of the base stays the object that it is in
  all trees, and looks at the memory that the holder gathers into, and frees.
- Before a layer is gathered the processes tell each other over gloo which one they need, and gather all of those together. Who has no rows left
  takes part while it waits in `meet`; so nobody has to run as many forwards as the others, or the same.
- In the backward pass a layer is asked for when its weights are taken out of the graph.

Embeddings, LM head, norms and adapters are whole everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, distributed, nn

from learners.model.checkpoint import ModelError
from learners.model.memory import SHARE, available_memory
from learners.model.replicas import tensors_of
from learners.model.zero3 import Holder

LEAST_NUMBERS = 1024
"""In a tensor that is worth sharding."""
LAYER = "_shard"
"""Where a layer keeps its Shard, and a module that unpacks weights of its own."""
NOTHING = -1
_Group = list[Tensor]
"""Tensor objects over one memory."""


@dataclass(frozen=True)
class Sharding:
    """How a base is to be sharded."""

    offload: Any = None  # where shards are kept, as a policy of FSDP2 …
    zero3: dict[str, Any] | None = None  # … or DeepSpeed's settings, where it does the sharding
    copies: int = 1  # each over its share of the processes, neighbours: over the GPUs of one machine, where the network between machines is slower


_asked: Sharding | None = None
_base: ShardedBase | None = None


def ask_for(sharding: Sharding) -> None:
    """Bases that this process loads from here on are sharded. Raises ModelError where the processes cannot be divided so."""
    global _asked
    if distributed.get_world_size() % sharding.copies:
        raise ModelError(f"{distributed.get_world_size()} processes cannot hold {sharding.copies} copies of a base", "see parallelism_config")
    _asked = sharding


def loaded_on(device: torch.device) -> torch.device:
    """Where a base is put together that will compute on `device`: one that is sharded may not fit there."""
    return torch.device("cpu") if _asked is not None else device


def shard(model: nn.Module, device: torch.device) -> bool:
    """Keep this process's shards of a base, on `device`; False where that was not asked for. Collective."""
    global _base
    if _asked is None:
        return False
    _base = ShardedBase(model, device, _asked)
    return True


def sharded() -> bool:
    """Whether the base is in shards: its weights are somewhere else each time."""
    return _base is not None


def meet() -> None:
    """Before anything that all processes do together: take part in what others gather until all are here."""
    if _base is not None:
        _base.meet()


@contextmanager
def whole() -> Iterator[None]:
    """All layers at once while the block runs, where every process has the memory: decoding would gather them for each token. Collective at its
    beginning; inside nothing else may be."""
    if _base is None:
        yield
        return
    _base.gather_all()
    try:
        yield
    finally:
        _base.free()


def shard_bytes() -> int:
    """Of this process's shards and of the largest layer."""
    return 0 if _base is None else _base.nbytes + _base.largest


class ShardedBase:
    """The layers of one base."""

    def __init__(self, model: nn.Module, device: torch.device, sharding: Sharding) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from transformers.modeling_layers import GradientCheckpointingLayer

        self._device, self._processes = torch.empty(0, device=device).device, distributed.get_world_size() // sharding.copies
        self._words, _ = distributed.new_subgroups(self._processes, backend="gloo")
        mesh = init_device_mesh(device.type, (sharding.copies, self._processes), mesh_dim_names=("copies", "shards"))
        self._sharding, self._mesh = sharding, mesh if sharding.copies > 1 else mesh["shards"]
        self._whole, self._here = False, NOTHING
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        layers_of = Counter(tensor for layer in layers for tensor in {id(each) for each in tensors_of(layer)})
        self._holders: list[Any] = []
        for layer in layers:
            groups = _moved(layer, self._device)
            if worth := [group for group in groups if layers_of[id(group[0])] == 1 and group[0].numel() >= LEAST_NUMBERS]:
                self._hold(layer, worth)
        if not self._holders:
            raise ModelError(f"{type(model).__name__} does not say what its layers are: nothing of it can be sharded", "launch without FSDP")
        _moved(model, self._device)
        self.nbytes = sum(map(_bytes_kept, self._holders))
        self._layer_bytes = [sum(each.nbytes for each in holder.parameters()) for holder in self._holders]
        self.largest = max(self._layer_bytes)

    def _hold(self, layer: nn.Module, groups: list[_Group]) -> None:
        holder = self._sharded([group[0] for group in groups])
        holder.unshard()
        storages = set()
        for group, parameter in zip(groups, holder.parameters(), strict=True):
            storages.add(parameter.untyped_storage()._cdata)
            for tensor in group:
                tensor.data = parameter.data  # that memory is freed and filled again, and stays the same to all who look at it
        holder.reshard()
        _let_ask(layer, Shard(self, len(self._holders), frozenset(storages)))
        self._holders.append(holder)

    def _sharded(self, tensors: list[Tensor]) -> Any:
        from torch.distributed.fsdp import fully_shard

        if self._sharding.zero3 is not None:
            return Holder(tensors, self._sharding.zero3)
        holder = nn.Module()
        for i, tensor in enumerate(tensors):
            holder.register_parameter(str(i), nn.Parameter(tensor.detach(), requires_grad=False))
        return fully_shard(holder, mesh=self._mesh, offload_policy=self._sharding.offload)

    def need(self, layer: int) -> None:
        """Until another layer is needed, this one is whole."""
        if self._whole or self._here == layer:
            return
        self.free()
        while self._here != layer:
            self._gather(layer)

    def meet(self) -> None:
        """See `meet`."""
        self.free()
        while self._gather(NOTHING):
            pass

    def gather_all(self) -> None:
        """See `whole`."""
        self.meet()
        room = torch.tensor([int(sum(self._layer_bytes) <= SHARE * self._free_bytes())])
        distributed.all_reduce(room, distributed.ReduceOp.MIN, self._words)
        if room.item():
            for holder in self._holders:
                holder.unshard()
            self._whole = True

    def free(self) -> None:
        """Keep shards alone."""
        for i in range(len(self._holders)) if self._whole else [self._here] * (self._here != NOTHING):
            self._holders[i].reshard()
        self._whole, self._here = False, NOTHING

    def _gather(self, wanted: int) -> bool:
        """What any process needs now; whether there was something. No layer may be whole before."""
        said = [torch.empty(1, dtype=torch.int64) for _ in range(self._processes)]
        distributed.all_gather(said, torch.tensor([wanted]), self._words)
        needed = sorted({int(each) for each in said} - {NOTHING})
        for layer in needed:
            self._holders[layer].unshard()
            if layer != wanted:
                self._holders[layer].reshard()
        self._here = wanted
        return bool(needed)

    def _free_bytes(self) -> float:
        if self._device.type != "cuda":
            return available_memory() / self._processes
        free, _ = torch.cuda.mem_get_info(self._device)
        return float(free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device))


class Shard:
    """One layer as its modules know it, the same object in all trees."""

    def __init__(self, base: ShardedBase, layer: int, storages: frozenset[int]) -> None:
        self._base, self._layer, self._storages = base, layer, storages

    def __deepcopy__(self, memo: dict[int, Any]) -> Shard:
        return self

    def need(self) -> None:
        """The layer's weights, until others are needed."""
        self._base.need(self._layer)

    def keep(self, tensor: Tensor) -> Any:
        """What the graph keeps of a tensor: of a weight, whose it is too."""
        return (self, tensor) if tensor.untyped_storage()._cdata in self._storages else tensor


def _taken_out(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    layer, weight = kept
    layer.need()
    return weight


class _AsksForItsWeights:
    """Mixed into a layer's class. Forward is also what is called again in the backward pass (recompute.py)."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().__call__(*arguments, **named)  # type: ignore[misc]
        with torch.autograd.graph.saved_tensors_hooks(self.__dict__[LAYER].keep, _taken_out):
            return super().__call__(*arguments, **named)  # type: ignore[misc]

    def forward(self, *arguments: Any, **named: Any) -> Any:
        self.__dict__[LAYER].need()
        return super().forward(*arguments, **named)  # type: ignore[misc]


def _let_ask(layer: nn.Module, shard: Shard) -> None:
    kind = type(layer)
    layer.__class__ = type(f"Sharded{kind.__name__}", (_AsksForItsWeights, kind), {})
    for module in layer.modules():
        module.__dict__[LAYER] = shard
        if type(module).__name__ == "Linear4bit":
            module.__class__ = _graph_safe_linear_4bit()


@cache
def _graph_safe_linear_4bit() -> type:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    class Unpacked(torch.autograd.Function):
        """x · unpack(W)ᵀ. bitsandbytes' own keeps the weight where nobody is asked for it."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
            ctx.layer = layer
            return nn.functional.linear(x, dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(x.dtype))

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
            ctx.layer.__dict__[LAYER].need()
            return gradients[0] @ dequantize_4bit(ctx.layer.weight.data, ctx.layer.weight.quant_state).to(gradients[0].dtype), None

    class ShardedLinear4bit(Linear4bit):
        """A 4-bit layer whose weight may be gone between forward and backward pass."""

        def forward(self, x: Tensor) -> Tensor:
            y = Unpacked.apply(x, self)
            return y if self.bias is None else y + self.bias.to(y.dtype)

    return ShardedLinear4bit


def _moved(module: nn.Module, device: torch.device) -> list[_Group]:
    """Its tensors, on the device that computes with them; those over one memory together."""
    groups: dict[Any, _Group] = {}
    for tensor in tensors_of(module):
        groups.setdefault((tensor.data_ptr(), tensor.shape, tensor.dtype), []).append(tensor)
    for group in groups.values():
        if group[0].device != device:
            there = group[0].detach().to(device)
            for tensor in group:
                tensor.data = there
    return [*groups.values()]


def _bytes_kept(holder: Any) -> int:
    return holder.nbytes if isinstance(holder, Holder) else sum(each.to_local().nbytes for each in holder.parameters())
