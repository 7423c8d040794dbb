"""One answer at a time: a strip with the letter and the state of each, or a row for each with the first words of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widgets import Static


@dataclass(frozen=True)
class Tab:
    """What the strip says of one answer."""

    letter: str
    state: str  # its place in the ranking, '…' while it streams, ✓ with a score
    focused: bool
    first: str = ""  # words of its answer


class TabStrip(Static):
    """Letters that can be clicked."""

    DEFAULT_CSS = "TabStrip { height: 1; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; pointer: pointer; }"

    class Chosen(Message):
        """A tab was clicked."""

        def __init__(self, slot: int) -> None:
            super().__init__()
            self.slot = slot

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._tabs: tuple[Tab, ...] = ()
        self._rows = False  # one for each

    def show(self, tabs: Sequence[Tab], rows: bool = False) -> None:
        """Only what changed is painted."""
        if (tuple(tabs), rows) == (self._tabs, self._rows):
            return
        self._tabs, self._rows = tuple(tabs), rows
        self.styles.height = len(tabs) if rows else 1
        shown = [Content.styled(_text(tab), "bold reverse" if tab.focused else "") for tab in tabs]
        if rows:
            shown = [lead + Content.styled(f" {tab.first}", "" if tab.focused else "$foreground 70%") for lead, tab in zip(shown, tabs)]
        self.update(Content("\n" if rows else " ").join(shown), layout=False)

    def on_click(self, event: Click) -> None:
        if (at := event.get_content_offset(self)) is None:
            return
        column = 0
        for slot, tab in enumerate(self._tabs):
            cells = cell_len(_text(tab))
            if at.y == slot if self._rows else column <= at.x < column + cells:
                self.post_message(self.Chosen(slot))
            column += cells + 1


def _text(tab: Tab) -> str:
    return f"{'▸' if tab.focused else ' '}{tab.letter}{' ' + tab.state if tab.state else ''} "
