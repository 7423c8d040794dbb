"""What should be otherwise, in words: one line about the focused answer, and the list of standing wishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

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


class CritiqueScreen(EditorScreen):
    """One line; `scope` is what tab made of it when it is dismissed."""

    BINDINGS = list(CRITIQUE)
    HINTS = (("enter", "say it"), ("tab", "for this prompt, or all"), ("esc", "leave"))

    scope: var[Literal["prompt", "all"]] = var("prompt", init=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.watch_scope()

    def action_scope(self) -> None:
        self.scope = "all" if self.scope == "prompt" else "prompt"

    def watch_scope(self) -> None:
        to = "for this prompt" if self.scope == "prompt" else "for all prompts: a standing wish"
        self.query_one("#box").border_subtitle = to


class WishesScreen(ModalScreen[None]):
    """Standing wishes with their strengths; what is changed is on disk at once."""

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

    def _paint(self) -> None:
        lines = [_line(wish, i == self.focused_wish) for i, wish in enumerate(self._wishes)]
        lines = lines or [Content(f"none yet: {painted('edit.critique')[0]} says one, and tab there makes it a wish for all prompts")]
        hint = Content.styled("↑ ↓ choose   ← → weaker, stronger   space off, on   esc leave", "$foreground 70%")
        self.query_one("#box", Static).update(Content("\n").join([*lines, Content(""), content(self._said) if self._said else hint]))

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

    async def _change(self, change: Callable[[], Awaitable[object]]) -> None:
        await attempt(self._say, change)
        self._wishes = self._session.judging.wishes()
        self._paint()

    def _say(self, line: str) -> None:
        self._said = line

    def action_leave(self) -> None:
        self.dismiss(None)


def _line(wish: Critique, focused: bool) -> Content:
    strength = f"{wish.strength:+d}" if wish.strength else "off"
    return Content.assemble(("▸ " if focused else "  ", "bold $accent"), (f"{strength:>3}  ", "bold"), one_line(wish.text))
