"""Whether a database still is what was written into it: `problems` looks at everything that can be checked without a model.

The file (integrity, foreign keys), the log (hash chain, one set of typed rows for each event, equal to what the event says), the conversations
(content addresses), and what is counted along. Each problem is one line that says where.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import msgspec

from storage import chain, schema, state
from storage.backup import STEP_INSTRUCTIONS
from storage.database import explain, open_reader
from storage.hashes import START, message_hash
from storage.migration import migrate
from storage.progress import CancelledError, Step, unwatched
from storage.records import Message, Prompt

MOST_OF_A_KIND = 10
"""Problems of one check that are listed; the rest of them are counted."""

_ANSWER = {"response_uid": "(SELECT uid FROM responses WHERE id = t.response_id)"}
_SET = {"set_uid": "(SELECT uid FROM sample_sets WHERE id = t.set_id)"}
_TEXT = {"text": "(SELECT content FROM nodes WHERE id = t.node_id)"}
_TYPED: dict[str, tuple[str, str, dict[str, str]]] = {
    "rating": ("ratings", "value criterion", _ANSWER),
    "correction": ("corrections", "", _ANSWER | _TEXT),
    "demonstration": ("demonstrations", "", _SET | _TEXT),
    "critique": ("critiques", "text scope strength", _SET | _ANSWER),
    "tap": ("taps", "response_uid value key seconds wall repeat whole", {}),
    "arm": ("arms", "response_uid seconds since", _SET | {"on": "t.armed"}),
    "pace": ("paces", "tokens_per_second seconds", _SET),
    "span": ("spans", "start stop label value", _ANSWER),
    "comment": ("comments", "text", _SET | _ANSWER),
    "flag": ("flags", "label", _ANSWER),
    "calibration": ("calibrations", "family low high shape scale connection", {}),
}
"""Kinds with one row `t` for each event: its table, the fields that are columns of the same name, and where the others are."""

_MESSAGES = """
    WITH RECURSIVE up(id, parent_id, role, content, height) AS (
      SELECT n.id, n.parent_id, n.role, n.content, 0 FROM prompts p JOIN nodes n ON n.id = p.node_id WHERE p.id = ?
      UNION ALL SELECT n.id, n.parent_id, n.role, n.content, u.height + 1 FROM up u JOIN nodes n ON n.id = u.parent_id)
    SELECT role, content FROM up ORDER BY height DESC"""
"""Of one prompt; the view `messages` is of all."""


def problems(path: Path, step: Step = unwatched) -> Iterator[str]:
    """What is wrong with the database at `path`; nothing where all is well. `step` is told the checks that are done.

    Raises JournalError where it cannot be read at all, and CancelledError.
    """
    connection = open_reader(path)
    connection.create_function("said", 2, _said, deterministic=True)
    done, cancelled = 0, False

    def watched() -> int:
        """What SQLite asks between instructions: not 0 ends them."""
        nonlocal cancelled
        try:
            step(done, CHECKS)
        except CancelledError:
            cancelled = True
        return int(cancelled)

    connection.set_progress_handler(watched, STEP_INSTRUCTIONS)
    try:
        for check in _CHECKS:
            sound = True
            for line in _some(check(connection)):
                sound = False
                yield line
            if check is _file and not sound:  # of a damaged file nothing more can be said
                return
            done += 1
    except sqlite3.Error as error:
        if cancelled:
            raise CancelledError from error
        clear = explain(error, path)
        yield f"it cannot be read to its end: {clear.message}"
    finally:
        connection.close()


_payload = lru_cache(maxsize=2)(msgspec.json.decode)


def _said(payload: str, field: str) -> str | int | float | None:
    """A field of an event, None where it has none. SQLite's own JSON stops at a NUL and rounds the last bit of numbers."""
    value: str | int | float | None = _payload(payload).get(field)
    return int(value) if isinstance(value, bool) else value


def _some(lines: Iterator[str]) -> Iterator[str]:
    yield from islice(lines, MOST_OF_A_KIND)
    if more := sum(1 for _ in lines):
        yield f"… and {more} more of this kind"


OF_LITESTREAM = {"_litestream_seq", "_litestream_lock"}
"""Tables of its own that it puts into every database that it replicates."""


