"""What a model's attention asks of a cache, over keys and values of fixed length: where the next ones go is a tensor, all columns come back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from learners.model.rows import KeysValues


class FixedCache:
    """Stands where transformers expects a Cache, for one token a row at a time; masks are given beside it."""

    is_compileable = True

    def __init__(self, kept: KeysValues, column: Tensor) -> None:
        """kept: (rows, heads, length, width) of each layer. column: (1,) int64, where the next token's go."""
        self._kept, self._column = kept, column

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        keys, values = self._kept[layer_idx]
        keys.index_copy_(2, self._column, key_states)
        values.index_copy_(2, self._column, value_states)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are given; this only says that the cache is not empty."""
        return 1

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._kept[layer_idx][0].shape[2], 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return self._kept[layer_idx][0].shape[2]

    get_max_length = get_max_cache_shape

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self._kept)

    @property
    def layers(self) -> list[Any]:
        return []

    def __len__(self) -> int:
        return len(self._kept)
