"""Long work says how far it is, and is cancelled whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage import backup, verification
from storage.backup import back_up
from storage.database import JournalError
from storage.exchange.exporting import Options, export
from storage.exchange.importing import import_file
from storage.journal import Journal
from storage.progress import CancelledError
from storage.queries import Record
from tamer_tui.progress import Progress, ScreenProgress, line
from tamer_tui.session_store import SessionError
from tamer_tui.upkeep import verify

PAIR = '{"prompt": "p%d", "chosen": "a", "rejected": "b"}'


def pairs(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(PAIR % n for n in range(300)))
    return path


def test_a_cancelled_import_leaves_nothing_and_the_whole_one_counts_every_row(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def cancel(done: int, of: int) -> None:
        told.append((done, of))
        if done == 200:
            raise CancelledError

    with Journal.open(tmp_path / "a.db") as journal:
        with pytest.raises(JournalError, match="cancelled"):
            import_file(journal, pairs(tmp_path), step=cancel)
        with Record(journal.path) as record:
            assert record.counts().rankings == 0 and record.last_seq() == 0
        assert told[-1] == (200, 300)
        assert import_file(journal, pairs(tmp_path)).added == 300


def test_a_cancelled_copy_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.open(tmp_path / "a.db") as journal:
        import_file(journal, pairs(tmp_path))
    monkeypatch.setattr(backup, "STEP_INSTRUCTIONS", 100)

    def cancel(done: int, of: int) -> None:
        raise CancelledError

    with pytest.raises(JournalError, match="cancelled"):
        back_up(tmp_path / "a.db", tmp_path / "b.db", cancel)
    assert not [path.name for path in tmp_path.iterdir() if "b.db" in path.name]
    told: list[int] = []
    assert back_up(tmp_path / "a.db", tmp_path / "b.db", lambda done, of: told.append(done)) > 0 and told
    with closing(sqlite3.connect(tmp_path / "b.db")) as copy:
        assert copy.execute("SELECT count(*) FROM v_live").fetchone() == (300,)


@pytest.mark.parametrize("format", ["trl-preference", "tamer", "sqlite"])
def test_a_cancelled_export_leaves_nothing_and_the_whole_one_is_told_to_its_end(tmp_path: Path, format: str) -> None:
    with Journal.open(tmp_path / "a.db") as journal:
        import_file(journal, pairs(tmp_path))

    def cancel(done: int, of: int) -> None:
        raise CancelledError

    out = tmp_path / "out"
    if format != "sqlite":  # which looks up so seldom that this database is copied before: see the copy above
        with pytest.raises(JournalError, match="cancelled"):
            export(tmp_path / "a.db", out, Options(format), step=cancel)
        assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]
    told: list[tuple[int, int]] = []
    export(tmp_path / "a.db", out, Options(format), step=lambda done, of: told.append((done, of)))
    if format == "trl-preference":
        assert told == [(n, 300) for n in range(1, 301)]
    elif format == "tamer":
        assert told[-1] == (len(out.read_bytes().splitlines()),) * 2


def test_a_cancelled_check_says_so_and_the_whole_one_names_every_check(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "a.db") as journal:
        import_file(journal, pairs(tmp_path))
    told: set[tuple[int, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "STEP_INSTRUCTIONS", 1_000)
        assert list(verification.problems(tmp_path / "a.db", lambda done, of: told.add((done, of)))) == []
        assert {of for _, of in told} == {verification.CHECKS} and max(done for done, _ in told) == verification.CHECKS - 1

        def cancel(done: int, of: int) -> None:
            raise CancelledError

        with pytest.raises(SessionError, match="cancelled"):
            verify(tmp_path / "a.db", cancel)


async def test_on_a_screen_progress_is_told_now_and_then_and_ends_what_is_cancelled() -> None:
    said: list[str] = []
    step = ScreenProgress("writing x:", said.append, every=0.0)
    await asyncio.to_thread(step, 150, 300)
    await asyncio.sleep(0)
    assert said and said[0].startswith("writing x: 150 of 300 · 0 s left") and "esc cancels" in said[0]
    step.cancel()
    with pytest.raises(CancelledError):
        step(151, 300)


def test_ctrl_c_cancels_at_the_next_step_and_is_the_programs_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Progress("counting") as step:
        step(1, 2)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(CancelledError):
            step(2, 2)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("done", "of", "said"), [(0, 10, "0 of 10"), (5, 10, "5 of 10 · 30 s left"), (10, 10, "10 of 10 · 0 s left"), (7, 0, "7"), (12, 10, "12 of 10")]
)
def test_the_time_left_is_what_the_rest_takes_at_this_pace(done: int, of: int, said: str) -> None:
    assert line(done, of, 30.0) == said
