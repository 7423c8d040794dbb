"""How late an operator taps: marked words are planted in a text that appears word by word, and the time to each tap is measured."""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance

from storage.records import Calibration

MARKS = 20
FEWEST = 8
"""Answered marks that a window can be fitted to."""
LONGEST_DELAY = 2.0
"""Seconds; a later tap was about something else."""
WORDS_PER_SECOND = 4.0
GAP = (5, 12)
"""Plain words between two marked ones: more than the longest delay takes."""
TAIL = 0.05
"""Share of the delays that may lie outside of the window, at each end."""
NARROWEST = 0.1
"""Seconds; of a window."""
WORDS = """the river ran slowly past the old mill and a boy sat on the bank and looked at the clouds while his dog slept in the warm grass until
a small boat came round the bend with a red sail and a man in it who waved and called out that the bridge was open again""".split()


def connection() -> str:
    """Over which line the keys come: its delay is in every tap."""
    return "ssh" if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY") else "local"


def text(seed: int = 0) -> list[tuple[str, bool]]:
    """Words, and which of them are marked: MARKS of them, never two close together."""
    rng, planned = random.Random(seed), []
    for _ in range(MARKS):
        planned += [False] * rng.randint(*GAP) + [True]
    planned += [False] * GAP[0]
    return [(WORDS[i % len(WORDS)], marked) for i, marked in enumerate(planned)]


@dataclass
class Measurement:
    """Marked words that appeared, and keys that came; seconds on one clock."""

    marks: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    stray: int = 0  # keys that belonged to no mark
    _answered: int = -1

    def press(self, seconds: float) -> float | None:
        """A key: the delay, if it answers the last mark for the first time."""
        last = bisect_right(self.marks, seconds) - 1
        if last < 0 or last == self._answered or seconds - self.marks[last] > LONGEST_DELAY:
            self.stray += 1
            return None
        self._answered = last
        self.delays.append(seconds - self.marks[last])
        return self.delays[-1]


def fit(delays: Sequence[float], over: str) -> Calibration | None:
    """The window that holds nine of ten delays, and the gamma distribution of their mean and variance; None from too few."""
    if len(delays) < FEWEST:
        return None
    ordered = sorted(delays)
    low, high = _quantile(ordered, TAIL), _quantile(ordered, 1 - TAIL)
    middle = (low + high) / 2
    half = max(high - low, NARROWEST) / 2
    mean, variance = fmean(ordered), max(pvariance(ordered), 1e-4)
    return Calibration("uniform", max(0.0, middle - half), middle + half, mean**2 / variance, variance / mean, over, tuple(delays))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between the two nearest values."""
    at = share * (len(ordered) - 1)
    i = int(at)
    return ordered[i] + (at - i) * (ordered[min(i + 1, len(ordered) - 1)] - ordered[i])
