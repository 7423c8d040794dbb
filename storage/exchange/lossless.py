"""The `tamer` format: every row of evidence as a line of JSON, so that an import gives the same database, down to the hash chain.

Tables come in the order in which they refer to each other, rows in the order of their keys, numbers as they are. Restoring needs a database that is
empty or that the file goes on from: two histories cannot become one, since every event's hash covers the one before it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from storage import chain, schema, state
from storage.database import JournalError

Row = dict[str, Any]
TABLES = (
    *("base_models", "base_builds", "operators", "sittings", "nodes", "prompts", "sample_sets", "responses", "tokens", "shown_tokens"),
    *(
        "events",
        "chain",
        "ranking_items",
        "ranking_strengths",
        "ratings",
        "corrections",
        "demonstrations",
        "critiques",
        "taps",
        "arms",
        "paces",
        "presentations",
    ),
    *("spans", "comments", "flags", "calibrations", "prequential", "runs", "run_events", "versions", "version_runs", "activations"),
    *("imports", "import_items", "kept_rows", "selections"),
)
NAME = "tamer"


def dump(connection: sqlite3.Connection) -> Iterator[Row]:
    """A heading, then every row."""
    last = connection.execute("SELECT seq, sha256 FROM chain ORDER BY seq DESC LIMIT 1").fetchone() or (0, "")
    yield {"format": NAME, "schema": schema.VERSION, "last_event": last[0], "chain": last[1]}
    for table in TABLES:
        columns = _columns(connection, table)
        listed, keys = (", ".join(map(_quoted, names)) for names in (columns, _keys(connection, table)))
        for row in connection.execute(f"SELECT {listed} FROM {table} ORDER BY {keys}"):
            yield {"table": table, **dict(zip(columns, row, strict=True))}


def size(connection: sqlite3.Connection) -> int:
    """How many rows `dump` gives."""
    return 1 + sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES)


def check_heading(row: Row) -> None:
    """Raises ValueError for a file that cannot be restored here."""
    if row.get("format") != NAME or not isinstance(row.get("schema"), int):
        raise ValueError("not an export of --format tamer")
    if row["schema"] != schema.VERSION:
        raise ValueError(f"made by schema {row['schema']}, this program has {schema.VERSION}: export it again with the same version of tamer")


def restore(connection: sqlite3.Connection, rows: Iterable[Row]) -> int:
    """Add what the database lacks; how many events that were. Runs inside the writer's transaction. Raises JournalError, sqlite3.Error."""
    before = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    for table, group in groupby(rows, key=lambda row: row.pop("table", None)):
        if table not in TABLES:
            raise JournalError(f"the file has rows of an unknown table {table!r}", "export it again")
        _fill(connection, str(table), group)
    if any(connection.execute("PRAGMA foreign_key_check").fetchmany(1)):
        raise JournalError("the file refers to rows that it does not hold", "export it again: it is not whole")
    if broken := next(chain.breaks(connection), None):
        raise JournalError(f"the file and the database are two histories: {broken}", "import it into a new database")
    connection.execute("INSERT INTO search(search) VALUES ('rebuild')")
    state.recount(connection)
    return int(connection.execute("SELECT count(*) FROM events").fetchone()[0]) - before


def _fill(connection: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
    columns, keys = _columns(connection, table), _keys(connection, table)
    known = connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]
    insert = f"INSERT INTO {table} ({', '.join(map(_quoted, columns))}) VALUES ({', '.join('?' * len(columns))})"
    find = f"SELECT {', '.join(map(_quoted, columns))} FROM {table} WHERE {' AND '.join(f'{_quoted(key)} = ?' for key in keys)}"
    for row in rows:
        if row.keys() != set(columns):
            raise JournalError(f"a row of {table} has other columns than the table", "export it again")
        values = tuple(row[column] for column in columns)
        there = connection.execute(find, tuple(row[key] for key in keys)).fetchone() if known else None
        if there is None:
            connection.execute(insert, values)
        elif tuple(there) != values:
            raise JournalError(f"the file and the database are two histories: they differ in a row of {table}", "import it into a new database")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]


def _keys(connection: sqlite3.Connection, table: str) -> list[str]:
    """The primary key's columns, or all."""
    keyed = sorted((place, name) for _, name, _, _, _, place in connection.execute(f"PRAGMA table_info({table})") if place)
    return [name for _, name in keyed] or _columns(connection, table)


def _quoted(name: str) -> str:
    return f'"{name}"'
