"""A copy that is whole, whatever goes on meanwhile."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.backup import back_up
from storage.journal import JournalError
from storage.queries import Record
from storage.records import Rating
from storage.verification import problems

from .conftest import Desk


def test_a_backup_while_the_program_writes_is_a_sound_database_of_that_moment(desk: Desk, tmp_path: Path) -> None:
    desk.show("s1", k=2)
    desk.say(Rating("s1", "s1a", 5))
    copy = tmp_path / "copy.db"
    size = back_up(desk.path, copy)
    desk.say(Rating("s1", "s1b", 6))
    assert size == copy.stat().st_size and copy.stat().st_mode & 0o777 == 0o600
    assert list(problems(copy)) == []
    with Record(copy) as record:
        assert [logged.judgement for logged in record.log()] == [Rating("s1", "s1a", 5)]
    assert {path.name for path in tmp_path.iterdir() if "copy" in path.name} == {"copy.db"}


def test_searching_works_in_a_backup(desk: Desk, tmp_path: Path) -> None:
    desk.show("s1", k=2)
    back_up(desk.path, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        found = copy.execute("SELECT n.content FROM search f JOIN nodes n ON n.id = f.rowid WHERE search MATCH 'prompt'").fetchall()
    assert found == [("prompt of s1",)]


def test_what_is_there_already_is_not_replaced(desk: Desk, tmp_path: Path) -> None:
    for name in ("copy.db", "other.db-wal"):  # the log of a database that is gone would be read into the copy
        (tmp_path / name).write_text("precious")
        with pytest.raises(JournalError, match=f"{name} is there already"):
            back_up(desk.path, tmp_path / name.removesuffix("-wal"))
        assert (tmp_path / name).read_text() == "precious"
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize("target", ["no/such/folder/copy.db", "tamer.db/copy.db"])
def test_a_place_that_cannot_be_written_is_one_line_and_leaves_nothing(desk: Desk, tmp_path: Path, target: str) -> None:
    before = {path.name for path in tmp_path.rglob("*")}
    with pytest.raises(JournalError) as error:
        back_up(desk.path, tmp_path / target)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.rglob("*")} == before
