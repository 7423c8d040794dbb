"""One answer at a time: a strip with the letter and the state of each."""

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


class TabStrip(Static):
    """Letters that can be clicked."""

    DEFAULT_CSS = "TabStrip { height: 1; width: 1fr; padding: 0 1; text-wrap: nowrap; pointer: pointer; }"

    class Chosen(Message):
        """A tab was clicked."""

        def __init__(self, slot: int) -> None:
            super().__init__()
            self.slot = slot

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._tabs: tuple[Tab, ...] = ()

    def show(self, tabs: Sequence[Tab]) -> None:
        """Only what changed is painted."""
        if tuple(tabs) == self._tabs:
            return
        self._tabs = tuple(tabs)
        shown = [Content.styled(_text(tab), "bold reverse" if tab.focused else "") for tab in tabs]
        self.update(Content(" ").join(shown), layout=False)

    def on_click(self, event: Click) -> None:
        at, column = event.get_content_offset(self), 0
        for slot, tab in enumerate(self._tabs):
            if at is not None and column <= at.x < column + cell_len(_text(tab)):
                self.post_message(self.Chosen(slot))
            column += cell_len(_text(tab)) + 1


def _text(tab: Tab) -> str:
    return f"{'▸' if tab.focused else ' '}{tab.letter}{' ' + tab.state if tab.state else ''} "
