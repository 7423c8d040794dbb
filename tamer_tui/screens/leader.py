"""One more key chooses a screen: for terminals where function keys do not arrive."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.keys import MODES


class LeaderScreen(ModalScreen[str | None]):
    """Dismisses with the mode, or None for any other key."""

    CSS_PATH = "leader.tcss"

    def compose(self) -> ComposeResult:
        lines = [
            Content.assemble((f" {letter} ", "bold $accent"), f"{name:<11}", (f"f{n} ", "$foreground 60%"), (meaning, "$foreground 80%"))
            for n, (letter, name, meaning) in enumerate(MODES.values(), start=2)
        ]
        yield Static(Content("\n").join(lines), id="box")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "go to"

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self.dismiss(next((mode for mode, (letter, _, _) in MODES.items() if letter == event.character), None))
