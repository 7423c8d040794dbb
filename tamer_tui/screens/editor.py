"""A box to write in: a prompt, a message, a rewritten or an ideal answer. Leaving keeps the draft."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from tamer_tui.keys import EDITOR
from tamer_tui.text import content


@dataclass(frozen=True)
class Written:
    """What is in the box, and whether it is to be used."""

    text: str
    saved: bool


class EditorScreen(ModalScreen[Written]):
    """Dismisses with what was written."""

    CSS_PATH = "editor.tcss"
    BINDINGS = list(EDITOR)

    def __init__(self, title: str, text: str, above: str = "") -> None:
        """`above` is shown over the box: the prompt that is answered."""
        super().__init__()
        self._title, self._text, self._above = title, text, above

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            if self._above:
                yield Static(content(self._above), id="above")
            yield TextArea(self._text, id="text", soft_wrap=True, show_line_numbers=False)
            yield Static(Content.assemble(("^s", "bold $accent"), " save   ", ("esc", "bold $accent"), " leave, the draft stays"), id="hint")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = Content(self._title).markup
        area = self.query_one(TextArea)
        area.move_cursor(area.document.end)
        area.focus()

    def action_save(self) -> None:
        self.dismiss(Written(self.query_one(TextArea).text, True))

    def action_leave(self) -> None:
        self.dismiss(Written(self.query_one(TextArea).text, False))
