"""What a correction changed: as weights of its tokens, and as one span of them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

LEFT_ALONE = 0.1
"""Weight of a token that a correction left alone, beside 1 for one that it changed."""


def correction_weights(original: Sequence[int], corrected: Sequence[int], left_alone: float = LEFT_ALONE) -> tuple[float, ...]:
    """Weights for the tokens of a corrected answer: 1 where it differs from the original or goes on after an omission, else `left_alone`.

    All 1 where no token is new: there is nothing that the correction changed to learn from.
    """
    weights = [left_alone] * len(corrected)
    for kind, _, _, start, stop in SequenceMatcher(None, original, corrected, autojunk=False).get_opcodes():
        if kind != "equal":
            stop = min(max(stop, start + 1), len(corrected))
            weights[start:stop] = [1.0] * (stop - start)
    return tuple(weights) if 1.0 in weights else (1.0,) * len(corrected)


def changed_span(before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """[start, stop) of `after` that differs from `before`: common tokens at both ends are left out."""
    limit = min(len(before), len(after))
    start = next((i for i in range(limit) if before[i] != after[i]), limit)
    tail = next((i for i in range(limit - start) if before[-1 - i] != after[-1 - i]), limit - start)
    return start, len(after) - tail
