"""The hash chain over the events: every link covers its event and the link before it. Undo and redo are links too."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from storage.hashes import EVENT_COLUMNS, START, event_hash


def link(connection: sqlite3.Connection, seq: int) -> None:
    """Adds the link of an event that was just written. Runs inside the writer's transaction."""
    last = connection.execute("SELECT sha256 FROM chain ORDER BY seq DESC LIMIT 1").fetchone()
    event = connection.execute(f"SELECT {EVENT_COLUMNS} WHERE e.seq = ?", (seq,)).fetchone()
    connection.execute("INSERT INTO chain VALUES (?, ?)", (seq, event_hash(last[0] if last else START, tuple(event))))


def breaks(connection: sqlite3.Connection) -> Iterator[str]:
    """Where the chain does not hold, in words. After a break it is followed from what is written there."""
    previous = START
    rows = connection.execute(f"SELECT c.sha256, {EVENT_COLUMNS} LEFT JOIN chain c ON c.seq = e.seq ORDER BY e.seq")
    for written, *event in rows:
        if written is None:
            yield f"event {event[0]} has no link in the hash chain"
            continue
        if event_hash(previous, tuple(event)) != written:
            yield f"the hash chain breaks at event {event[0]}: it, or one before it, is not what was written"
        previous = written
    orphans = connection.execute("SELECT seq FROM chain WHERE seq NOT IN (SELECT seq FROM events) ORDER BY seq")
    for (seq,) in orphans:
        yield f"event {seq} is in the hash chain and not in the log"
