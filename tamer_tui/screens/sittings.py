"""`tamer sittings`: the databases that there are; enter opens one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding

from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.editor import NumberScreen, WrittenText
from tamer_tui.session_store import SessionError
from tamer_tui.sittings import Known, delete, known, rename, renew
from tamer_tui.text import one_line
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.rows import Rows

COLUMNS = {"name": 24, "model": 24, "judged": 7, "acting": 7, "your model wins": 22, "last used": 16}
"""Heading -> cells."""


class SittingsApp(App[Known | None]):
    """Returns the one to open."""

    TITLE = "tamer sittings"
    CSS = "DataTable { height: 1fr; background: $background; }"
    BINDINGS = [
        Binding("escape,q", "leave", "leave"),
        Binding("r", "rename", "rename"),
        Binding("delete,X", "delete", "delete"),
        Binding("y", "confirm", "confirm"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._known: list[Known] = []
        self._doomed: Known | None = None  # to be deleted, once that is confirmed

    def compose(self) -> ComposeResult:
        yield Rows(COLUMNS)
        yield Foot((("enter", "open"), ("r", "rename"), ("X", "delete")), general=(("esc", "leave"),))

    def on_mount(self) -> None:
        self.query_one(Rows).focus()
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        self._known = await asyncio.to_thread(known, self._folder)
        self.query_one(Rows).fill((str(each.path), _row(each)) for each in self._known)
        if not self._known:
            self._say(f"no sittings in {self._folder} yet: tamer begins one")

    def _say(self, line: str) -> None:
        self.query_one(Foot).say(line)

    def _at_cursor(self) -> Known | None:
        chosen = self.query_one(Rows).chosen
        return next((each for each in self._known if str(each.path) == chosen), None)

    @on(Rows.Looked)
    def _moved(self) -> None:
        self._doomed = None
        each = self._at_cursor()
        self._say(each.problem or str(each.path) if each is not None else "")

    @on(Rows.RowSelected)
    async def _opened(self) -> None:
        each = self._at_cursor()
        if each is not None and each.older:
            try:
                each = await asyncio.to_thread(renew, each.path)
            except SessionError as error:
                self._say(str(error))
        if each is not None and not each.problem:
            self.exit(each)

    def action_leave(self) -> None:
        self.exit(None)

    def action_rename(self) -> None:
        if (each := self._at_cursor()) is None:
            return

        async def written(result: WrittenText | None) -> None:
            if (
                result is not None
                and result.saved
                and await attempt(self._say, lambda: asyncio.to_thread(rename, each.path, result.text), "✓ renamed")
            ):
                self._read()

        self.push_screen(NumberScreen("name", each.path.stem), written)

    def action_delete(self) -> None:
        self._doomed = self._at_cursor()
        if self._doomed is not None:
            self._say(f"delete {one_line(self._doomed.path.name)}, {self._doomed.judged} judgements and all its versions, for good? y does it")

    async def action_confirm(self) -> None:
        doomed, self._doomed = self._doomed, None
        if doomed is not None and await attempt(
            self._say, lambda: asyncio.to_thread(delete, doomed.path), f"✓ {one_line(doomed.path.name)} is deleted"
        ):
            self._read()


def _row(each: Known) -> tuple[str, ...]:
    won = each.blind.in_words() if each.blind is not None and each.blind.n else ""
    used = datetime.fromtimestamp(each.used).strftime("%Y-%m-%d %H:%M")
    return (each.path.stem, each.model or each.problem, str(each.judged), each.acting, won, used)
