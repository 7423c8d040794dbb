"""How the answers share a screen: side by side while each pane is wide and high enough to be read, else one at a time behind tabs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tamer_tui.text import wrap

NARROWEST_PANE = 36
RAIL_WIDTH = 42
CHROME_ROWS = 9
"""Heading, prompt, two lines of the rail, what to do, what was said and the keys."""
FEWEST_PANE_ROWS = 8
"""Frame included; with fewer, reading one answer at a time is easier."""
FEWEST_SHORT_ROWS = 6
"""The same where all of every answer shows in so little."""
SHORT_SCREEN, TINY_SCREEN = 32, 14
"""Rows: with fewer the prompt and the keys have less room, or none."""
FRAME_CELLS, FRAME_ROWS = 5, 2
"""Of a pane: border, padding and scrollbar."""


@dataclass(frozen=True)
class Arrangement:
    """`columns` of panes, or one pane behind `tabs`; the rail as a column at the side, or as two lines below."""

    columns: int
    tabs: bool
    rail: bool
    short: bool
    tiny: bool = False  # room for an answer and what to do, and for nothing else
    previews: bool = False  # each tab on a row of its own, with the first words of its answer


def arrange(k: int, width: int, height: int, brief: bool = False) -> Arrangement:
    """For K answers on a screen of so many cells; `brief`: as far as is known each is only a few lines long."""
    k = max(1, k)
    short, tiny = height < SHORT_SCREEN, height < TINY_SCREEN
    rail = width >= RAIL_WIDTH + 2 * NARROWEST_PANE
    columns = _columns(k, width - RAIL_WIDTH * rail)
    rows = math.ceil(k / columns)
    high_enough = (height - CHROME_ROWS) // rows >= (FEWEST_SHORT_ROWS if brief else FEWEST_PANE_ROWS)
    tabs = k > 1 and (columns == 1 or not high_enough)
    previews = tabs and height - CHROME_ROWS - k >= FEWEST_PANE_ROWS
    return Arrangement(1 if tabs else columns, tabs, rail, short, tiny, previews)


def are_brief(texts: Iterable[str], k: int, width: int, height: int) -> bool:
    """Whether all of each shows in a pane of the smallest kind."""
    found = arrange(k, width, height, brief=True)
    room = (width - RAIL_WIDTH * found.rail) // found.columns - FRAME_CELLS
    rows = (height - CHROME_ROWS) // math.ceil(k / found.columns) - FRAME_ROWS
    return all(len(text) <= room * rows and len(wrap(text, room)) <= rows for text in texts)


def _columns(k: int, room: int) -> int:
    """As square as the width allows: 3 answers side by side, 4 as two by two."""
    fits = max(1, room // NARROWEST_PANE)
    return min(fits, k if k <= 3 else math.ceil(math.sqrt(k)))
