"""Text of painted lines that is selected with the mouse: Textual does it by the offset that each segment carries."""

from __future__ import annotations

from itertools import pairwise

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget


def selectable(strip: Strip, y: int, widget: Widget) -> Strip:
    """Line `y` of a widget, whose characters can be selected; what is selected of it has another look."""
    selection = widget.text_selection
    span = selection.get_span(y) if selection is not None else None
    if span is not None:
        strip = _highlighted(strip, *span, widget.screen.get_component_rich_style("screen--selection"))
    return strip.apply_offsets(0, y)


def _highlighted(strip: Strip, start: int, stop: int, look: Style) -> Strip:
    """Characters from `start` to `stop`, -1 being the end."""
    found, at = [], 0
    for text, style, _ in strip:
        cuts = [0, *(cut - at for cut in (start, stop) if 0 < cut - at < len(text)), len(text)]
        for left, right in pairwise(cuts):
            inside = start <= at + left and (stop < 0 or at + right <= stop)
            found.append(Segment(text[left:right], (style or Style.null()) + look if inside else style))
        at += len(text)
    return Strip(found, strip.cell_length)
