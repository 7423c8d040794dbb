"""A table of plain text, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text
from textual import on
from textual.message import Message
from textual.widgets import DataTable

from tamer_tui.text import one_line


class Rows(DataTable[Text]):
    """Its cursor stays on its row when they are read anew, wherever that is. There may be none: keys that move the cursor then choose nothing."""

    DEFAULT_CSS = "Rows { scrollbar-size-horizontal: 0; scrollbar-size-vertical: 1; }"

    class Looked(Message):
        """Another row is looked at."""

    def __init__(self, columns: Mapping[str, int | None], id: str | None = None) -> None:
        """Heading -> cells; None for as many as its texts need."""
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._headings = columns

    def on_mount(self) -> None:
        for heading, cells in self._headings.items():
            self.add_column(heading, width=cells)

    def fill(self, rows: Iterable[tuple[str, Sequence[str]]]) -> None:
        """In place of what there was. Each has a key; texts are untrusted."""
        at, chosen = (self.cursor_row if self.row_count else 0), self.chosen
        self.clear()
        for i, (key, cells) in enumerate(rows):
            self.add_row(*(Text(one_line(cell)) for cell in cells), key=key)
            at = i if key == chosen else at
        self.move_cursor(row=at)

    @property
    def chosen(self) -> str:
        """The key of the row at the cursor, '' where there is none."""
        if not 0 <= self.cursor_row < self.row_count:
            return ""
        return str(self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value)

    def action_scroll_home(self) -> None:
        """Textual moves along the row, where there is no cursor."""
        self.move_cursor(row=0)

    def action_scroll_end(self) -> None:
        self.move_cursor(row=max(0, self.row_count - 1))

    @on(DataTable.RowHighlighted)
    def _look(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self.post_message(self.Looked())
