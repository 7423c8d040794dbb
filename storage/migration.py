"""How a schema grows: named steps, each in one transaction with its record in `_sqlite_migrations` and the new `user_version`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sqlite_utils import Database

Migration: TypeAlias = "Callable[[Database], None]"
"""A step; its name is how the database remembers it."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Brings a database up to date, each migration in one transaction. Raises sqlite3.Error with the failed one undone."""
    if connection.execute("PRAGMA user_version").fetchone() == (len(migrations),):
        return
    from sqlite_utils import Database, Migrations  # 0.1 s to import: only where there is something to do

    named = Migrations("tamer")
    for number, migration in enumerate(migrations, start=1):
        named(name=migration.__name__)(_numbered(number, migration))
    (enforced,) = connection.execute("PRAGMA foreign_keys").fetchone()
    connection.execute("PRAGMA foreign_keys = OFF")  # so that a table can be built anew; each migration is checked as a whole
    try:
        named.apply(Database(connection))
    finally:
        connection.execute(f"PRAGMA foreign_keys = {enforced}")


def _numbered(number: int, migration: Migration) -> Migration:
    def numbered(db: Database) -> None:
        migration(db)
        if broken := db.execute("PRAGMA foreign_key_check").fetchone():
            raise sqlite3.IntegrityError(f"{migration.__name__} left a row of {broken[0]} without the {broken[2]} it refers to")
        db.execute(f"PRAGMA user_version = {number}")

    numbered.__name__ = migration.__name__
    return numbered


def append_only(db: Database, *tables: str) -> None:
    """Lets rows be added to these tables and nothing else: UPDATE, DELETE and REPLACE fail with 'append-only'."""
    for table in tables:
        refusal = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        known = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only and has this row already'); END"
        db.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refusal}")
        db.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refusal}")
        # REPLACE deletes without a DELETE trigger where recursive_triggers is off, as it is in most other tools.
        same = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table} WHERE " + " AND ".join(f"{c} = NEW.{c}" for c in key) + ")" for key in _unique_keys(db, table)
        )
        db.execute(f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {same} {known}")


def _unique_keys(db: Database, table: str) -> list[list[str]]:
    keys = [
        [name for (name,) in db.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", [index])]
        for (index,) in db.execute('SELECT name FROM pragma_index_list(?) WHERE "unique"', [table]).fetchall()
    ]
    primary = [name for (name,) in db.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", [table])]
    return keys if primary in keys else [*keys, primary]  # an INTEGER PRIMARY KEY has no index of its own


@contextmanager
def without_replace_guards(connection: sqlite3.Connection, *tables: str) -> Iterator[None]:
    """For many plain INSERTs inside one transaction: the triggers that look for REPLACE cost as much as the rows. They are back before it commits."""
    marks = ", ".join("?" * len(tables))
    sql = f"SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN ({marks}) AND name LIKE '%\\_no\\_replace' ESCAPE '\\'"
    guards = connection.execute(sql, tables).fetchall()
    if not connection.in_transaction:
        raise sqlite3.ProgrammingError("guards are only lifted inside a transaction")
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    yield  # what fails in between rolls back, and the guards with it
    for _, definition in guards:
        connection.execute(definition)
