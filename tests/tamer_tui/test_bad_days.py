"""Whatever befalls a sitting: everything judged is on disk, the terminal is as it was, and the next start says what happened."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from learners import protocol
from storage.queries import Record
from storage.records import Ranking
from storage.verification import problems
from tamer_tui import session_store
from tamer_tui.session import EngineState, Session, SessionSettings
from tamer_tui.text import wrap
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.pseudo_terminal import LEAVES, PseudoTerminal, arena_command
from tests.tamer_tui.table import PROMPTS, Table, table

HEARD = {
    signal.SIGTERM: "another program ended it (SIGTERM)",
    signal.SIGHUP: "its terminal was closed (SIGHUP)",
    signal.SIGKILL: "Cut short last time",
}


def judge_once(terminal: PseudoTerminal) -> None:
    """The first set, while it is still being drawn."""
    terminal.wait_for("Best first")
    terminal.press("a")
    terminal.wait_for("enter commits")
    terminal.rest(0.3)  # a new set ignores enter for a moment
    terminal.press("\r")
    terminal.wait_for("on disk")


def judged(database: Path) -> int:
    with Record(database) as record:
        return sum(isinstance(logged.judgement, Ranking) for logged in record.live())


@pytest.mark.parametrize("number", HEARD)
async def test_a_signal_loses_nothing_that_was_judged_and_the_next_start_says_what_happened(tmp_path: Path, number: signal.Signals) -> None:
    database = tmp_path / "a.db"
    terminal = PseudoTerminal(arena_command(database))
    try:
        judge_once(terminal)
        os.kill(terminal.child.pid, number)
        code = terminal.wait()
        if number != signal.SIGKILL:  # of which no program learns
            assert code == 0 and terminal.restored() and LEAVES in terminal.painted and b"1 judgement in" in terminal.painted
            assert not database.with_name("a.db.lock").exists()
    finally:
        terminal.close()
    assert judged(database) == 1
    for heard in (HEARD[number], ""):
        session = Session(SessionSettings("m", PROMPTS), FakeEngine, database)
        await session.start()
        await session.wait_ready()
        assert session.judged == 1 and (heard in session.notice if heard else session.notice == "")
        await session.close()


def test_ctrl_z_gives_the_terminal_back_fg_goes_on_and_ctrl_c_twice_leaves(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    terminal = PseudoTerminal(["bash", "--norc", "--noprofile", "-i"])
    try:
        terminal.press(shlex.join(arena_command(database)) + "\n")
        judge_once(terminal)
        terminal.press("\x1a")
        assert LEAVES in terminal.wait_for("Stopped")
        terminal.press("fg\n")
        terminal.wait_for(b"\x1b[?1049h")
        judge_once(terminal)
        terminal.press("\x03")
        terminal.wait_for("ctrl+c again leaves")
        terminal.press("\x03")
        assert LEAVES in terminal.wait_for("2 judgements in")
        terminal.press("exit 7\n")
        assert terminal.wait() == 7
    finally:
        terminal.close()
    assert judged(database) == 2


async def test_answers_stream_on_while_the_window_shrinks_to_nearly_nothing_and_grows_again(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(40))
    async with table(tmp_path, FakeEngine([text] * 4, token_seconds=0.01, finish=False), (120, 36)) as t:
        await t.press(*["greater_than_sign"] * 5)
        for columns, rows in ((20, 5), (1, 1), (20, 5), (80, 24), (20, 5), (120, 36)):
            await t.pilot.resize_terminal(columns, rows)
            await t.until(lambda: t.shown().count("\n") == rows - 1)  # noqa: B023
            assert t.pilot.app.is_running
        await t.until(lambda: all(len(pane.view.pieces) == 40 for pane in t.arena.answers.panes))
        await t.press("b", "enter")
        (ranking,) = t.live()
        assert isinstance(ranking, Ranking)
        view = t.session.sets.from_record(ranking.set_uid)
        assert {answer.text for answer in view.candidates} == {text}


async def test_panes_of_a_window_that_has_grown_again_are_wrapped_as_ones_that_never_shrank(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(["one two three " * 40] * 4), (120, 36)) as t:
        await t.press("a")
        for columns, rows in ((20, 5), (120, 36)):
            await t.pilot.resize_terminal(columns, rows)
            await t.pilot.pause()
        for pane in t.arena.answers.panes:
            assert pane.stream._lines == wrap(pane.stream.text, pane.stream._width)


async def test_an_engine_that_dies_while_answers_stream_leaves_them_to_be_judged_and_another_goes_on(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(finish=False)) as t:
        await t.until(lambda: all(pane.view.pieces for pane in t.arena.answers.panes))
        t.engine.die()
        await t.pilot.pause()
        assert "The engine stopped: R restarts it" in t.line("todo")
        await t.press("c", "enter")
        assert len(t.live()) == 1
        t.engine.finish = True
        await t.press("R")
        await t.until(lambda: t.session.engine_state is EngineState.READY and t.session.current is not None and not t.session.current.committed)
        assert len(t.engine.lessons) == 1
        await t.press("a", "enter")
        assert len(t.live()) == 2


async def test_an_engine_that_does_not_answer_any_more_is_restarted_by_a_second_R(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(finish=False)) as t:
        loads = sum(isinstance(command, protocol.Load) for command in t.engine.received)
        await t.press("R")
        assert "R again restarts it" in t.line("said") and t.session.engine_state is EngineState.READY
        t.engine.finish = True
        await t.press("R")
        await t.until(lambda: sum(isinstance(command, protocol.Load) for command in t.engine.received) == loads + 1)
        await t.until(lambda: t.session.engine_state is EngineState.READY)
        await t.press("c", "enter")
        assert len(t.live()) == 1


async def restrict(t: Table, statement: str) -> None:
    """A pragma of the connection that writes."""
    assert t.session.store is not None
    await asyncio.wrap_future(t.session.store._journal.run(lambda connection: connection.execute(statement).fetchall()))


async def test_a_full_disk_keeps_what_was_typed_until_there_is_room(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await restrict(t, "PRAGMA max_page_count = 1")  # SQLite takes the size that there is
        await t.until_pressed(lambda: t.line("todo").startswith("b > d"), "b", "d", "enter")
        before = len(t.live())
        assert "is full: free some space" in t.line("said")
        await restrict(t, "PRAGMA max_page_count = 100000")
        await t.press("enter")
        assert len(t.live()) == before + 1 and t.line("said").startswith("✓ b > d on disk")


async def test_a_locked_database_keeps_what_was_typed_until_it_is_free(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await restrict(t, "PRAGMA busy_timeout = 50")
        with closing(sqlite3.connect(t.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await t.press("b", "enter")
            await t.until(lambda: "locked by another program" in t.line("said"))
            assert t.live() == [] and t.line("todo").startswith("b")
            other.execute("ROLLBACK")
        await t.press("enter")
        await t.until(lambda: len(t.live()) == 1)


async def test_a_version_that_cannot_be_written_down_is_told_and_kept_as_soon_as_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_store, "RETRY_SECONDS", 0.02)
    async with table(tmp_path) as t:
        await t.press("b", "enter")
        in_the_way = tmp_path / "a.db.versions"
        in_the_way.write_text("")
        t.engine.publish()
        await t.until(lambda: "the new version could not be kept" in t.session.notice)
        await restrict(t, "PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(t.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            in_the_way.unlink()
            await t.until(lambda: "locked by another program" in t.session.notice)
            assert t.session.status.acting[0] == "base" and t.session.machine.versions() == []
            other.execute("ROLLBACK")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        (version,) = t.session.machine.versions()
        assert version.published and version.acting and not list(problems(t.path))


async def test_a_run_of_a_full_disk_is_written_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_store, "RETRY_SECONDS", 0.02)
    async with table(tmp_path) as t:
        await t.press("b", "enter")
        await restrict(t, "PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(t.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            t.engine.publish()
            await t.until(lambda: "the new version could not be kept" in t.session.notice)
            other.execute("ROLLBACK")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        with closing(sqlite3.connect(t.path)) as other:
            assert other.execute("SELECT count(*) FROM version_runs v JOIN runs r ON r.id = v.run_id").fetchone() == (1,)


async def test_an_engine_that_came_while_a_version_was_written_down_gets_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_store, "RETRY_SECONDS", 0.02)
    async with table(tmp_path) as t:
        await t.press("b", "enter")
        in_the_way = tmp_path / "a.db.versions"
        in_the_way.write_text("")
        t.engine.publish()
        await t.until(lambda: "the new version could not be kept" in t.session.notice)
        await t.session.engine.restart()
        await t.session.wait_ready()
        assert not any(isinstance(command, protocol.Blob) for command in t.engine.received)
        in_the_way.unlink()
        await t.until(lambda: any(isinstance(command, protocol.PublishAck) for command in t.engine.received))
        assert {c.name for c in t.engine.received if isinstance(c, protocol.Blob)} >= {"adapter_config.json", "manifest.json"}
