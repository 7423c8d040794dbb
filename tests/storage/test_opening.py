"""Who may open a database, and what is said when it cannot be opened."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from storage import schema
from storage.journal import Journal, JournalError
from storage.queries import Record
from storage.records import BaseModel, Sitting, Skip

from .conftest import BASE, SITTING, Desk


def refusal(path: Path, create: bool = True) -> JournalError:
    with pytest.raises(JournalError) as caught:
        Journal.open(path, create)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "tamer.db"))


def test_a_missing_folder_is_made_and_everything_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "tamer.db"
    with Journal.open(path):
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(("tamer.db", "tamer.db-wal", "tamer.db-shm", "tamer.db.lock"), 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["tamer.db"]


def test_the_journal_writes_so_that_a_power_cut_loses_nothing(desk: Desk) -> None:
    def pragma(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "application_id", "user_version")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    full = 2
    assert desk.journal._submit(pragma).result() == ["wal", full, 1, 0, schema.APPLICATION_ID, schema.VERSION]


def test_without_create_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "tamer.db"
    assert refusal(path, create=False).message == f"there is no database at {path}"
    with pytest.raises(JournalError, match="there is no database at"):
        Record(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"{tmp_path} is a folder"


@pytest.mark.parametrize("content", [b"hello", b"x" * 10_000], ids=["short", "long"])
def test_another_kind_of_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert refusal(path).message == f"{path} is not a database"
    with pytest.raises(JournalError, match="is not a database"):
        Record(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("application", [0, 252006675])
def test_the_database_of_another_program_is_left_alone(tmp_path: Path, application: int) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute(f"PRAGMA application_id = {application}")
        other.commit()
    content = path.read_bytes()
    assert refusal(path).message == f"{path} is the database of another program"
    with pytest.raises(JournalError, match="is the database of another program"):
        Record(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "tamer.db"
    path.touch()
    Journal.open(path).close()
    Record(path).close()


def test_a_database_of_a_newer_version_is_left_alone(database: Path) -> None:
    with closing(sqlite3.connect(database)) as newer:
        newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    line = f"{database} was made by a newer version (schema {schema.VERSION + 1}, this one knows {schema.VERSION})"
    assert refusal(database).message == line
    with pytest.raises(JournalError, match="newer version"):
        Record(database)


def test_where_no_file_can_be_locked_a_database_is_read_and_not_written(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.fcntl", None)  # as on Windows
    assert refusal(database).message == "this system cannot lock a database"
    with Record(database) as record:
        assert record.last_seq() == 0


def test_a_second_journal_is_told_which_process_has_the_database(desk: Desk) -> None:
    assert refusal(desk.path).message == f"{desk.path} is in use by PID {os.getpid()}"
    link = desk.path.with_name("link.db")
    link.symlink_to(desk.path)
    assert refusal(link).message == f"{desk.path} is in use by PID {os.getpid()}"
    assert desk.record.log() == []


def test_a_killed_process_leaves_the_database_free(database: Path) -> None:
    script = "import sys, pathlib, storage.journal as j; x = j.Journal.open(pathlib.Path(sys.argv[1])); print(flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert refusal(database).message == f"{database} is in use by PID {child.pid}"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert database.with_name("tamer.db.lock").exists()
    Journal.open(database).close()


def test_another_programs_write_lock_is_reported(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refusal(database).message == f"{database} is locked by another program"
    Journal.open(database).close()


def test_a_read_only_file_can_be_read_but_not_written(unprivileged: Path, empty_database: Path) -> None:
    database = unprivileged / "tamer.db"
    Journal.open(database).close()
    database.chmod(0o400)
    assert refusal(database).message == f"{database} is read-only"
    with Record(database) as record:
        assert record.live() == []


def test_a_read_only_folder_can_be_read_but_not_written(unprivileged: Path) -> None:
    database = unprivileged / "tamer.db"
    Journal.open(database).close()
    unprivileged.chmod(0o500)
    assert refusal(database).message == f"cannot open {database}: Permission denied"
    assert refusal(unprivileged / "new" / "tamer.db").message.endswith("Permission denied")
    with Record(database) as record:
        assert record.live() == []


def test_a_disk_without_room_for_a_new_database_keeps_nothing_of_it(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        error = refusal(tmp_path / "tamer.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in error.message
    assert list(tmp_path.iterdir()) == []


def test_a_database_belongs_to_one_base_model(desk: Desk) -> None:
    other = BaseModel("d" * 64, "other", "none")
    with pytest.raises(JournalError) as caught:
        desk.journal.bind(other, Sitting("second", other.base_hash, "0.1", "{}"))
    assert caught.value.message == "this database belongs to stories (bbbbbbbb), not to other (dddddddd)"
    assert desk.record.base() == BASE
    desk.show("s1")
    assert desk.record.logged(desk.say(Skip("s1"))).sitting_uid == SITTING.uid


def test_a_database_goes_on_with_the_same_base_however_it_is_quantized(desk: Desk) -> None:
    desk.show("s1")
    second = Sitting("second", BASE.base_hash, "0.2", "{}", quantize="nf4")
    desk.journal.bind(BaseModel(BASE.base_hash, "renamed", "nf4"), second)
    desk.journal.bind(BASE, second)  # the engine was restarted
    assert desk.record.logged(desk.say(Skip("s1"))).sitting_uid == "second"
    assert desk.record.base() == BASE
    assert desk.record.counts().sittings == 2


def test_a_sitting_must_be_of_the_model_it_is_bound_with(desk: Desk) -> None:
    with pytest.raises(JournalError, match="another base model"):
        desk.journal.bind(BASE, Sitting("second", "e" * 64, "0.1", "{}"))
    with pytest.raises(JournalError, match="not JSON"):
        desk.journal.bind(BASE, Sitting("second", BASE.base_hash, "0.1", "{"))


def test_importing_the_store_loads_neither_the_learners_nor_the_screen_nor_the_migrations(database: Path) -> None:
    script = (
        "import sys, pathlib, storage.journal, storage.queries; storage.journal.Journal.open(pathlib.Path(sys.argv[1])).close();"
        "print({'torch', 'textual', 'sqlite_utils', 'learners', 'tamer_tui'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, str(database)]
    assert subprocess.check_output(command, text=True, cwd=Path(__file__).parents[2]) == "set()\n"