def _file(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA integrity_check({MOST_OF_A_KIND})"):
        if line != "ok":
            yield f"the file is damaged: {line}"
    for table, row, parent, _ in islice(connection.execute("PRAGMA foreign_key_check"), MOST_OF_A_KIND):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def _layout(connection: sqlite3.Connection) -> Iterator[str]:
    """Tables, views and the triggers that keep evidence as it was."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    migrate(fresh, schema.MIGRATIONS)
    wanted, found = (dict(iter(each.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))) for each in (fresh, connection))
    fresh.close()
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing in the schema"
        elif name not in wanted and name not in OF_LITESTREAM:
            yield f"{name} does not belong to the schema"
        elif name in wanted and wanted[name] != found[name]:
            yield f"{name} is not what the schema says"


def _types(connection: sqlite3.Connection) -> Iterator[str]:
    """Kinds with one row for each event, and the set that an event names."""
    for kind, (table, same, others) in _TYPED.items():
        yield from _without_event(connection, kind, table)
        columns = {field: f"t.{field}" for field in same.split()} | others
        agrees = " AND ".join(f"said(p, '{field}') IS {column}" for field, column in columns.items())
        rows = connection.execute(f"""
            SELECT e.seq, t.seq IS NULL FROM (SELECT seq, payload AS p FROM events WHERE kind = '{kind}') e
            LEFT JOIN {table} t ON t.seq = e.seq WHERE t.seq IS NULL OR NOT ({agrees}) ORDER BY e.seq""")
        for seq, missing in rows:
            yield f"event {seq} ({kind}) has no row in {table}" if missing else f"event {seq} ({kind}) and its row in {table} disagree"

    rows = connection.execute("""
        SELECT e.seq, e.kind FROM (SELECT seq, kind, set_id, payload AS p FROM events) e LEFT JOIN sample_sets s ON s.id = e.set_id
        WHERE said(p, 'set_uid') IS NOT s.uid ORDER BY e.seq""")
    for seq, kind in rows:
        yield f"event {seq} ({kind}) names another set than the one it is about"


def _without_event(connection: sqlite3.Connection, kind: str, table: str) -> Iterator[str]:
    for (seq,) in connection.execute(f"SELECT DISTINCT seq FROM {table} WHERE seq NOT IN (SELECT seq FROM events WHERE kind = '{kind}')"):
        yield f"{table} has a row for event {seq}, which is no {kind}"


def _rankings(connection: sqlite3.Connection) -> Iterator[str]:
    yield from _without_event(connection, "ranking", "ranking_items")
    yield from _without_event(connection, "ranking", "ranking_strengths")
    rows = connection.execute("""
        SELECT e.seq FROM (SELECT seq, payload AS p FROM events WHERE kind = 'ranking') e
        WHERE (SELECT count(*) FROM json_each(p, '$.ranks')) <> (SELECT count(*) FROM ranking_items i WHERE i.seq = e.seq)
          OR EXISTS (SELECT 1 FROM ranking_items i JOIN responses r ON r.id = i.response_id
                     WHERE i.seq = e.seq AND (SELECT j.value FROM json_each(p, '$.ranks') j WHERE j.key = r.uid) IS NOT i.rank)
          OR said(p, 'strength') IS NOT (SELECT strength FROM ranking_strengths g WHERE g.seq = e.seq)
        ORDER BY e.seq""")
    for (seq,) in rows:
        yield f"event {seq} (ranking) and its rows in ranking_items disagree"


def _presentations(connection: sqlite3.Connection) -> Iterator[str]:
    yield from _without_event(connection, "present", "presentations")
    rows = connection.execute("""
        SELECT e.seq FROM events e WHERE e.kind = 'present' AND (SELECT group_concat(value) FROM json_each(e.payload, '$.order'))
          IS NOT (SELECT group_concat(response_uid) FROM (SELECT response_uid FROM presentations t WHERE t.seq = e.seq ORDER BY position))
        ORDER BY e.seq""")
    for (seq,) in rows:
        yield f"event {seq} (present) and its rows in presentations disagree"


def _targets(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute("""
        SELECT seq, kind FROM events WHERE (kind IN ('undo', 'redo')) <> (target_seq IS NOT NULL)
          OR target_seq IS NOT NULL AND target_seq IS NOT said(payload, 'target') ORDER BY seq""")
    for seq, kind in rows:
        yield f"event {seq} ({kind}) and its target disagree"


def _conversations(connection: sqlite3.Connection) -> Iterator[str]:
    """Content addresses, from the roots down: a child's covers its parent's."""
    rows = connection.execute("SELECT n.id, n.hash, n.role, n.content, p.hash FROM nodes n LEFT JOIN nodes p ON p.id = n.parent_id ORDER BY n.id")
    for number, address, role, content, parent in rows:
        if message_hash(parent or START, role, content) != address:
            yield f"message {number} is not what its hash says"
    for uid, number in connection.execute("SELECT uid, id FROM prompts ORDER BY id"):
        if Prompt(tuple(Message(role, content) for role, content in connection.execute(_MESSAGES, (number,)))).uid != uid:
            yield f"prompt {uid} is not what its name says"


def _counts(connection: sqlite3.Connection) -> Iterator[str]:
    for difference in state.differences(connection):
        yield f"what is counted along is wrong: {difference}"
    for (number,) in connection.execute("SELECT id FROM nodes WHERE id NOT IN (SELECT id FROM search_docsize)"):
        yield f"message {number} cannot be found by its words"


_CHECKS = (_file, _layout, chain.breaks, _types, _rankings, _presentations, _targets, _conversations, _counts)
CHECKS = len(_CHECKS)
