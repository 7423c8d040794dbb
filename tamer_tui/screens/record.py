"""The record: everything that was said, newest first; words to search for, a comment, undo."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.widgets import DataTable, Input, Static

from storage.history import Entry, Wanted, history
from storage.journal import JournalError
from storage.queries import Record
from tamer_tui.exchange import export_to
from tamer_tui.history import line_of, words
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.editor import EditorScreen, WrittenText
from tamer_tui.session import Change, Session
from tamer_tui.text import one_line
from tamer_tui.widgets.foot import Foot

MOST = 500
"""Events that are listed; the search finds older ones."""
KINDS = ("", "ranking", "rating", "correction", "demonstration", "critique", "tap", "skip", "comment", "flag", "undo")
COLUMNS = {"": 6, "when": 11, "kind": 13, "what you said": 26, "about": 80}
"""Heading -> cells."""


class RecordScreen(Screen[None]):
    """Read beside the loop, again whenever something is written while it is looked at."""

    CSS_PATH = "record.tcss"
    BINDINGS = [
        Binding("escape,q", "leave", "Arena"),
        Binding("slash", "search", "search"),
        Binding("k", "kind", "kind"),
        Binding("c", "comment", "comment"),
        Binding("E", "export", "export as preference pairs"),
        Binding("u", "undo", "undo"),
        Binding("U", "redo", "redo"),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._kind = ""
        self._entries: dict[str, Entry] = {}

    def compose(self) -> ComposeResult:
        yield Input(placeholder="words of a prompt, an answer or a comment", id="search")
        yield DataTable(id="table", cursor_type="row", zebra_stripes=True)
        yield Static(id="entry")
        yield Foot((("/", "search"), ("k", "kind"), ("c", "comment"), ("E", "export"), ("u", "undo")))

    def on_mount(self) -> None:
        for name, cells in COLUMNS.items():
            self.query_one(DataTable).add_column(name, width=cells)
        self.query_one("#search").border_title = "search"
        self.session.observe(self._changed)
        self.query_one(DataTable).focus()

    def on_screen_resume(self) -> None:
        self._read()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def _changed(self, change: Change) -> None:
        if self.is_attached and self.is_current and change is Change.COMMITTED:
            self._read()

    # --- reading -----------------------------------------------------------------------------------------------------------

    @work(exclusive=True)
    async def _read(self) -> None:
        path, wanted = self.session.database, Wanted(kind=self._kind, search=self.query_one(Input).value)
        if path is None:
            self.say("there is no record yet: it is made when the model is known")
            return
        try:
            entries = await asyncio.to_thread(_newest, path, wanted)
        except JournalError as error:
            self.say(str(error))
            return
        table = self.query_one(DataTable)
        at = table.cursor_row if table.row_count else 0
        self._entries = {str(entry.seq): entry for entry in entries}
        table.clear()
        for entry in entries:
            table.add_row(*(Text(one_line(cell)) for cell in _row(entry)), key=str(entry.seq))
        table.move_cursor(row=at)
        found = f"the newest {MOST}" if len(entries) == MOST else f"{len(entries)} found"
        self.say(f"{self._kind or 'all kinds'} · {found}")

    @on(DataTable.RowHighlighted)
    def _look(self, event: DataTable.RowHighlighted) -> None:
        entry = self._entries.get(str(event.row_key.value))
        self.query_one("#entry", Static).update(Content(line_of(entry) if entry is not None else ""))

    @on(Input.Changed)
    def _search_changed(self) -> None:
        self._read()

    @on(Input.Submitted)
    def _search_submitted(self) -> None:
        self.query_one(DataTable).focus()

    def action_search(self) -> None:
        self.query_one(Input).focus()

    def action_kind(self) -> None:
        self._kind = KINDS[(KINDS.index(self._kind) + 1) % len(KINDS)]
        self._read()

    async def action_leave(self) -> None:
        """From the search to the list, and then to the Arena."""
        if self.query_one(Input).has_focus:
            self.query_one(DataTable).focus()
        else:
            await self.app.run_action("app.back")

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def action_undo(self) -> None:
        await attempt(self.say, self.session.judging.undo)

    async def action_redo(self) -> None:
        await attempt(self.say, self.session.judging.redo)

    @work
    async def action_export(self) -> None:
        """Everything judged, as trainers read it; other formats by `tamer export`."""
        database = self.session.database
        if database is None:
            self.say("there is no record yet: it is made when the model is known")
            return
        out = Path.cwd() / f"{database.stem}-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
        self.say(f"writing {one_line(out.name)} …")

        async def export() -> str:
            from storage.exchange.exporting import Options

            return one_line(await asyncio.to_thread(export_to, database, out, Options("trl-preference"), False))

        await attempt(self.say, export)

    def action_comment(self) -> None:
        table = self.query_one(DataTable)
        entry = self._entries.get(str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)) if table.row_count else None
        set_uid = getattr(entry.judgement, "set_uid", "") if entry is not None else ""
        if not set_uid:
            self.say("a comment is about answers: choose something that was said about some")
            return

        async def written(result: WrittenText | None) -> None:
            if result is not None and result.saved:
                await attempt(self.say, lambda: self.session.judging.comment(set_uid, None, result.text), "✓ comment on disk")

        self.app.push_screen(EditorScreen("comment", "", entry.prompt if entry is not None else ""), written)


def _newest(path: Path, wanted: Wanted) -> list[Entry]:
    if not wanted.kind and not wanted.search.strip():  # where nothing is left out, what is old need not be read
        with Record(path) as record:
            wanted = Wanted(since_seq=record.last_seq() - MOST + 1)
    return list(reversed(deque(history(path, wanted), maxlen=MOST)))


def _row(entry: Entry) -> tuple[str, ...]:
    when = entry.utc[5:16].replace("T", " ")
    undone = f"undone by {entry.undone_by}" if entry.undone_by is not None else ""
    return (str(entry.seq), when, entry.kind, " ".join(part for part in (words(entry), undone) if part), entry.prompt)
