"""Which words a tap was about: credit assignment over the display intervals of tokens.

A person answers to what they read a moment ago. If the delay has the density f, a step that was displayed during [start, end) and a tap at t
belong together with probability `∫ f(x) dx` from t - end to t - start (Knox and Stone 2009). Two uses of these credits:

- **individual** (as in Deep TAMER, Warnell et al. 2018): each pair of a tap and a token is a sample of its own, with the tap's value as its target
  and the credit as its weight in the sum of squares. This is what Ĥ learns from: the target does not depend on how fast tokens come.
- **aggregate** (Knox's later default): one label for each step, the credited sum of taps, extrapolated while more may come. Here it only tells when
  silence about a token is complete.

What differs: credits are normalised for each tap, so that every tap weighs the same however much of its window lies outside the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Protocol

from storage.records import Calibration

LEAST_MASS = 0.5
"""Share of a tap's window that must not lie before the answer: below, the tap was most likely about something else."""
COMPLETE = 0.9
"""Share of a step's credit that must be past before silence about it means anything (the author's SAMPLE_CUMUL_CRED_MIN)."""


class Window(Protocol):
    """How long after a word its tap comes."""

    def mass(self, least: float, most: float) -> float:
        """Probability of a delay between `least` and `most` seconds."""
        ...

    @property
    def end(self) -> float:
        """Seconds after which (nearly) no tap comes any more."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Any delay between two bounds is as likely; the author's choice, with the bounds that he used for keys."""

    low: float = 0.2
    high: float = 0.8

    def mass(self, least: float, most: float) -> float:
        return max(0.0, min(most, self.high) - max(least, self.low)) / (self.high - self.low)

    @property
    def end(self) -> float:
        return self.high


@dataclass(frozen=True)
class Gamma:
    """Delays of a gamma distribution: most near the mode, some long after it (Hockley 1984, as cited by Knox and Stone)."""

    shape: float
    scale: float  # seconds

    def mass(self, least: float, most: float) -> float:
        return self._below(most) - self._below(least)

    @property
    def end(self) -> float:
        return self.scale * (self.shape + 4 * math.sqrt(self.shape))

    def _below(self, seconds: float) -> float:
        """The regularised lower incomplete gamma function, by its power series."""
        x = max(0.0, seconds) / self.scale
        if x == 0:
            return 0.0
        if x > self.shape + 40 * math.sqrt(self.shape) + 40:
            return 1.0
        term = total = 1.0 / self.shape
        n = self.shape
        while term > 1e-16 * total:
            n += 1
            term *= x / n
            total += term
        return min(1.0, total * math.exp(self.shape * math.log(x) - x - math.lgamma(self.shape)))


def window_of(calibration: Calibration | None) -> Window:
    """Of the author, where the operator's own was not measured."""
    if calibration is None:
        return Uniform()
    if calibration.family == "gamma" and calibration.shape and calibration.scale:
        return Gamma(calibration.shape, calibration.scale)
    return Uniform(calibration.low, calibration.high)


@dataclass(frozen=True)
class Credit:
    """Of one tap: for each token its share, and how much of the window lay where."""

    shares: tuple[float, ...]  # of each token; they sum to 1, or all are 0 for a tap that cannot be credited
    mass: float  # of the window within the answer's display
    before: float  # of the window that lies before the answer

    @property
    def usable(self) -> bool:
        return self.mass > 0 and self.before <= 1 - LEAST_MASS


def credit(tap: float, shown: Sequence[float], window: Window) -> Credit:
    """Credit of a tap at time `tap` for tokens that appeared at times `shown` (ascending, one clock, seconds).

    A token's step lasts until the next one appears. The last one's lasts as long as is typical for the answer, or until the tap if that is earlier:
    what comes long after the end is about no token. Tokens that appeared after the tap get nothing.
    """
    starts = [start for start in shown if start <= tap]
    if not starts:
        return Credit((0.0,) * len(shown), 0.0, 1.0)
    ends = [*starts[1:], _last_end(starts, shown, tap)]
    raw = [window.mass(tap - end, tap - start) for start, end in zip(starts, ends, strict=True)]
    mass = math.fsum(raw)
    shares = [value / mass for value in raw] if mass > 0 else raw
    return Credit((*shares, *(0.0,) * (len(shown) - len(starts))), mass, window.mass(tap - starts[0], math.inf))


def read_after(shown: Sequence[float], words: Sequence[tuple[int, int]]) -> list[float]:
    """When each word, a span [start, stop) of the tokens that appeared at these times, was known to be complete: as what follows it appeared.

    These are the times from which a person can judge it: until then "play" may still become "playing". The last one is complete as long after its
    last token as is typical for the answer.
    """
    return [shown[stop] if stop < len(shown) else _last_end(shown, shown, math.inf) for _, stop in words]


def _last_end(starts: Sequence[float], shown: Sequence[float], tap: float) -> float:
    if len(shown) > len(starts):
        return min(tap, shown[len(starts)])
    steps = [b - a for a, b in pairwise(starts)]
    return min(tap, starts[-1] + (median(steps) if steps else math.inf))


def used_credit(start: float, end: float, now: float, window: Uniform) -> float:
    """Share of all credit that a step [start, end) can ever get which is past at `now`: the chance that a tap about it would have come.

    The area so far under the trapezoid that the credit is as a function of the tap's time (the step convolved with the window).
    """
    width, step = window.high - window.low, end - start
    if step <= 0:  # it came together with the next one
        return window.mass(0.0, now - start)
    rise, flat = min(width, step), abs(width - step)
    t = now - (start + window.low)
    up = min(rise, max(0.0, t))
    level = max(0.0, min(flat, t - rise))
    down = min(rise, max(0.0, t - rise - flat))
    area = up * up / 2 + level * rise + down * rise - down * down / 2
    return min(1.0, area / (rise * (rise + flat)))


def silent(shown: Sequence[float], since: float, until: float, window: Window) -> list[int]:
    """Which tokens, shown at these times (seconds, one clock), appeared after `since` and so long before `until` that a tap would have come."""
    whole = window if isinstance(window, Uniform) else Uniform(0.0, window.end)
    ends = [*shown[1:], until]
    steps = enumerate(zip(shown, ends, strict=True))
    return [i for i, (start, end) in steps if start >= since and used_credit(start, end, until, whole) >= COMPLETE]


def aggregate_label(start: float, end: float, taps: Sequence[tuple[float, float]], now: float, window: Uniform) -> float:
    """The label of a step from taps (time, value) until `now`: their credited sum over the share of credit that is past."""
    label = math.fsum(value * window.mass(time - end, time - start) for time, value in taps if time <= now)
    used = used_credit(start, end, now, window)
    return label / used if used > 0 else 0.0
