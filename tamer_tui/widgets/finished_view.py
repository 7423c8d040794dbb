"""A finished answer: its Markdown rendered, its thoughts folded. The lines are made beside the loop, so that a long one holds up no key."""

from __future__ import annotations

import asyncio

from rich.segment import Segment
from textual import work
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from tamer_tui import bidi
from tamer_tui.markdown import fold_thoughts, markdown_lines
from tamer_tui.text import wrap
from tamer_tui.widgets.selecting import selectable


class FinishedView(ScrollView):
    """Lines that are made anew where the width or the text changes; until then the old ones stay."""

    DEFAULT_CSS = """
    FinishedView {
        height: 1fr; overflow-y: scroll; overflow-x: hidden; padding: 0 1; background: $background;
        scrollbar-size-vertical: 1; scrollbar-background: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background;
        scrollbar-color: $foreground 20%; scrollbar-color-hover: $foreground 40%; scrollbar-color-active: $accent;
    }
    """
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._wanted: tuple[str, bool, bool] = ("", False, False)
        self._made: tuple[tuple[str, bool, bool], int, bool] | None = None
        self._strips: list[Strip] = []

    @property
    def text(self) -> str:
        """The painted lines."""
        return "\n".join(strip.text.rstrip() for strip in self._strips)

    def show(self, text: str, markdown: bool, folded: bool) -> None:
        """Another text, or the same in another way."""
        if (text, markdown, folded) != self._wanted:
            if text != self._wanted[0]:
                self._strips = []
                self.scroll_to(y=0, animate=False, immediate=True)
            self._wanted = (text, markdown, folded)
        self._make_anew()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._make_anew())

    def on_resize(self) -> None:
        self._make_anew()

    def _make_anew(self) -> None:
        width = self.scrollable_content_region.width
        key = (self._wanted, width, self.app.current_theme.dark)
        if width > 0 and self._wanted[0] and key != self._made:
            self._made = key
            self._make(key)

    @work(exclusive=True)
    async def _make(self, key: tuple[tuple[str, bool, bool], int, bool]) -> None:
        strips = await asyncio.to_thread(finished_strips, *key)
        if bidi.wanted():
            strips = [Strip(bidi.reordered(list(strip), key[1])) for strip in strips]
        if key == self._made:
            self._strips = strips
            self.virtual_size = Size(key[1], len(strips))
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One visible line."""
        index, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        strip = self._strips[index] if index < len(self._strips) else Strip.blank(width)
        strip = strip.apply_style(self.rich_style).adjust_cell_length(width, self.rich_style)
        return selectable(strip, index, self)

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The painted text that is selected."""
        return selection.extract(self.text), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Another part is selected."""
        self.refresh()


def finished_strips(wanted: tuple[str, bool, bool], width: int, dark: bool) -> list[Strip]:
    """Painted lines of a text, by whether it is rendered and whether its thoughts are folded. Takes a moment for a long one."""
    text, markdown, folded = wanted
    shown = fold_thoughts(text) if folded else text
    try:
        if markdown:
            return [Strip([part for part in line if not part.control]) for line in markdown_lines(shown, width, dark)]
    except Exception:  # whatever a model wrote: what cannot be rendered is shown as it is written
        pass
    return [Strip([Segment(line)]) for line in wrap(shown, width)]
