"""Every version with its reason, as a tree; enter rolls back to one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen
from textual.widgets import DataTable, Static

from storage.queries import Record
from storage.records import BASE_VERSION, Run
from storage.rows import MarkedVersion
from tamer_tui.lineage import drawn
from tamer_tui.session import Change, Session
from tamer_tui.text import one_line
from tamer_tui.widgets.details import DOING
from tamer_tui.widgets.foot import Foot

HINT = "enter rolls back to a version"
COLUMNS = ("", "version", "from", "stage", "verdict", "KL", "won", "when", "reason")


class VersionsScreen(Screen[None]):
    """Keeps its place; what is new is there when it is looked at again."""

    CSS_PATH = "versions.tcss"
    BINDINGS = [
        Binding("escape,q", "app.back", "Arena"),
        Binding("y", "confirm", "confirm"),
    ]

    chosen: var[str | None] = var(None)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._versions: list[MarkedVersion] = []
        self._runs: dict[str, Run] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield DataTable(id="table", cursor_type="row", zebra_stripes=True)
            yield Static(Content(HINT), id="hint")
        yield Foot((("enter", "roll back"), ("up down", "look")))

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "versions"
        self.query_one(DataTable).add_columns(*COLUMNS)
        self.session.observe(self._changed)
        self._read()

    def on_screen_resume(self) -> None:
        self._read()

    def _changed(self, change: Change) -> None:
        if self.is_attached and self.is_current and change in (Change.VERSION, Change.COMMITTED):
            self._read()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def _read(self) -> None:
        """What there is now; the cursor stays on its row."""
        table = self.query_one(DataTable)
        at = table.cursor_row if table.row_count else 0
        self._versions = self.session.machine.versions()
        self._read_runs()
        acting = self.session.status.acting[0]
        table.clear()
        for branch, version in drawn(self._versions):
            table.add_row(*(Text(one_line(cell)) for cell in _row(branch, version, acting)), key=version.id if version else BASE_VERSION)
        table.move_cursor(row=at)
        table.focus()

    @work(exclusive=True)
    async def _read_runs(self) -> None:
        """What each learned from: long lists, read beside the loop."""
        if (path := self.session.database) is not None:
            self._runs = {run.uid: run for run in await asyncio.to_thread(_runs, path)}

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """The reason in full, on a narrow screen its column is cut off; and what it learned from."""
        self.chosen = None
        version = next((v for v in self._versions if v.id == event.row_key.value), None)
        self._tell(f"{version.id}: {one_line(version.reason)}\n{self._learned_from(version)}" if version is not None else HINT)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        chosen = str(event.row_key.value)
        version = next((v for v in self._versions if v.id == chosen), None)
        if version is not None and not version.published:
            self._tell(f"{chosen} was refused and not kept")
            return
        self.chosen = chosen
        self._tell(f"roll back to {chosen}? y does it, and learning is held until you resume it with p · esc leaves")

    async def action_confirm(self) -> None:
        if (version := self.chosen) is None:
            return
        said = f"rolled back to {version}: learning is held, p resumes it"
        app = self.app
        self.chosen = None
        await app.run_action("app.back")
        await app.attempt(lambda: self.session.machine.rollback(version), said)  # type: ignore[attr-defined]

    def _learned_from(self, version: MarkedVersion) -> str:
        runs = [self._runs[uid] for uid in version.runs if uid in self._runs]
        judgements = {seq for run in runs for seq in run.seqs}
        steps = ", ".join(f"{DOING.get(run.stage, run.stage)} ({run.steps} steps)" for run in runs)
        stale = " · stale: some of it was undone since" if version.stale else ""
        watched = f"\n{version.canary.in_words()}" if version.canary is not None else ""
        return f"learned from {len(judgements)} judgements{': ' + steps if steps else ''}{stale}{watched}"

    def _tell(self, line: str) -> None:
        self.query_one("#hint", Static).update(Content(line))


def _runs(path: Path) -> list[Run]:
    with Record(path) as record:
        return record.runs()


def _row(branch: str, version: MarkedVersion | None, acting: str) -> tuple[str, ...]:
    if version is None:
        return ("▸" if acting == BASE_VERSION else "", BASE_VERSION, "", "", "", "", "", "", "the model as it was loaded")
    verdict = ("published" if version.published else "refused") + (" · stale" if version.stale else "")
    kl = f"{version.kl:.1f}" if version.kl is not None else ""
    won = f"{version.win_rate:.0%}" if version.win_rate is not None else ""
    when = version.utc[5:16].replace("T", " ")
    return ("▸" if version.id == acting else "", branch + version.id, version.parent, version.stage, verdict, kl, won, when, version.reason)
