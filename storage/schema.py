"""The tables, as named migrations: read this file from top to bottom to know what a database holds.

Everything here is evidence and append-only: triggers refuse UPDATE, DELETE and REPLACE. State (what is live, which version acts)
is never stored, it is a view over events. Integer keys join, text `uid`s name things outside the database. To extend the schema
add a function to MIGRATIONS; never edit one that was released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.migration import Migration, append_only
from storage.schema_marks import m007_marks, m013_silence, m014_kept, m015_sampling, m016_critiques
from storage.schema_record import m008_chain, m009_messages, m010_origins
from storage.schema_state import m011_state, m012_search
from storage.schema_verdict import m017_verdict, m018_stale

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x544D5231  # 'TMR1', in the file header: tells our files from other programs'


def m001_sittings(db: Database) -> None:
    """Whose database this is, and every run of the program over it."""
    db.execute("""
        CREATE TABLE base_models (
          id INTEGER PRIMARY KEY CHECK (id = 1),  -- one base per database
          base_hash TEXT NOT NULL UNIQUE,
          name TEXT NOT NULL,
          quantize TEXT NOT NULL,                 -- as first loaded; each sitting has its own
          parameters INTEGER NOT NULL,
          layers INTEGER NOT NULL,
          utc TEXT NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE sittings (
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          base_id INTEGER NOT NULL REFERENCES base_models(id),
          app_version TEXT NOT NULL,
          settings TEXT NOT NULL,                 -- JSON of its options
          operator TEXT NOT NULL,
          quantize TEXT NOT NULL,
          utc TEXT NOT NULL
        ) STRICT""")
    append_only(db, "base_models", "sittings")


def m002_answers(db: Database) -> None:
    """Prompts, the sets of answers shown together, and every token with its probabilities and time."""
    db.execute("""
        CREATE TABLE prompts (
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE                -- content address of the messages
        ) STRICT""")
    db.execute("""
        CREATE TABLE messages (
          prompt_id INTEGER NOT NULL REFERENCES prompts(id),
          position INTEGER NOT NULL,
          role TEXT NOT NULL,
          content TEXT NOT NULL,
          PRIMARY KEY (prompt_id, position)
        ) STRICT, WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE sample_sets (
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          sitting_id INTEGER NOT NULL REFERENCES sittings(id),
          prompt_id INTEGER NOT NULL REFERENCES prompts(id),
          source TEXT NOT NULL,                   -- where the prompt came from this time
          k INTEGER NOT NULL CHECK (k >= 1),
          purpose TEXT NOT NULL,
          blind_base TEXT,                        -- uids of answers not drawn yet, so no foreign key
          blind_acting TEXT,
          utc TEXT NOT NULL,
          CHECK ((blind_base IS NULL) = (blind_acting IS NULL))
        ) STRICT""")
    db.execute("CREATE INDEX sample_sets_prompt ON sample_sets(prompt_id)")
    db.execute("""
        CREATE TABLE responses (
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          slot INTEGER NOT NULL CHECK (slot >= 0),
          policy TEXT NOT NULL CHECK (policy IN ('acting', 'adapter', 'base')),
          version TEXT NOT NULL,                  -- no foreign key: an answer is kept whatever wrote it
          h_epoch INTEGER NOT NULL,
          beta REAL NOT NULL,
          seed INTEGER NOT NULL,
          temperature REAL NOT NULL,
          max_new_tokens INTEGER NOT NULL,
          prompt_ids TEXT NOT NULL,               -- JSON list
          text TEXT NOT NULL,
          stop TEXT NOT NULL CHECK (stop IN ('eos', 'length', 'stopped')),
          kl REAL NOT NULL,
          utc TEXT NOT NULL,
          UNIQUE (set_id, slot)
        ) STRICT""")
    db.execute("""
        CREATE TABLE tokens (
          response_id INTEGER NOT NULL REFERENCES responses(id),
          position INTEGER NOT NULL,
          token_id INTEGER NOT NULL,
          logprob REAL,                           -- under the distribution it was drawn from
          unbiased_logprob REAL,                  -- under the same policy without the bias
          seconds REAL,                           -- since the request
          PRIMARY KEY (response_id, position)
        ) STRICT, WITHOUT ROWID""")
    append_only(db, "prompts", "messages", "sample_sets", "responses", "tokens")


def m003_events(db: Database) -> None:
    """What the operator said: the log, and one typed table per kind that has more to say than its columns."""
    db.execute("""
        CREATE TABLE event_kinds (                -- a new kind of judgement is a new row
          kind TEXT PRIMARY KEY,
          teaches INTEGER NOT NULL CHECK (teaches IN (0, 1)),
          undoable INTEGER NOT NULL CHECK (undoable IN (0, 1)),
          again TEXT NOT NULL CHECK (again IN ('refused', 'replaces', 'kept'))  -- a second live one on the same subject
        ) STRICT, WITHOUT ROWID""")
    db.execute("""
        INSERT INTO event_kinds VALUES
          ('ranking', 1, 1, 'refused'), ('rating', 1, 1, 'replaces'), ('correction', 1, 1, 'replaces'),
          ('demonstration', 1, 1, 'replaces'), ('skip', 0, 1, 'kept'), ('peek', 0, 0, 'kept'),
          ('undo', 0, 0, 'kept'), ('redo', 0, 0, 'kept')""")
    db.execute("""
        CREATE TABLE events (
          seq INTEGER PRIMARY KEY AUTOINCREMENT,
          uid TEXT NOT NULL UNIQUE,
          kind TEXT NOT NULL REFERENCES event_kinds(kind),
          sitting_id INTEGER NOT NULL REFERENCES sittings(id),
          set_id INTEGER REFERENCES sample_sets(id),
          response_id INTEGER REFERENCES responses(id),
          subject TEXT,                           -- what it is about: see event_kinds.again
          target_seq INTEGER REFERENCES events(seq),
          utc TEXT NOT NULL,
          payload TEXT NOT NULL,                  -- the whole judgement as JSON
          CHECK ((kind IN ('undo', 'redo')) = (target_seq IS NOT NULL))
        ) STRICT""")
    db.execute("CREATE INDEX events_target ON events(target_seq, seq) WHERE target_seq IS NOT NULL")
    db.execute("CREATE INDEX events_set ON events(set_id, kind)")
    db.execute("CREATE INDEX events_subject ON events(kind, subject)")
    db.execute("""
        CREATE TABLE ranking_items (
          seq INTEGER NOT NULL REFERENCES events(seq),
          response_id INTEGER NOT NULL REFERENCES responses(id),
          rank INTEGER NOT NULL CHECK (rank >= 1),
          PRIMARY KEY (seq, response_id)
        ) STRICT, WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE ratings (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          response_id INTEGER NOT NULL REFERENCES responses(id),
          criterion TEXT NOT NULL,
          value INTEGER NOT NULL CHECK (value BETWEEN 1 AND 7)
        ) STRICT""")
    db.execute("CREATE INDEX ratings_response ON ratings(response_id)")
    db.execute("""
        CREATE TABLE corrections (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          response_id INTEGER NOT NULL REFERENCES responses(id),
          text TEXT NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE demonstrations (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          text TEXT NOT NULL
        ) STRICT""")
    append_only(db, "event_kinds", "events", "ranking_items", "ratings", "corrections", "demonstrations")


def m004_lineage(db: Database) -> None:
    """What was trained on which judgements, what came of it, and which version acted when."""
    db.execute("""
        CREATE TABLE runs (
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          sitting_id INTEGER REFERENCES sittings(id),  -- NULL: outside a sitting
          stage TEXT NOT NULL,
          seed INTEGER NOT NULL,
          steps INTEGER NOT NULL,
          seconds REAL NOT NULL,
          settings TEXT NOT NULL,                 -- JSON of the stage's settings
          utc TEXT NOT NULL
        ) STRICT""")
    db.execute("""
        CREATE TABLE run_events (
          run_id INTEGER NOT NULL REFERENCES runs(id),
          seq INTEGER NOT NULL REFERENCES events(seq),
          PRIMARY KEY (run_id, seq)
        ) STRICT, WITHOUT ROWID""")
    db.execute("CREATE INDEX run_events_seq ON run_events(seq)")
    db.execute("""
        CREATE TABLE versions (
          id INTEGER PRIMARY KEY,
          version TEXT NOT NULL UNIQUE,           -- 'v1', 'v2', …
          sitting_id INTEGER REFERENCES sittings(id),
          sha256 TEXT NOT NULL,                   -- of its files; '' for a refused one
          parent TEXT NOT NULL,                   -- a version, or 'base'
          stage TEXT NOT NULL,
          published INTEGER NOT NULL CHECK (published IN (0, 1)),
          reason TEXT NOT NULL,
          reason_code TEXT NOT NULL,
          seed INTEGER NOT NULL,
          kl REAL,
          win_rate REAL,
          h_epoch INTEGER NOT NULL,
          utc TEXT NOT NULL
        ) STRICT""")
    db.execute("CREATE INDEX versions_parent ON versions(parent)")
    db.execute("""
        CREATE TABLE version_runs (
          version_id INTEGER NOT NULL REFERENCES versions(id),
          position INTEGER NOT NULL,
          run_id INTEGER NOT NULL REFERENCES runs(id),
          PRIMARY KEY (version_id, position)
        ) STRICT, WITHOUT ROWID""")
    db.execute("CREATE INDEX version_runs_run ON version_runs(run_id)")
    db.execute("""
        CREATE TABLE activations (
          id INTEGER PRIMARY KEY,
          version TEXT NOT NULL,                  -- a published version, or 'base'
          why TEXT NOT NULL,
          sitting_id INTEGER REFERENCES sittings(id),
          utc TEXT NOT NULL
        ) STRICT""")
    append_only(db, "runs", "run_events", "versions", "version_runs", "activations")


def m005_views(db: Database) -> None:
    """State, derived: what is live, what beats what, which versions are stale, who won the blind comparisons."""
    db.execute("""
        CREATE VIEW v_undone AS                   -- the last word on it is an undo
        SELECT e.* FROM events u JOIN events e ON e.seq = u.target_seq
        WHERE u.kind = 'undo' AND u.seq = (SELECT max(w.seq) FROM events w WHERE w.target_seq = u.target_seq)""")
    db.execute("""
        CREATE VIEW v_standing AS                 -- not undone; an earlier rating stands behind a later one
        SELECT e.* FROM events e WHERE e.kind NOT IN ('undo', 'redo') AND coalesce(
          (SELECT w.kind FROM events w WHERE w.target_seq = e.seq ORDER BY w.seq DESC LIMIT 1), 'redo') <> 'undo'""")
    db.execute("""
        CREATE VIEW v_live AS                     -- what is learned from: standing, and not replaced by a newer one
        SELECT e.* FROM v_standing e JOIN event_kinds k ON k.kind = e.kind
        WHERE k.again <> 'replaces' OR NOT EXISTS (
          SELECT 1 FROM v_standing n WHERE n.kind = e.kind AND n.subject = e.subject AND n.seq > e.seq)""")
    db.execute("""
        CREATE VIEW v_pairs AS                    -- ranked beat worse ranked and unranked; ties and two unranked make none
        SELECT e.seq, s.uid AS set_uid, p.uid AS prompt_uid, chosen.uid AS chosen, rejected.uid AS rejected,
               c.rank AS chosen_rank, r.rank AS rejected_rank
        FROM v_live e
        JOIN sample_sets s ON s.id = e.set_id
        JOIN prompts p ON p.id = s.prompt_id
        JOIN ranking_items c ON c.seq = e.seq
        JOIN responses chosen ON chosen.id = c.response_id
        JOIN responses rejected ON rejected.set_id = s.id
        LEFT JOIN ranking_items r ON r.seq = e.seq AND r.response_id = rejected.id
        WHERE e.kind = 'ranking' AND rejected.id <> chosen.id AND (r.rank IS NULL OR c.rank < r.rank)""")
    db.execute("""
        CREATE VIEW v_versions AS                 -- stale: it, or a version it came from, learned from what is now undone
        WITH RECURSIVE stale(version) AS (
          SELECT v.version FROM v_undone u JOIN run_events re ON re.seq = u.seq
            JOIN version_runs vr ON vr.run_id = re.run_id JOIN versions v ON v.id = vr.version_id
          UNION
          SELECT child.version FROM stale JOIN versions child ON child.parent = stale.version)
        SELECT v.*, v.version IN (SELECT version FROM stale) AS stale,
               coalesce(v.version = (SELECT version FROM activations ORDER BY id DESC LIMIT 1), 0) AS acting
        FROM versions v""")
    db.execute("""
        CREATE VIEW v_blind AS                    -- the acting slot against the base slot: 1 won, 0.5 tied, 0 lost
        WITH slots AS (
          SELECT s.id AS set_id, s.uid AS set_uid, a.id AS acting_id, b.id AS base_id, a.policy, a.version, a.beta
          FROM sample_sets s JOIN responses a ON a.uid = s.blind_acting JOIN responses b ON b.uid = s.blind_base
          WHERE s.purpose = 'judge'),
        ranked AS (
          SELECT s.*, e.seq, ra.rank AS acting, rb.rank AS base
          FROM slots s JOIN v_live e ON e.set_id = s.set_id AND e.kind = 'ranking'
          LEFT JOIN ranking_items ra ON ra.seq = e.seq AND ra.response_id = s.acting_id
          LEFT JOIN ranking_items rb ON rb.seq = e.seq AND rb.response_id = s.base_id),
        rated AS (
          SELECT s.*, max(ea.seq, eb.seq) AS seq, ra.value AS acting, rb.value AS base
          FROM slots s
          JOIN ratings ra ON ra.response_id = s.acting_id AND ra.criterion = 'overall' JOIN v_live ea ON ea.seq = ra.seq
          JOIN ratings rb ON rb.response_id = s.base_id AND rb.criterion = 'overall' JOIN v_live eb ON eb.seq = rb.seq
          WHERE s.set_id NOT IN (SELECT set_id FROM ranked)),
        judged AS (                               -- unranked is worse than any rank; two unranked are not compared
          SELECT *, coalesce(base, 1e9) - coalesce(acting, 1e9) AS better FROM ranked
          WHERE acting IS NOT NULL OR base IS NOT NULL
          UNION ALL SELECT *, acting - base FROM rated)
        SELECT seq, set_uid, policy, version, beta, CASE WHEN better > 0 THEN 1.0 WHEN better < 0 THEN 0.0 ELSE 0.5 END AS outcome FROM judged j
        WHERE NOT EXISTS (SELECT 1 FROM events p WHERE p.set_id = j.set_id AND p.kind = 'peek' AND p.seq < j.seq)""")


def m006_taps(db: Database) -> None:
    """Praise and blame while an answer appears: the keys and the words, with their times on one clock. Credit is computed, never stored."""
    db.execute("INSERT INTO event_kinds VALUES ('tap', 1, 1, 'kept'), ('calibration', 0, 0, 'kept')")
    db.execute("""
        CREATE TABLE taps (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          response_uid TEXT NOT NULL,             -- of an answer that may still be drawn, so no foreign key
          value REAL NOT NULL CHECK (value BETWEEN -10 AND 10 AND value <> 0),
          key TEXT NOT NULL,
          seconds REAL NOT NULL,                  -- the terminal's monotonic clock
          wall TEXT NOT NULL,
          repeat INTEGER NOT NULL CHECK (repeat >= 1),
          whole INTEGER NOT NULL CHECK (whole IN (0, 1))  -- about the answer, not about words
        ) STRICT""")
    db.execute("CREATE INDEX taps_response ON taps(response_uid)")
    db.execute("""
        CREATE TABLE shown_tokens (               -- what was on the screen stays what it was, even where the rest is drawn anew
          response_uid TEXT NOT NULL,
          position INTEGER NOT NULL,
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          token_id INTEGER NOT NULL,
          text TEXT NOT NULL,
          seconds REAL NOT NULL,                  -- the clock of the taps
          h_epoch INTEGER NOT NULL,
          beta REAL NOT NULL,
          PRIMARY KEY (response_uid, position)
        ) STRICT, WITHOUT ROWID""")
    append_only(db, "taps", "shown_tokens")
    db.execute("""
        CREATE VIEW v_taps AS                     -- live taps, and the words that had appeared last
        SELECT t.*, s.uid AS set_uid, e.utc,
               (SELECT count(*) FROM shown_tokens k WHERE k.response_uid = t.response_uid AND k.seconds <= t.seconds) AS tokens_shown
        FROM v_live e JOIN taps t ON t.seq = e.seq JOIN sample_sets s ON s.id = e.set_id""")


MIGRATIONS: tuple[Migration, ...] = (
    m001_sittings,
    m002_answers,
    m003_events,
    m004_lineage,
    m005_views,
    m006_taps,
    m007_marks,
    m008_chain,
    m009_messages,
    m010_origins,
    m011_state,
    m012_search,
    m013_silence,
    m014_kept,
    m015_sampling,
    m016_critiques,
    m017_verdict,
    m018_stale,
)
VERSION = len(MIGRATIONS)
"""`user_version` of a database that is up to date."""
