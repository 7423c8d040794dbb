"""The two lowest lines of a screen beside the Arena: what was said last, and its keys."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical

from tamer_tui.widgets.lines import KeyLine, Line

EVERYWHERE = (("esc", "Arena"), ("j", "go to"), ("?", "help"), ("^q", "quit"))


class Foot(Vertical):
    """Says lines."""

    DEFAULT_CSS = """
    Foot { height: 2; dock: bottom; width: 1fr; }
    Foot #said { color: $foreground 80%; }
    """

    def __init__(self, keys: Sequence[tuple[str, str]], general: Sequence[tuple[str, str]] = EVERYWHERE) -> None:
        """Each key and what it is called, the most needed first; then those that work on other screens too."""
        super().__init__()
        self._keys = (*keys, *general)

    def compose(self) -> ComposeResult:
        yield Line(id="said")
        yield KeyLine()

    def on_mount(self) -> None:
        self.query_one(KeyLine).show((), self._keys)

    def say(self, line: str) -> None:
        """In place of the last one."""
        self.query_one("#said", Line).show(line)
