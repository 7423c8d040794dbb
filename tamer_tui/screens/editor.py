"""A box to write in: a prompt, a message, a rewritten or an ideal answer, a number. Leaving keeps the draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult, SuspendNotSupported
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from tamer_tui.external_editor import ExternalEditorError, edited
from tamer_tui.keys import EDITOR, NUMBER, PROMPT
from tamer_tui.text import content, editable

LONGEST_ABOVE = 20_000
"""Characters of what is answered, its end: a few rows show it."""


@dataclass(frozen=True)
class WrittenText:
    """What is in the box, and whether it is to be used."""

    text: str
    saved: bool


class WritingArea(TextArea):
    """A text box that holds no control characters, whatever is pasted: Textual would paint them as they are."""

    def on_paste(self, event: events.Paste) -> None:
        event.prevent_default().stop()
        self.move_cursor(self.replace(editable(event.text), *self.selection, maintain_selection_offset=False).end_location)


class EditorScreen(ModalScreen[WrittenText]):
    """Dismisses with what was written."""

    CSS_PATH = "editor.tcss"
    BINDINGS = list(EDITOR)
    HINTS: tuple[tuple[str, str], ...] = (("^s", "save"), ("esc", "leave, the draft stays"), ("^o", "$EDITOR"))

    def __init__(self, title: str, text: str, above: str = "") -> None:
        """`above` is shown over the box: the prompt that is answered."""
        super().__init__()
        self._title, self._text, self._above = title, editable(text), above

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            if self._above:
                with VerticalScroll(id="above", can_focus=False):
                    yield Static(content(self._above[-LONGEST_ABOVE:]))
            yield WritingArea(self._text, id="text", soft_wrap=True, show_line_numbers=False, highlight_cursor_line=False)
            hints = [Content.assemble((key, "bold $text-accent"), f" {name}") for key, name in self.HINTS]
            yield Static(Content("   ").join(hints), id="hint")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = content(self._title).markup
        self._begin(self.query_one(TextArea))

    def _begin(self, area: TextArea) -> None:
        area.move_cursor(area.document.end)
        area.focus()

    def action_save(self) -> None:
        self.dismiss(WrittenText(self.query_one(TextArea).text, True))

    def action_external(self) -> None:
        """The text in the operator's own editor, and back. The loop waits: nothing else may write to the terminal meanwhile."""
        area = self.query_one(TextArea)
        try:
            with self.app.suspend():
                area.text = editable(edited(area.text))
        except (SuspendNotSupported, ExternalEditorError) as error:
            self.query_one("#hint", Static).update(content(str(error) or "this terminal cannot be handed to another program"))
        self._begin(area)

    def action_leave(self) -> None:
        self.dismiss(WrittenText(self.query_one(TextArea).text, False))


class PromptScreen(EditorScreen):
    """What was typed before comes back, the last first."""

    BINDINGS = list(PROMPT)
    HINTS = (*EditorScreen.HINTS, ("^r", "recent"))

    def __init__(self, title: str, text: str, above: str = "", recent: Sequence[str] = ()) -> None:
        super().__init__(title, text, above)
        self._recent, self._at = [self._text, *recent], 0

    def action_recent(self) -> None:
        """What was begun comes back after the oldest."""
        area = self.query_one(TextArea)
        if self._at == 0:
            self._recent[0] = area.text
        self._at = (self._at + 1) % len(self._recent)
        area.text = editable(self._recent[self._at])
        area.move_cursor(area.document.end)


class NumberScreen(EditorScreen):
    """One line is enough, and enter saves it."""

    BINDINGS = list(NUMBER)
    HINTS = (("enter", "save"), ("esc", "leave"))

    def _begin(self, area: TextArea) -> None:
        super()._begin(area)
        area.select_all()
