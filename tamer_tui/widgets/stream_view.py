"""Text that grows, wrapped as it comes: only the last line is ever wrapped again, so the cost of a token does not grow with the text."""

from __future__ import annotations

from rich.segment import Segment
from textual.events import Resize
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tamer_tui.text import plain, wrap


class StreamView(ScrollView):
    """A growing answer. Stays at its end while the reader has not scrolled up."""

    DEFAULT_CSS = """
    StreamView {
        height: 1fr; overflow-y: scroll; overflow-x: hidden; padding: 0 1; background: $background;
        scrollbar-size-vertical: 1; scrollbar-background: $background;
        scrollbar-background-hover: $background; scrollbar-background-active: $background;
        scrollbar-color: $foreground 20%; scrollbar-color-hover: $foreground 40%; scrollbar-color-active: $accent;
    }
    """
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._text: list[str] = []
        self._lines: list[str] = [""]
        self._wrapped_at = 0

    @property
    def text(self) -> str:
        """All that was written, made plain."""
        return "".join(self._text)

    def write(self, fragment: str) -> None:
        """Add text at the end."""
        fragment = plain(fragment)
        if not fragment:
            return
        self._text.append(fragment)
        first = len(self._lines) - 1
        self._lines[first:] = wrap(self._lines[first] + fragment, self._width)
        self._grown(first)

    def clear(self) -> None:
        """Start over."""
        self._text.clear()
        self._lines = [""]
        self.virtual_size = Size(self._width, 1)
        self.scroll_to(y=0, animate=False, immediate=True)
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        """Another width: wrap everything again."""
        if self._width != self._wrapped_at:
            self._wrapped_at = self._width
            self._lines = wrap(self.text, self._width)
            self._grown(0)

    def render_line(self, y: int) -> Strip:
        """One visible line."""
        index = y + self.scroll_offset.y
        line = self._lines[index] if index < len(self._lines) else ""
        return Strip([Segment(line, self.rich_style)]).adjust_cell_length(self._width, self.rich_style)

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width or 40)

    def _grown(self, first: int) -> None:
        """Lines from `first` on have changed."""
        at_end = self.scroll_offset.y >= self.max_scroll_y
        if self.virtual_size.height != len(self._lines):
            self.virtual_size = Size(self._width, len(self._lines))
        if at_end and self.max_scroll_y > self.scroll_offset.y:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)
            self.refresh()
            return
        top = first - self.scroll_offset.y
        self.refresh(Region(0, max(0, top), self.size.width, max(0, len(self._lines) - self.scroll_offset.y - max(0, top))))
