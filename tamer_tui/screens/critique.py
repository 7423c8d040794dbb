"""What should be otherwise, in words: one line about the focused answer or about all of them, and the list of standing wishes."""

from __future__ import annotations

import textwrap
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

from textual.app import ComposeResult
from textual.content import Content
from textual.reactive import var
from textual.screen import ModalScreen
from textual.widgets import Static

from storage.records import Critique
from tamer_tui.keys import CRITIQUE, WISHES, painted
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.editor import EditorScreen
from tamer_tui.session import Session
from tamer_tui.session.judging import STRONGEST
from tamer_tui.text import content, one_line


class About(NamedTuple):
    """What a critique is about, and where it holds."""

    what: str  # as the box says it
    one_answer: bool
    scope: Literal["prompt", "all"]


WISH = About("for all prompts: a standing wish", False, "all")


def about(answers: Sequence[str], focused: str) -> tuple[About, ...]:
    """What tab goes through, of a set with these letters."""
    one = About(f"about {focused}, for this prompt", True, "prompt")
    every = About(f"about all {len(answers)} answers, for this prompt", False, "prompt")
    return (one, WISH, every) if len(answers) > 1 else (one, WISH)


class Draft(NamedTuple):
    """What was typed and left."""

    text: str = ""
    chosen: int = 0  # of what tab goes through


class CritiqueScreen(EditorScreen):
    """One line; `about` is what tab made of it when it is dismissed."""

    BINDINGS = list(CRITIQUE)
    HINTS = (("enter", "say it"), ("tab", "about what, for which prompts"), ("esc", "leave"))

    chosen: var[int] = var(0, init=False)

    def __init__(self, choices: Sequence[About], draft: Draft) -> None:
        super().__init__("what should be otherwise", draft.text)
        self._choices = choices
        self.set_reactive(CritiqueScreen.chosen, draft.chosen % len(choices))

    @property
    def about(self) -> About:
        return self._choices[self.chosen]

    def on_mount(self) -> None:
        super().on_mount()
        self.watch_chosen()

    def action_about(self) -> None:
        self.chosen = (self.chosen + 1) % len(self._choices)

    def watch_chosen(self) -> None:
        self.query_one("#box").border_subtitle = self.about.what


OTHER_ROWS = 10
"""Of the list of wishes: its border and what stands below them."""


MARGINS = 8
"""Columns beside it."""


class WishesScreen(ModalScreen[str]):
    """Standing wishes with their strengths; what is changed is on disk at once. Dismisses with what was said last."""

    CSS_PATH = "editor.tcss"
    BINDINGS = list(WISHES)

    focused_wish: var[int] = var(0, init=False)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._wishes = session.judging.wishes()
        self._said = ""

    def compose(self) -> ComposeResult:
        yield Static(id="box")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "standing wishes"
        self._paint()

    def watch_focused_wish(self) -> None:
        self._paint()

    def on_resize(self) -> None:
        self._paint()

    def _paint(self) -> None:
        room = max(3, self.size.height - OTHER_ROWS)
        first = max(0, min(self.focused_wish - room // 2, len(self._wishes) - room))
        lines = [_line(wish, i == self.focused_wish) for i, wish in enumerate(self._wishes)][first : first + room]
        lines = lines or [Content(f"none yet: {painted('edit.critique')[0]} says one, and tab there makes it a wish for all prompts")]
        if len(self._wishes) > room:
            lines.append(Content.styled(f"{first + 1} to {first + room} of {len(self._wishes)}", "$foreground 70%"))
        said = [content(line) for line in textwrap.wrap(self._said, max(20, self.size.width - MARGINS))]
        hint = Content.styled("↑ ↓ choose   ← → weaker, stronger   space off, on   esc leave", "$foreground 70%")
        self.query_one("#box", Static).update(Content("\n").join([*lines, Content(""), *said, hint]))

    def action_choose(self, step: int) -> None:
        if self._wishes:
            self.focused_wish = (self.focused_wish + step) % len(self._wishes)

    async def action_strength(self, step: int) -> None:
        if self._wishes:
            wish = self._wishes[self.focused_wish]
            strength = max(-STRONGEST, min(STRONGEST, wish.strength + step))
            if strength != wish.strength:
                await self._change(lambda: self._session.judging.set_strength(wish, strength))

    async def action_switch(self) -> None:
        if self._wishes:
            await self._change(lambda: self._session.judging.switch(self._wishes[self.focused_wish]))

    async def _change(self, change: Callable[[], Awaitable[str]]) -> None:
        await attempt(self._say, change)
        self._wishes = self._session.judging.wishes()
        self._paint()

    def _say(self, line: str) -> None:
        self._said = line

    def action_leave(self) -> None:
        self.dismiss(self._said)


def _line(wish: Critique, focused: bool) -> Content:
    strength = f"{wish.strength:+d}" if wish.strength else "off"
    return Content.assemble(("▸ " if focused else "  ", "bold $accent"), (f"{strength:>3}  ", "bold"), one_line(wish.text))
