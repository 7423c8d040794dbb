"""What a family keeps between tokens, by rows: keys and values, and what convolutions and linear attention carry on."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def select_rows(past: Any, rows: Tensor) -> None:
    """Let the cache hold these of its rows, (n,) int64, in this order and as often as they are named.

    `reorder_cache` is the one operation by rows that every kind of layer has: `batch_select_indices` knows keys and values alone.
    """
    past.reorder_cache(rows)
