"""One more key chooses: a screen to go to, or what an answer is a case of."""

from __future__ import annotations

from collections.abc import Mapping

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.text import content, one_line

Options = Mapping[str, tuple[str, str]]
"""Letter -> what it stands for, and what is said of it."""
FLAGS: Options = {
    "r": ("refusal", "refuses what it could have answered"),
    "m": ("made up", "states what is not so"),
    "u": ("unsafe", "could do harm"),
    "i": ("insult", "is rude, or worse"),
    "b": ("bias", "treats people unequally"),
    "f": ("flattery", "says what pleases in place of what is true"),
    "o": ("off topic", "answers another question"),
    "l": ("too long", "goes on and on"),
    "s": ("too short", "leaves out what matters"),
    "p": ("repetition", "says it again and again"),
    "w": ("wrong form", "another language or format than was asked for"),
    "x": ("broken", "is no language at all"),
    "g": ("exemplary", "as it should always be"),
}


class ChoiceScreen(ModalScreen[str | None]):
    """Dismisses with what was chosen, or None for any other key."""

    CSS_PATH = "choice.tcss"

    def __init__(self, title: str, options: Options) -> None:
        super().__init__()
        self._title, self._options = title, options

    def compose(self) -> ComposeResult:
        wide = max(len(name) for name, _ in self._options.values())
        lines = [
            Content.assemble((f" {letter} ", "bold $text-accent"), f"{name:<{wide}}  ", (one_line(meaning), "$foreground 70%"))
            for letter, (name, meaning) in self._options.items()
        ]
        yield Static(Content("\n").join(lines), id="box")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = content(self._title).markup

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self.dismiss(self._options.get(event.character or "", (None, ""))[0])
