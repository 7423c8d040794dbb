"""Every version with its reason; enter rolls back to one."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from storage.records import BASE_VERSION
from storage.rows import MarkedVersion
from tamer_tui.text import one_line

HINT = "enter rolls back to a version · esc leaves"


class VersionsScreen(ModalScreen[str | None]):
    """Dismisses with the id of the version to roll back to, or None."""

    CSS_PATH = "versions.tcss"
    BINDINGS = [
        Binding("escape,V,q", "leave", "leave"),
        Binding("y", "confirm", "confirm"),
    ]

    def __init__(self, versions: list[MarkedVersion], acting: str) -> None:
        super().__init__()
        self._versions, self._acting = versions, acting
        self._chosen: str | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield DataTable(id="table", cursor_type="row", zebra_stripes=True)
            yield Static(Content(HINT), id="hint")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "versions"
        table = self.query_one(DataTable)
        table.add_columns("", "version", "from", "stage", "verdict", "KL", "won", "when", "reason")
        for version in self._versions:
            table.add_row(*_row(version, self._acting), key=version.id)
        table.add_row(Text("▸" if self._acting == BASE_VERSION else ""), Text(BASE_VERSION), *(Text("") for _ in range(6)),
                      Text("the model as it was loaded"), key=BASE_VERSION)  # fmt: skip
        table.focus()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """The reason in full: on a narrow screen its column is cut off."""
        self._chosen = None
        version = next((v for v in self._versions if v.id == event.row_key.value), None)
        self._say(f"{version.id}: {one_line(version.reason)}\n{HINT}" if version is not None else HINT)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        chosen = str(event.row_key.value)
        version = next((v for v in self._versions if v.id == chosen), None)
        if version is not None and not version.published:
            self._say(f"{chosen} was refused and not kept")
            return
        self._chosen = chosen
        self._say(f"roll back to {chosen}? y does it, and learning is held until you resume it with p · esc leaves")

    def action_confirm(self) -> None:
        if self._chosen is not None:
            self.dismiss(self._chosen)

    def action_leave(self) -> None:
        self.dismiss(None)

    def _say(self, line: str) -> None:
        self.query_one("#hint", Static).update(Content(line))


def _row(version: MarkedVersion, acting: str) -> list[Text]:
    verdict = ("published" if version.published else "refused") + (" · stale" if version.stale else "")
    kl = f"{version.kl:.1f}" if version.kl is not None else ""
    won = f"{version.win_rate:.0%}" if version.win_rate is not None else ""
    mark = "▸" if version.id == acting else ""
    when = version.utc[5:16].replace("T", " ")
    return [Text(one_line(cell)) for cell in (mark, version.id, version.parent, version.stage, verdict, kl, won, when, version.reason)]
