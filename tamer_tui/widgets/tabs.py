"""One answer at a time: a strip with the letter and the state of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.style import Style
from textual.widgets import Static


@dataclass(frozen=True)
class Tab:
    """What the strip says of one answer."""

    letter: str
    state: str  # its place in the ranking, '…' while it streams, ✓ with a score
    focused: bool


class TabStrip(Static):
    """Letters that can be clicked."""

    DEFAULT_CSS = """
    TabStrip { height: 1; width: 1fr; padding: 0 1; text-wrap: nowrap; }
    TabStrip { link-color: $foreground; link-style: none; link-style-hover: bold; link-color-hover: $accent; link-background-hover: $panel; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._tabs: tuple[Tab, ...] = ()

    def show(self, tabs: Sequence[Tab]) -> None:
        """Only what changed is painted."""
        if tuple(tabs) == self._tabs:
            return
        self._tabs = tuple(tabs)
        self.update(Content.assemble(*(_tab(slot, tab) for slot, tab in enumerate(tabs))), layout=False)


def _tab(slot: int, tab: Tab) -> Content:
    shown = f"{'▸' if tab.focused else ' '}{tab.letter}{' ' + tab.state if tab.state else ''} "
    style = Style(bold=True, reverse=True) if tab.focused else Style()
    return Content.styled(shown, style + Style.from_meta({"@click": f"screen.look_at({slot})"})) + Content(" ")
