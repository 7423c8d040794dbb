"""Charts of one row, as text: a line of values, a bar of progress, an interval. What is no finite number is a gap, never an error."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))  # left and right column of a braille cell, from the bottom
_LEVELS = 4


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `2 * width` values as braille dots, scaled to their own least and greatest; '' without a finite one.

    A gap stands for what is not finite. A constant line lies in the middle.
    """
    shown = list(values)[-2 * width :]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite or width < 1:
        return ""
    low, high = min(finite), max(finite)
    cells = []
    for left in range(0, len(shown), 2):
        dots = 0
        for column, value in enumerate(shown[left : left + 2]):
            if math.isfinite(value):
                dots |= _DOTS[column][_level(value, low, high)]
        cells.append(chr(0x2800 + dots))
    return "".join(cells)


def progress(share: float, width: int) -> str:
    """A bar that is filled from the left, such as '━━━╸────'."""
    share = min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    halves = int(2 * width * share)
    full, half = divmod(halves, 2)
    return "━" * full + "╸" * half + "─" * (width - full - half)


def interval(low: float, middle: float, high: float, width: int) -> str:
    """Where an interval of shares lies between 0 and 1, such as '┄┄┄━━━●━━┄┄'; one half is marked '┼' where nothing covers it."""
    if width < 3 or not all(math.isfinite(value) for value in (low, middle, high)):
        return ""
    at = [min(width - 1, int(width * min(1.0, max(0.0, value)))) for value in (low, middle, high)]
    cells = ["┄"] * width
    cells[width // 2] = "┼"
    cells[at[0] : at[2] + 1] = "━" * (at[2] + 1 - at[0])
    cells[at[1]] = "●"
    return "".join(cells)


def _level(value: float, low: float, high: float) -> int:
    """Which of the four rows of dots."""
    span = high - low
    if not math.isfinite(span):  # the difference of two finite numbers may not be
        return _LEVELS // 2
    return min(_LEVELS - 1, int(_LEVELS * ((value - low) / span))) if span > 0 else 1
