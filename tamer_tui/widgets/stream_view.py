"""Text that grows, wrapped as it comes: only the last line is ever wrapped again, so the cost of a token does not grow with the text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.events import Resize
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from tamer_tui import bidi
from tamer_tui.text import plain, wrap
from tamer_tui.tint import NAMES
from tamer_tui.widgets.selecting import selectable

GUTTER = 3
"""Cells."""
LONGEST = 100_000
"""Characters. Wrapping ten million anew at each resize would hold the loop for seconds; they are in the record."""
MORE = "\n… and more than can be shown here"
TINTS = {2: "stream--liked-much", 1: "stream--liked", -1: "stream--disliked", -2: "stream--disliked-much"}
"""Level -> component class."""


class StreamView(ScrollView):
    """A growing answer. Stays at its end while the reader has not scrolled up."""

    DEFAULT_CSS = """
    StreamView {
        height: 1fr; overflow-y: scroll; overflow-x: hidden; padding: 0 1; background: $background;
        scrollbar-size-vertical: 1; scrollbar-background: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background;
        scrollbar-color: $foreground 20%; scrollbar-color-hover: $foreground 40%; scrollbar-color-active: $accent;
    }
    StreamView > .stream--liked-much { color: $background; background: $success; text-style: bold italic; }
    StreamView > .stream--liked { color: $success; text-style: bold; }
    StreamView > .stream--disliked { color: $error; text-style: underline; }
    StreamView > .stream--disliked-much { color: $background; background: $error; text-style: underline italic; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = set(TINTS.values())
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._text: list[str] = []
        self._length = 0  # characters of it
        self._lines: list[str] = [""]
        self._wrapped_at = 0
        self.marked = False  # room for marks at the left
        self._marks: list[tuple[int, str]] = []  # characters before each
        self._levels: list[int] = []  # of each character, while the words are tinted
        self._line_levels: list[list[int]] = []  # the same, as the lines are
        self._strips: dict[int, Strip] = {}  # lines as they were painted
        self._look: tuple[Style, int] = (Style.null(), 0)  # style and width of those

    @property
    def text(self) -> str:
        """All that was written, made plain."""
        return "".join(self._text)

    def write(self, fragment: str) -> None:
        """Add text at the end."""
        fragment = self._within_limit(plain(fragment))
        if not fragment:
            return
        self._text.append(fragment)
        self._length += len(fragment)
        first = len(self._lines) - 1
        self._lines[first:] = wrap(self._lines[first] + fragment, self._width)
        self._strips.pop(first, None)
        self._grown(first)

    def _within_limit(self, fragment: str) -> str:
        """What may still be shown of it. The end is told once; nothing follows it."""
        room = LONGEST - self._length
        return fragment if len(fragment) <= room else fragment[:room] + MORE if room > 0 else ""

    def tint(self, pieces: Sequence[str], levels: Sequence[int]) -> None:
        """Show these pieces of the text, each at its level from -2 to 2. The place on the page stays."""
        self._levels = []
        self._text = []
        for piece, level in zip(pieces, levels, strict=True):
            shown = plain(piece if self._text else piece.lstrip())
            self._text += [shown] if shown else []
            self._levels += [level] * len(shown)
        self._wrap_all()
        self._paint_anew()

    def mark(self, marks: Sequence[tuple[int, str]]) -> None:
        """Show these in the gutter, each beside the line that has so many characters before its end."""
        if list(marks) != self._marks:
            self._marks = list(marks)
            self._paint_anew()

    def show_character(self, at: int) -> None:
        """Scroll to the line that has so many characters before it, or the one that they end in."""
        line = bisect_right(starts_of(self._lines, self.text), at) - 1
        self.scroll_to(y=max(0, line - 2), animate=False)

    def untint(self) -> None:
        """Plain words again."""
        if self._levels:
            self._levels = []
            self._paint_anew()

    @property
    def tinted(self) -> bool:
        return bool(self._levels)

    def clear(self) -> None:
        """Start over."""
        self._text.clear()
        self._length = 0
        self._levels, self._marks = [], []
        self._lines = [""]
        self._paint_anew()
        self.scroll_to(y=0, animate=False, immediate=True)

    def on_resize(self, event: Resize) -> None:
        """Another width: wrap everything again."""
        if self._width != self._wrapped_at:
            self._wrapped_at = self._width
            at_end = self._at_end
            self._wrap_all()
            self._paint_anew()
            if at_end:
                self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)

    def render_lines(self, crop: Region) -> list[Strip]:
        """What is visible. A line that was painted in the same look is not made again: while an answer scrolls that is most of it."""
        look = (self.rich_style, self._width)
        if look != self._look:
            self._look = look
            self._strips.clear()
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One visible line."""
        index = y + self.scroll_offset.y
        if index >= len(self._lines):
            return self._strip(index, "")
        if (strip := self._strips.get(index)) is None:
            strip = self._strips[index] = self._strip(index, self._lines[index])
        return strip

    def _strip(self, index: int, line: str) -> Strip:
        style = self._look[0]
        segments = self._tinted(line, self._line_levels[index]) if self._levels and line else [Segment(line, style)]
        if bidi.wanted():
            segments = bidi.reordered(segments, self._width)
        strip = Strip(segments).adjust_cell_length(self._width, style)
        strip = selectable(strip, index, self)
        return Strip([Segment(self._margin(index), style), *strip]) if self.marked else strip

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The text that is selected, as it was written and not as its lines were broken."""
        first, stop = self._between(selection)
        return self.text[first:stop], "\n"

    @property
    def selected(self) -> tuple[str, int]:
        """The selected words, '' for none, and how many characters stand before them."""
        if (selection := self.text_selection) is None:
            return "", 0
        first, stop = self._between(selection)
        return self.text[first:stop], first

    def _between(self, selection: Selection) -> tuple[int, int]:
        starts = starts_of(self._lines, self.text)
        first = starts[selection.start.y] + selection.start.x if selection.start is not None else 0
        ends = selection.end is not None and selection.end.y < len(starts)
        return first, starts[selection.end.y] + selection.end.x if ends and selection.end is not None else len(self.text)

    def selection_updated(self, selection: Selection | None) -> None:
        """Another part is selected."""
        self._strips.clear()
        self.refresh()

    def _margin(self, index: int) -> str:
        """What stands beside a line: its marks, the newest two."""
        if not self._marks:
            return " " * GUTTER
        starts = [-1, *starts_of(self._lines, self.text)[1:], len(self.text)]
        here = [sign for at, sign in self._marks if starts[index] < at <= starts[index + 1]] if index < len(self._lines) else []
        return "".join(here[-2:]).rjust(GUTTER - 1) + " "

    def _tinted(self, line: str, levels: Sequence[int]) -> list[Segment]:
        """A line in runs of one level."""
        runs = groupby(zip(line, levels, strict=True), key=itemgetter(1))
        return [Segment("".join(char for char, _ in run), self._style_of(level)) for level, run in runs]

    def _style_of(self, level: int) -> Style:
        return self._look[0] + self.get_component_rich_style(TINTS[level], partial=True) if level else self._look[0]

    def _wrap_all(self) -> None:
        self._lines = wrap(self.text, self._width)
        self._line_levels = along(self._lines, self.text, self._levels)

    @property
    def _width(self) -> int:
        return max(1, (self.scrollable_content_region.width or 40) - GUTTER * self.marked)

    @property
    def _at_end(self) -> bool:
        return self.scroll_offset.y >= self.max_scroll_y

    def _grown(self, first: int) -> None:
        """Lines from `first` on have changed, or are new."""
        at_end = self._at_end
        if self.virtual_size.height != len(self._lines) and self.is_attached:
            # The scrollbar is always there, so that no other widget has to be laid out anew.
            self.set_reactive(ScrollView.virtual_size, Size(self._width, len(self._lines)))
            self.vertical_scrollbar.window_virtual_size = len(self._lines)
        if at_end and self.max_scroll_y > self.scroll_offset.y:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)
            self.refresh()
            return
        top = first - self.scroll_offset.y
        self.refresh(Region(0, max(0, top), self.size.width, max(0, len(self._lines) - self.scroll_offset.y - max(0, top))))

    def _paint_anew(self) -> None:
        """All of it, whatever its height is now."""
        self._strips.clear()
        self.virtual_size = Size(self._width, len(self._lines))
        self.refresh()


def legend(stream: StreamView, by: str) -> Content:
    """What the tints mean, each in its own look, and whose opinion they are."""
    looks = Content("  ").join(Content.styled(NAMES[level], stream.get_visual_style(TINTS[level])) for level in TINTS)
    return Content.assemble(f"{by}: ", looks, "   ")


def along(lines: Sequence[str], text: str, values: Sequence[int]) -> list[list[int]]:
    """Values of the characters of a text, cut as its wrapped lines are."""
    return [list(values[start : start + len(line)]) for start, line in zip(starts_of(lines, text), lines, strict=True)]


def starts_of(lines: Sequence[str], text: str) -> list[int]:
    """Where each wrapped line begins in its text."""
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line)
        at += text[at : at + 1] == "\n"
    return starts
