"""The record: everything that was said, newest first; words to search for, a comment, undo."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime
from functools import partial
from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from storage.history import Entry, Wanted, history
from storage.journal import JournalError
from storage.queries import Record
from tamer_tui.exchange import export_to
from tamer_tui.history import line_of, words
from tamer_tui.keys import LETTERS, RECORD_KEYS, painted_all
from tamer_tui.progress import ScreenProgress
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.choice import FLAGS, ChoiceScreen
from tamer_tui.screens.editor import EditorScreen, WrittenText
from tamer_tui.screens.observing import observe
from tamer_tui.session import Change, Session
from tamer_tui.text import one_line
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.rows import Rows

MOST = 500
"""Events that are listed; the search finds older ones."""
SHOWN = 100
"""Characters of an answer that is chosen."""
KINDS = ("", "ranking", "rating", "correction", "demonstration", "critique", "tap", "skip", "comment", "flag", "undo")
COLUMNS = {"": 6, "when": 11, "kind": 13, "what you said": 20, "about": 80}
"""Heading -> cells."""


class RecordScreen(Screen[None]):
    """Read beside the loop, again whenever something is written while it is looked at."""

    CSS_PATH = "record.tcss"
    BINDINGS = list(RECORD_KEYS)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._kind = ""
        self._entries: dict[str, Entry] = {}
        self._exporting: ScreenProgress | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="words of a prompt, an answer or a comment", id="search")
        yield Rows(COLUMNS, id="table")
        yield Static(id="entry")
        yield Foot(painted_all("record.search", "record.kind", "record.comment", "record.flag", "record.export", "record.undo"))

    def on_mount(self) -> None:
        self.query_one("#search").border_title = "search"
        observe(self.session, self, self._changed)
        self.query_one(Rows).focus()

    def on_screen_resume(self) -> None:
        self._read()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def _changed(self, change: Change) -> None:
        if self.is_current and change is Change.COMMITTED:
            self._read()

    # --- reading -----------------------------------------------------------------------------------------------------------

    @work(exclusive=True, group="reading")
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
        self._entries = {str(entry.seq): entry for entry in entries}
        self.query_one(Rows).fill((key, _row(entry)) for key, entry in self._entries.items())
        found = f"the newest {MOST}" if len(entries) == MOST else f"{len(entries)} found"
        self.query_one("#search").border_subtitle = f"{self._kind or 'all kinds'} · {found}"

    @on(Rows.Looked)
    def _look(self) -> None:
        entry = self._entries.get(self.query_one(Rows).chosen)
        self.query_one("#entry", Static).update(Content(line_of(entry) if entry is not None else ""))

    @on(Input.Changed)
    def _search_changed(self) -> None:
        self._read()

    @on(Input.Submitted)
    def _search_submitted(self) -> None:
        self.query_one(Rows).focus()

    def action_search(self) -> None:
        self.query_one(Input).focus()

    def action_kind(self) -> None:
        self._kind = KINDS[(KINDS.index(self._kind) + 1) % len(KINDS)]
        self._read()

    async def action_leave(self) -> None:
        """An export ends; else from the search to the list, and then to the Arena."""
        if self._exporting is not None:
            self._exporting.cancel()
        elif self.query_one(Input).has_focus:
            self.query_one(Rows).focus()
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
        if self._exporting is not None:
            return
        out = Path.cwd() / f"{database.stem}-{datetime.now():%Y%m%d-%H%M%S}.jsonl"
        self._exporting = step = ScreenProgress(f"writing {one_line(out.name)}:", self.say)

        async def export() -> str:
            from storage.exchange.exporting import Options

            return one_line(await asyncio.to_thread(export_to, database, out, Options("trl-preference"), False, None, step))

        try:
            await attempt(self.say, export)
        finally:
            step.cancel()  # a thread that is left alone goes on
            self._exporting = None

    def _chosen_set(self) -> tuple[Entry | None, str]:
        """What the cursor is on, and the set that it is about; '' where there is none, which is said."""
        entry = self._entries.get(self.query_one(Rows).chosen)
        set_uid = getattr(entry.judgement, "set_uid", "") if entry is not None else ""
        if not set_uid:
            self.say("notes are about answers: choose something that was said about some")
        return entry, set_uid

    @work
    async def action_flag(self) -> None:
        entry, set_uid = self._chosen_set()
        if entry is None or not set_uid:
            return
        answers = {c: (answer.uid, one_line(answer.text[:SHOWN])) for c, answer in zip(LETTERS, self.session.record.responses(set_uid))}
        if not answers:
            self.say("this set has no answers")
            return
        about = getattr(entry.judgement, "response_uid", "")
        uid = about or await self.app.push_screen_wait(ChoiceScreen("flag which answer?", {c: (c, text) for c, (_, text) in answers.items()}))
        uid = answers[uid][0] if uid in answers else uid
        label = await self.app.push_screen_wait(ChoiceScreen("it is a case of", FLAGS)) if uid else None
        if uid and label:
            await attempt(self.say, partial(self.session.judging.flag_of, set_uid, uid, label), f"✓ flagged: {label}")

    def action_comment(self) -> None:
        entry, set_uid = self._chosen_set()
        if not set_uid:
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
