"""Evidence can be added and never changed, by us or by another program with its own settings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.records import (
    Activation,
    Correction,
    Demonstration,
    Import,
    ImportedItem,
    KeptRow,
    LeftOut,
    Prequential,
    Ranking,
    Rating,
    Selection,
    Shown,
)

from .conftest import WATCHING, Desk

PROTECTED = (
    *("base_models", "base_builds", "operators", "sittings", "nodes", "prompts", "sample_sets", "responses", "tokens"),
    *("event_kinds", "events", "chain", "ranking_items", "ranking_strengths", "ratings", "corrections", "demonstrations"),
    *("taps", "arms", "paces", "presentations", "shown_tokens", "spans", "comments", "flags", "calibrations"),
    *("runs", "run_events", "versions", "version_runs", "activations", "prequential", "imports", "import_items", "kept_rows"),
    *("selections", "critiques"),
)
KEPT = {"tallies", "judged_prompts", "blind_outcomes"}
"""What is counted along, and can be counted again."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, shown_database: Path) -> Path:
    """A database with a row in every table."""
    desk = Desk(tmp_path_factory.mktemp("full") / "tamer.db", shown_database)
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}, strength=2))
    desk.say(Rating("s1", "s1a", 4))
    desk.say(Correction("s1", "s1a", "text"))
    desk.say(Demonstration("s1", "text"))
    desk.train("v1", "base", 1, 2)
    for judgement in WATCHING:
        desk.say(judgement)
    desk.journal.write(Shown("s1", "s1a", 0, (7,), ("a",), (1.0,), (0,), (0.0,))).result()
    desk.journal.write(Activation("v1", "published"))
    desk.journal.write(Prequential(1, "human_reward", 0.5, 1, 1))
    desk.journal.write(Import("i1", "a" * 64, "hh", "pairs.jsonl", 1))
    desk.journal.write(ImportedItem("b" * 64, "i1", "s1"))
    desk.journal.write(Selection("s1", 3, "human_reward", {"s1a": 1.0}, (LeftOut(1, 0.5, (7,), "a"),)))
    desk.journal.write(KeptRow("s1", "{}")).result()
    desk.close()
    return desk.path


@pytest.fixture
def other_program(full: Path) -> Iterator[sqlite3.Connection]:
    """A connection without our pragmas, with those that weaken triggers most. Changes nothing for the next test."""
    connection = sqlite3.connect(full, isolation_level=None)
    connection.execute("PRAGMA recursive_triggers = OFF")
    connection.execute("BEGIN")
    yield connection
    connection.execute("ROLLBACK")
    connection.close()


def test_every_table_is_protected(other_program: sqlite3.Connection) -> None:
    tables = other_program.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'search%'"
    )
    assert {name for (name,) in tables} - {"_sqlite_migrations"} - KEPT == set(PROTECTED)


@pytest.mark.parametrize("table", PROTECTED)
@pytest.mark.parametrize("change", ["update", "delete", "replace", "upsert"])
def test_a_row_cannot_be_changed(other_program: sqlite3.Connection, table: str, change: str) -> None:
    column = other_program.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchone()[0]
    statement = {
        "update": f"UPDATE {table} SET {column} = {column}",
        "delete": f"DELETE FROM {table}",
        "replace": f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        "upsert": f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 ON CONFLICT DO UPDATE SET {column} = {column}",
    }[change]
    before = other_program.execute(f"SELECT * FROM {table}").fetchall()
    assert before
    with pytest.raises(sqlite3.IntegrityError, match=f"{table} is append-only"):
        other_program.execute(statement)
    assert other_program.execute(f"SELECT * FROM {table}").fetchall() == before


def test_a_row_cannot_be_replaced_by_one_that_shares_only_its_uid(other_program: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="events is append-only and has this row already"):
        other_program.execute(
            "INSERT OR REPLACE INTO events (uid, kind, sitting_id, utc, payload) SELECT uid, 'skip', sitting_id, utc, '{}' FROM events LIMIT 1"
        )


@pytest.mark.parametrize("table", PROTECTED)
def test_types_are_strict(other_program: sqlite3.Connection, table: str) -> None:
    (sql,) = other_program.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    assert "STRICT" in sql.rsplit(")", 1)[1]


def test_the_database_is_sound(other_program: sqlite3.Connection) -> None:
    assert other_program.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert other_program.execute("PRAGMA foreign_key_check").fetchall() == []
