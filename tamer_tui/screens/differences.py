"""Two answers side by side, with the words that only one of them has in a look of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.differences import Part, word_differences
from tamer_tui.text import content, one_line, plain
from tamer_tui.views import CandidateView

NARROW = 72
"""Cells; with fewer one text stands above the other."""
ALIKE = 0.25
"""Share of a text that the other has too; with less, marks would say nothing."""
LONGEST = 20_000
"""Characters of a text that are shown."""


class Pair(NamedTuple):
    """Two texts to be compared, and what they are called."""

    names: tuple[str, str]
    texts: tuple[str, str]
    prompt: str = ""


class DifferencesScreen(ModalScreen[None]):
    """One pair at a time."""

    CSS_PATH = "differences.tcss"
    BINDINGS = [
        Binding("escape,q,z,enter", "dismiss", "close"),
        Binding("tab,right", "turn(1)", "next pair"),
        Binding("shift+tab,left", "turn(-1)", "pair before"),
        Binding("down", "scroll(1)", "scroll"),
        Binding("up", "scroll(-1)", "scroll back"),
        Binding("pagedown", "scroll(10)", "page"),
        Binding("pageup", "scroll(-10)", "page back"),
    ]

    def __init__(self, pairs: Sequence[Pair]) -> None:
        """At least one."""
        super().__init__()
        self._pairs, self._at = pairs, 0

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(id="prompt")
            with Container(id="sides"):
                for _ in range(2):
                    with VerticalScroll(can_focus=False):
                        yield Static()
            yield Static(id="hint")

    def on_mount(self) -> None:
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < NARROW, "narrow")

    @work(exclusive=True)
    async def _show(self) -> None:
        pair = self._pairs[self._at]
        self.query_one("#prompt").display = bool(pair.prompt)
        self.query_one("#prompt", Static).update(content(one_line(pair.prompt), "$foreground 70%"))
        found = await asyncio.to_thread(word_differences, *(plain(text[:LONGEST]) for text in pair.texts))
        alike = shared(found[0]) >= ALIKE and shared(found[1]) >= ALIKE
        for side, name, parts, look in zip(self.query(VerticalScroll), pair.names, found, ("bold underline $error", "bold italic $success")):
            side.border_title = content(name).markup
            side.query_one(Static).update(painted(parts, look if alike else ""))
            side.scroll_home(animate=False)
        own = "left only: underlined  right only: italic" if alike else "hardly a word in common"
        more = f"  tab next ({self._at + 1} of {len(self._pairs)})" if len(self._pairs) > 1 else ""
        self.query_one("#hint", Static).update(Content(f"{own}{more}  esc closes"))

    def action_turn(self, step: int) -> None:
        self._at = (self._at + step) % len(self._pairs)
        self._show()

    def action_scroll(self, lines: int) -> None:
        for side in self.query(VerticalScroll):
            side.scroll_relative(y=lines, animate=False)


def pairs_with(here: CandidateView, candidates: Sequence[CandidateView]) -> list[Pair]:
    """This answer and each of the others, as far as they came, under their letters."""
    others = [candidates[(here.slot + step) % len(candidates)] for step in range(1, len(candidates))]
    return [Pair((here.letter, other.letter), (here.so_far, other.so_far)) for other in others]


def shared(parts: Sequence[Part]) -> float:
    """The share of a text that the other has too, by characters."""
    return sum(len(part.text) for part in parts if not part.own) / max(1, sum(len(part.text) for part in parts))


def painted(parts: Sequence[Part], look: str) -> Content:
    """Parts of its own in a look that needs no colour."""
    return Content("").join(Content.styled(part.text, look) if part.own and not part.text.isspace() else Content(part.text) for part in parts)
