"""How the answers share a screen: side by side while each pane is wide and high enough to be read, else one at a time behind tabs."""

from __future__ import annotations

import math
from dataclasses import dataclass

NARROWEST_PANE = 36
RAIL_WIDTH = 42
CHROME_ROWS = 9
"""Heading, prompt, two lines of the rail, what to do, what was said and the keys."""
FEWEST_PANE_ROWS = 8
"""Frame included; with fewer, reading one answer at a time is easier."""
SHORT_SCREEN = 32


@dataclass(frozen=True)
class Arrangement:
    """`columns` of panes, or one pane behind `tabs`; the rail as a column at the side, or as two lines below."""

    columns: int
    tabs: bool
    rail: bool
    short: bool


def arrange(k: int, width: int, height: int) -> Arrangement:
    """For K answers on a screen of so many cells."""
    k = max(1, k)
    short = height < SHORT_SCREEN
    rail = width >= RAIL_WIDTH + 2 * NARROWEST_PANE
    columns = _columns(k, width - RAIL_WIDTH * rail)
    rows = math.ceil(k / columns)
    high_enough = (height - CHROME_ROWS) // rows >= FEWEST_PANE_ROWS
    tabs = k > 1 and (columns == 1 or not high_enough)
    return Arrangement(1 if tabs else columns, tabs, rail, short)


def _columns(k: int, room: int) -> int:
    """As square as the width allows: 3 answers side by side, 4 as two by two."""
    fits = max(1, room // NARROWEST_PANE)
    return min(fits, k if k <= 3 else math.ceil(math.sqrt(k)))
