"""Keys and values between tokens: a cache that grows by doubling, and the prompts that were read last.

Import this where a cache is made, not at the head of a file: it imports transformers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from learners.model.rows import KeysValues

LEAST_CAPACITY = 64
"""Tokens."""


class DoublingLayer(DynamicLayer):
    """Keys and values of one layer in tensors whose capacity doubles; DynamicLayer copies all of them for every token."""

    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, q, width) of each; all that there are then, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        n = self.get_seq_length()
        total = n + key_states.shape[-2]
        keys, values = self._with_room(key_states, value_states, n, total)
        keys[:, :, n:total], values[:, :, n:total] = key_states, value_states
        self.keys, self.values = keys[:, :, :total], values[:, :, :total]
        return self.keys, self.values

    def _with_room(self, key_states: Tensor, value_states: Tensor, n: int, total: int) -> tuple[Tensor, Tensor]:
        if self._room is None or self._room[0].shape[2] < total:
            capacity = max(LEAST_CAPACITY, 1 << (total - 1).bit_length())
            room = tuple(new.new_empty(*new.shape[:2], capacity, new.shape[3]) for new in (key_states, value_states))
            for into, old in zip(room, (self.keys, self.values), strict=True):
                if n:
                    into[:, :, :n] = old
            self._room = (room[0], room[1])
        return self._room

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows, any of them any number of times."""
        n = self.get_seq_length()
        if n and self._room is not None:
            keys, values = (each.index_select(0, beam_idx) for each in self._room)
            self._room, self.keys, self.values = (keys, values), keys[:, :, :n], values[:, :, :n]

    batch_select_indices = reorder_cache


def new_cache(config: Any, columns: int) -> DynamicCache:
    """An empty cache of up to so many columns for a model of this configuration; layers that keep something else than all keys and values, or not
    all of them to the end, are transformers' own."""

    def all_kept(layer: Any) -> bool:
        return type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and columns <= layer.sliding_window)

    cache = DynamicCache(config=config)
    cache.layers = [DoublingLayer() if all_kept(layer) else layer for layer in cache.layers]
    return cache


def keeps_all(cache: DynamicCache) -> bool:
    """Whether every layer keeps all keys and values and nothing else, so that a part of them is what was kept of a shorter text."""
    return bool(cache.layers) and all(type(layer) is DoublingLayer for layer in cache.layers)


class Known(NamedTuple):
    """What is known of a prompt."""

    tokens: int = 0  # that it begins with
    keys_values: KeysValues = []  # (1, heads, tokens, width) of each layer
    last: tuple[Tensor, Tensor] | None = None  # logits (1, 1, V) and state (1, 1, d) behind it, where all of it is known


class PromptCache:
    """Keys and values of the prompts read last, so that one that begins alike is computed from where it differs (the system message of a template,
    the turns before this one), and the same prompt again not at all.

    For the adapter and for the base apart; what was computed with an adapter is forgotten when its weights change.
    """

    def __init__(self, limit: float) -> None:
        """limit: bytes."""
        self._limit = limit
        self._kept: OrderedDict[tuple[bool, tuple[int, ...]], Known] = OrderedDict()

    def begin(self, prompt: Sequence[int], adapter: bool) -> Known:
        """All of a prompt, or its longest known beginning, without its last token."""
        if (whole := self._kept.get((adapter, tuple(prompt)))) is not None:
            self._kept.move_to_end((adapter, tuple(prompt)))
            return whole
        best, found = 0, None
        for key in self._kept:
            if key[0] == adapter and (n := _common(key[1], prompt)) > best:
                best, found = n, key
        best = min(best, len(prompt) - 1)
        if found is None or best <= 0:
            return Known()
        self._kept.move_to_end(found)
        return Known(best, [(keys[:, :, :best], values[:, :, :best]) for keys, values in self._kept[found].keys_values])

    def keep(self, prompt: Sequence[int], adapter: bool, kept: KeysValues, logits: Tensor, hidden: Tensor) -> None:
        """Remember a prompt that was read, with what stands behind it; those used longest ago go."""
        self._kept[adapter, tuple(prompt)] = Known(len(prompt), kept, (logits.clone(), hidden.clone()))
        self._kept.move_to_end((adapter, tuple(prompt)))
        while self._bytes() > self._limit:
            self._kept.popitem(last=False)

    def forget(self) -> None:
        """All of it."""
        self._kept.clear()

    def forget_adapter(self) -> None:
        """The adapter's weights have changed."""
        for key in [key for key in self._kept if key[0]]:
            del self._kept[key]

    def _bytes(self) -> int:
        return sum(each.nbytes for known in self._kept.values() for both in (*known.keys_values, known.last or ()) for each in both)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def fill(cache: DynamicCache, rows: Sequence[KeysValues], columns: int) -> None:
    """Put n rows into an empty cache, with nothing before those that are shorter."""
    for i, layer in enumerate(cache.layers):
        keys, values = (torch.cat([_after_nothing(row[i][j], columns) for row in rows]) for j in (0, 1))
        layer.update(keys, values)


def _after_nothing(each: Tensor, columns: int) -> Tensor:
    return nn.functional.pad(each, (0, 0, columns - each.shape[2], 0)) if each.shape[2] < columns else each[:, :, :columns]


def taken(cache: DynamicCache, row: int, begun: int, padding: int) -> KeysValues:
    """A copy of one row, without the padding that stands after its first `begun` columns."""
    return [tuple(_without(each[row : row + 1], begun, padding) for each in (layer.keys, layer.values)) for layer in cache.layers]  # type: ignore[misc]


def _without(each: Tensor, begun: int, padding: int) -> Tensor:
    return torch.cat([each[:, :, :begun], each[:, :, begun + padding :]], 2)
