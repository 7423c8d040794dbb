"""How databases of earlier versions become databases of this one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from storage import schema
from storage.journal import Journal, JournalError
from storage.migration import migrate
from storage.queries import Record
from storage.records import Prompt
from storage.verification import problems

from .dump import SAID


def layout(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_master"))


@pytest.mark.parametrize("applied", range(1, schema.VERSION))
def test_every_earlier_version_arrives_at_the_same_schema(tmp_path: Path, empty_database: Path, applied: int) -> None:
    path = tmp_path / "tamer.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        older.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        migrate(older, schema.MIGRATIONS[:applied])
    with pytest.raises(JournalError, match="was made by an older version"):
        Record(path)
    Journal.open(path).close()
    with closing(sqlite3.connect(path)) as migrated, closing(sqlite3.connect(empty_database)) as fresh:
        assert layout(migrated) == layout(fresh)
        assert migrated.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("v*.sql"), key=lambda path: int(path.stem[1:]))


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_database_made_by_an_earlier_version_loses_nothing(tmp_path: Path, fixture: Path) -> None:
    path = tmp_path / "tamer.db"
    with closing(sqlite3.connect(path)) as older:
        older.executescript(fixture.read_text(encoding="utf-8"))
        assert older.execute("PRAGMA user_version").fetchone() == (int(fixture.stem[1:]),)
        payloads = older.execute("SELECT seq, kind, utc, payload FROM events ORDER BY seq").fetchall()
    Journal.open(path).close()
    with closing(sqlite3.connect(path)) as migrated:
        assert migrated.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert migrated.execute("PRAGMA foreign_key_check").fetchall() == []
        assert migrated.execute("SELECT seq, kind, utc, payload FROM events ORDER BY seq").fetchall() == payloads
    assert list(problems(path)) == []
    with Record(path) as record:
        live = {logged.seq: logged.judgement for logged in record.live()}
        assert all(live[seq] == SAID[seq - 1] for seq in (1, 3, 4, 5, 6, 7, 10))
        assert {2, 8}.isdisjoint(live)
        assert [lesson.logged.seq for lesson in record.lessons()][:5] == [1, 3, 4, 5, 6]
        assert {answer.text for answer in record.responses("s1")} == {"[/b] = [31m", "[/b] = ü; said it's"}
        assert record.sample_set("s2").prompt == Prompt.of("prompt of s2")
        assert {version.id: version.stale for version in record.versions()} == {"v1": False, "v2": True, "v3": True}


def test_migrations_are_recorded_by_name(empty_database: Path) -> None:
    with closing(sqlite3.connect(empty_database)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations ORDER BY id")]
    assert names == [migration.__name__ for migration in schema.MIGRATIONS]
    assert names[0] == "m001_sittings"


def test_a_migration_that_fails_leaves_nothing_of_itself() -> None:
    def half_done(db: Database) -> None:
        db.execute("CREATE TABLE half (x)")
        db.execute("CREATE TABLE half (x)")

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, schema.MIGRATIONS)
        before = layout(connection)
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection, (*schema.MIGRATIONS, half_done))
        assert layout(connection) == before
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_a_later_migration_may_add_a_kind_of_judgement() -> None:
    def add_waves(db: Database) -> None:
        db.execute("INSERT INTO event_kinds VALUES ('wave', 1, 1, 'kept')")

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, schema.MIGRATIONS)
        migrate(connection, (*schema.MIGRATIONS, add_waves))
        assert connection.execute("SELECT count(*) FROM event_kinds WHERE kind = 'wave'").fetchone() == (1,)
