"""A line chart of braille dots: what is no finite number is a gap, and a long series is drawn by the least and the greatest of each column."""

from __future__ import annotations

import math
from collections.abc import Sequence

from textual.content import Content
from textual.reactive import var
from textual.widget import Widget

from tamer_tui.widgets.details import number

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # left and right column of a cell, from the top
AXIS = 8
"""Cells for the numbers at the left."""


def plot(values: Sequence[float], width: int, height: int, low: float | None = None, high: float | None = None) -> list[str]:
    """`height` rows of `width` cells. `low` and `high` are the ends of the axis, else the series' own."""
    bounds = limits(values, low, high)
    if bounds is None or width < 1 or height < 1:
        return [" " * max(0, width)] * max(0, height)
    rows = [[0] * width for _ in range(height)]
    for column, (least, greatest) in enumerate(_columns(values, 2 * width)):
        if least is None or greatest is None:
            continue
        top, bottom = _dot(greatest, bounds, 4 * height), _dot(least, bounds, 4 * height)
        for dot in range(top, bottom + 1):
            rows[dot // 4][column // 2] |= _DOTS[column % 2][dot % 4]
    return ["".join(chr(0x2800 + dots) for dots in row) for row in rows]


def limits(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float] | None:
    """Both ends of the axis; None without a finite value."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    return (min(finite) if low is None else low, max(finite) if high is None else high)


def _columns(values: Sequence[float], most: int) -> list[tuple[float | None, float | None]]:
    """Least and greatest of the values that share a column; None where none is finite."""
    n = len(values)
    columns = min(n, most)
    found: list[tuple[float | None, float | None]] = []
    for i in range(columns):
        part = [value for value in values[i * n // columns : (i + 1) * n // columns] if math.isfinite(value)]
        found.append((min(part), max(part)) if part else (None, None))
    return found


def _dot(value: float, bounds: tuple[float, float], dots: int) -> int:
    """Its row of dots, from the top."""
    low, high = bounds
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return dots // 2
    share = min(1.0, max(0.0, (value - low) / span))
    return min(dots - 1, int((1 - share) * (dots - 1) + 0.5))


class Plot(Widget):
    """A titled chart with its newest value."""

    DEFAULT_CSS = """
    Plot { border: round $foreground 30%; border-title-color: $foreground; border-subtitle-color: $foreground 70%; padding: 0 1; }
    """

    note: var[str] = var("", init=False)
    values: var[tuple[float, ...]] = var((), init=False)

    def __init__(self, title: str, note: str = "", low: float | None = None, high: float | None = None) -> None:
        """`note` says in plain words what the chart is about, while there is room."""
        super().__init__()
        self._title, self._low, self._high = title, low, high
        self.set_reactive(Plot.note, note)

    def on_mount(self) -> None:
        self.border_title, self.border_subtitle = self._title, self.note

    def watch_note(self) -> None:
        self.border_subtitle = self.note

    def watch_values(self) -> None:
        self.border_title = f"{self._title} · {number(self.values[-1], 3)}" if self.values else self._title
        self.refresh()

    def render(self) -> Content:
        width, height = self.content_size.width - AXIS, self.content_size.height
        bounds = limits(self.values, self._low, self._high)
        if bounds is None:
            return Content.styled("nothing yet", "$foreground 60%")
        labels = [""] * height
        if height:
            labels[-1], labels[0] = number(bounds[0], 2), number(bounds[1], 2)
        rows = plot(self.values, width, height, self._low, self._high)
        lines = [Content.assemble((f"{label:>{AXIS - 1}} ", "$foreground 60%"), (row, "$text-accent")) for label, row in zip(labels, rows)]
        return Content("\n").join(lines)
