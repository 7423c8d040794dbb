"""Migrations of what is said beside judgements: marks, notes, what was presented, how taps were taken, what imported rows have. See schema.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import state
from storage.migration import append_only

if TYPE_CHECKING:
    from sqlite_utils import Database


def m013_silence(db: Database) -> None:
    """A stretch in which silence counted teaches, so it can be undone."""
    db.execute("ALTER TABLE arms ADD COLUMN since REAL")
    (guard,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'event_kinds_no_update'").fetchone()
    db.execute("DROP TRIGGER event_kinds_no_update")
    db.execute("UPDATE event_kinds SET teaches = 1, undoable = 1 WHERE kind = 'arm'")
    db.execute(guard)
    state.recount(db.conn)


def m014_kept(db: Database) -> None:
    """What rows of imported files have beside messages and judgements, so that it is lost neither here nor on the way out."""
    db.execute("""
        CREATE TABLE kept_rows (
          set_id INTEGER PRIMARY KEY REFERENCES sample_sets(id),
          teaches INTEGER NOT NULL CHECK (teaches IN (0, 1)),  -- 0: shown and kept, and nothing learns from it
          content TEXT NOT NULL                   -- JSON: messages as they were, margin, scores, other columns
        ) STRICT""")
    db.execute("CREATE INDEX kept_rows_teaches ON kept_rows(teaches) WHERE NOT teaches")
    append_only(db, "kept_rows")


def m015_sampling(db: Database) -> None:
    """How answers are drawn, beside the temperature; NULL in rows from before, which were drawn plainly, and in imported ones. Which of their tokens
    were written by the model in thought, and which of those by nobody: a thought that was too long is closed."""
    numbers = ("top_p REAL", "top_k INTEGER", "min_p REAL", "repetition_penalty REAL")
    for column in (*numbers, "stop_texts TEXT", "max_thinking_tokens INTEGER", "thought_tokens INTEGER", "forced_tokens INTEGER"):
        db.execute(f"ALTER TABLE responses ADD COLUMN {column}")


def m016_critiques(db: Database) -> None:
    """What should be otherwise, in words; said again with another strength it replaces the earlier one."""
    db.execute("INSERT INTO event_kinds VALUES ('critique', 1, 1, 'replaces')")
    db.execute("""
        CREATE TABLE critiques (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          response_id INTEGER REFERENCES responses(id),  -- NULL: about the whole set
          text TEXT NOT NULL,
          scope TEXT NOT NULL CHECK (scope IN ('prompt', 'all')),
          strength INTEGER NOT NULL CHECK (strength BETWEEN -3 AND 3)  -- 0: off
        ) STRICT""")
    append_only(db, "critiques")
    db.execute("""
        CREATE VIEW v_critiques AS                -- live ones
        SELECT e.seq, e.utc, s.uid AS set_uid, p.uid AS prompt_uid, tip.content AS prompt,
               r.uid AS response_uid, n.content AS answer, c.text, c.scope, c.strength
        FROM critiques c JOIN v_live e ON e.seq = c.seq JOIN sample_sets s ON s.id = c.set_id
        JOIN prompts p ON p.id = s.prompt_id JOIN nodes tip ON tip.id = p.node_id
        LEFT JOIN responses r ON r.id = c.response_id LEFT JOIN nodes n ON n.id = r.node_id""")


def m007_marks(db: Database) -> None:
    """An answer that is still being drawn has no row yet: where that may be, it is named by its uid."""
    db.execute("""
        INSERT INTO event_kinds VALUES
          ('span', 0, 1, 'kept'), ('comment', 0, 1, 'kept'), ('flag', 0, 1, 'kept'),
          ('arm', 0, 0, 'kept'), ('pace', 0, 0, 'kept'), ('present', 0, 0, 'kept')""")
    db.execute("""
        CREATE TABLE arms (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          response_uid TEXT NOT NULL,
          armed INTEGER NOT NULL CHECK (armed IN (0, 1)),
          seconds REAL NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE paces (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          tokens_per_second REAL NOT NULL CHECK (tokens_per_second > 0),
          seconds REAL NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE presentations (
          seq INTEGER NOT NULL REFERENCES events(seq),
          position INTEGER NOT NULL,
          response_uid TEXT NOT NULL,
          seconds REAL NOT NULL,
          PRIMARY KEY (seq, position)
        ) STRICT, WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE spans (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          response_id INTEGER NOT NULL REFERENCES responses(id),
          start INTEGER NOT NULL CHECK (start >= 0),  -- characters
          stop INTEGER NOT NULL CHECK (stop > start),
          label TEXT NOT NULL,
          value REAL
        ) STRICT""")
    db.execute("""
        CREATE TABLE comments (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          response_id INTEGER REFERENCES responses(id),
          text TEXT NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE flags (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          response_id INTEGER NOT NULL REFERENCES responses(id),
          label TEXT NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE calibrations (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          family TEXT NOT NULL CHECK (family IN ('uniform', 'gamma')),
          low REAL NOT NULL CHECK (low >= 0),     -- seconds from seeing to pressing
          high REAL NOT NULL CHECK (high > low),
          shape REAL CHECK (shape > 0),
          scale REAL CHECK (scale > 0),           -- seconds
          connection TEXT NOT NULL,
          delays TEXT NOT NULL,                   -- JSON list of seconds, as measured
          CHECK (family = 'uniform' OR (shape IS NOT NULL AND scale IS NOT NULL))
        ) STRICT""")
    db.execute("CREATE INDEX calibrations_connection ON calibrations(connection, seq)")
    db.execute("""
        INSERT INTO calibrations
        SELECT e.seq, p.value ->> 'family', p.value ->> 'low', p.value ->> 'high', p.value ->> 'shape', p.value ->> 'scale', p.value ->> 'connection',
               p.value -> 'delays'
        FROM events e JOIN (SELECT seq, payload AS value FROM events) p ON p.seq = e.seq WHERE e.kind = 'calibration'""")
    append_only(db, "arms", "paces", "presentations", "spans", "comments", "flags", "calibrations")
