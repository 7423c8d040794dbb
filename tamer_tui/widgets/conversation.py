"""A conversation, turn by turn: what was asked, what was said, and marks beside it. An answer grows line by line; once it is complete it is shown as
Markdown, which is rendered beside the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from rich.segment import Segment
from textual import work
from textual.geometry import Size
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from tamer_tui import bidi
from tamer_tui.markdown import has_markdown, has_thoughts
from tamer_tui.text import plain, wrap
from tamer_tui.widgets.finished_view import FinishedView, finished_strips
from tamer_tui.widgets.selecting import selectable
from tamer_tui.widgets.stream_view import GUTTER, LONGEST, MORE

YOU, MODEL = "you ▸ ", "model ▸ "
Reading = tuple[bool, bool, int, bool]
"""How complete answers are shown: as Markdown, with folded thoughts, in so many cells, on a dark screen."""


class Spoken(NamedTuple):
    """One turn, as far as it came."""

    asked: str
    said: str
    complete: bool


@dataclass
class _Turn:
    spoken: Spoken
    head: list[str]  # lines of what was asked
    body: list[str]  # of what was said, as it is written
    rendered: list[Strip] = field(default_factory=list)  # in place of those,
    read: Reading | None = None  # made like this


class ConversationView(ScrollView):
    """Stays at its end while the reader has not scrolled up."""

    DEFAULT_CSS = FinishedView.DEFAULT_CSS.replace("FinishedView", "ConversationView")
    can_focus = False

    markdown: var[bool] = var(True, init=False)
    folded: var[bool] = var(True, init=False)

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._turns: list[_Turn] = []
        self._lines: list[Strip] = []
        self._ends: list[int] = []  # lines up to the end of each turn
        self._marks: Mapping[int, str] = {}
        self._wrapped_at = 0
        self._rendering = False

    @property
    def text(self) -> str:
        """The painted lines."""
        return "\n".join(strip.text.rstrip() for strip in self._lines)

    @property
    def complete(self) -> bool:
        """Whether the last answer is."""
        return bool(self._turns) and self._turns[-1].spoken.complete

    def show(self, turns: Sequence[Spoken]) -> None:
        """In place of what there was; of a turn that has grown only what is new is wrapped."""
        same = 0
        while same < min(len(turns), len(self._turns)) and turns[same] == self._turns[same].spoken:
            same += 1
        if same == len(turns) == len(self._turns):
            return
        grown = self._turns[same] if same < len(self._turns) else None
        self._turns[same:] = [self._grown(grown if i == 0 else None, spoken) for i, spoken in enumerate(turns[same:])]
        self._lay_out(same)
        self._render_finished()

    def mark(self, marks: Mapping[int, str]) -> None:
        """Signs beside the answers of these turns."""
        self._marks = marks
        self.refresh()

    def look_at(self, turn: int) -> None:
        """Scroll to where its answer begins."""
        self.scroll_to(y=max(0, self._answer_line(turn) - 2), animate=False)

    def watch_markdown(self) -> None:
        self._render_finished()

    watch_folded = watch_markdown

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._render_finished())

    def on_resize(self) -> None:
        """Another width: all of it is wrapped again."""
        if self._width != self._wrapped_at:
            self._wrapped_at = self._width
            self._turns = [self._grown(None, turn.spoken) for turn in self._turns]
            self._lay_out(0)
            self._render_finished()

    # --- lines -----------------------------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return max(1, (self.scrollable_content_region.width or 40) - GUTTER)

    def _grown(self, before: _Turn | None, spoken: Spoken) -> _Turn:
        """A turn of these words; `before` is what stood in its place."""
        if before is not None and before.spoken.asked == spoken.asked and not before.spoken.complete and spoken.said.startswith(before.spoken.said):
            known = len(before.spoken.said)
            more = _shown(spoken.said)[known:] if known <= LONGEST else ""
            return _Turn(spoken, before.head, [*before.body[:-1], *wrap(before.body[-1] + more, self._width)])
        return _Turn(spoken, wrap(f"{YOU}{spoken.asked}\n", self._width), wrap(f"{MODEL}{_shown(spoken.said)}", self._width))

    def _lay_out(self, first: int) -> None:
        """Turns from `first` on have changed."""
        at_end = self.scroll_offset.y >= self.max_scroll_y
        del self._lines[self._ends[first - 1] if first else 0 :]
        for turn in self._turns[first:]:
            self._lines += [*map(_strip, turn.head), *(turn.rendered or map(_strip, turn.body)), _strip("")]
        self._ends = list(accumulate(len(turn.head) + len(turn.rendered or turn.body) + 1 for turn in self._turns))
        self.virtual_size = Size(self._width, len(self._lines))
        self.refresh()
        if at_end:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)

    def _answer_line(self, turn: int) -> int:
        return (self._ends[turn - 1] if turn else 0) + len(self._turns[turn].head)

    def render_line(self, y: int) -> Strip:
        """One visible line."""
        index, width = y + self.scroll_offset.y, self._width
        strip = self._lines[index] if index < len(self._lines) else Strip.blank(width)
        if bidi.wanted():
            strip = Strip(bidi.reordered(list(strip), width))
        strip = selectable(strip.apply_style(self.rich_style).adjust_cell_length(width, self.rich_style), index, self)
        signs = next((signs for turn, signs in self._marks.items() if turn < len(self._turns) and self._answer_line(turn) == index), "")
        return Strip([Segment(signs[-2:].rjust(GUTTER - 1) + " ", self.rich_style), *strip])

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The painted text that is selected."""
        return selection.extract(self.text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Another part is selected."""
        self.refresh()

    # --- Markdown --------------------------------------------------------------------------------------------------------

    @property
    def _reading(self) -> Reading:
        return self.markdown, self.folded, self._width, self.app.current_theme.dark

    def _unread(self) -> _Turn | None:
        """The newest answer that is complete and not shown as it is to be read."""
        return next((turn for turn in reversed(self._turns) if turn.spoken.complete and turn.read != self._reading), None)

    def _render_finished(self) -> None:
        if not self._rendering and self._unread() is not None:
            self._rendering = True
            self._render_all()

    @work
    async def _render_all(self) -> None:
        """One after another, whatever comes meanwhile."""
        try:
            while (turn := self._unread()) is not None:
                said, reading = _shown(turn.spoken.said), self._reading
                rich, folded = self.markdown and has_markdown(said), self.folded and has_thoughts(said)
                strips: list[Strip] = []
                if rich or folded:
                    strips = await asyncio.to_thread(finished_strips, (said, rich, folded), self._width, reading[3])
                looked = turn.rendered
                turn.read, turn.rendered = reading, [_strip(MODEL.rstrip()), *strips] if strips else []
                if (looked or strips) and (here := next((i for i, each in enumerate(self._turns) if each is turn), None)) is not None:
                    self._lay_out(here)
        finally:
            self._rendering = False


def _shown(said: str) -> str:
    return said if len(said) <= LONGEST else said[:LONGEST] + MORE


def _strip(line: str) -> Strip:
    return Strip([Segment(plain(line))])
