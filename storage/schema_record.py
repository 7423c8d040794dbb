"""The migrations that made the record whole: the hash chain, messages as a tree, and where everything comes from. See schema.py.

Two of them build tables anew, which is why foreign keys are off while migrations run; they are checked before each one commits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.hashes import EVENT_COLUMNS, START, event_hash, message_hash
from storage.migration import append_only

if TYPE_CHECKING:
    from sqlite_utils import Database


def m008_chain(db: Database) -> None:
    """Every event's hash covers the event and the hash before it: nothing is lost or altered unnoticed."""
    db.execute("""
        CREATE TABLE chain (
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          sha256 TEXT NOT NULL                    -- see hashes.event_hash
        ) STRICT""")
    previous = START
    for event in db.execute(f"SELECT {EVENT_COLUMNS} ORDER BY e.seq"):
        previous = event_hash(previous, tuple(event))
        db.execute("INSERT INTO chain VALUES (?, ?)", (event[0], previous))
    append_only(db, "chain")


def m009_messages(db: Database) -> None:
    """Messages become a content-addressed tree: answers, corrections and forks of a conversation share what came before."""
    _drop_views(db)
    db.execute("""
        CREATE TABLE nodes (                      -- one message at one place of a conversation
          id INTEGER PRIMARY KEY,
          hash TEXT NOT NULL UNIQUE,              -- of the hash of its parent, role and content: see hashes.message_hash
          parent_id INTEGER REFERENCES nodes(id),
          role TEXT NOT NULL,
          content TEXT NOT NULL,
          origin TEXT NOT NULL                    -- of its first writer
            CHECK (origin IN ('operator', 'dataset', 'model', 'correction', 'imported'))
        ) STRICT""")
    db.execute("CREATE INDEX nodes_parent ON nodes(parent_id)")
    db.conn.create_function("message_hash", 3, message_hash, deterministic=True)
    _plant_prompts(db)
    _plant_answers(db)
    db.execute("DROP TABLE messages")
    append_only(db, "nodes", "prompts", "responses", "corrections", "demonstrations")


def _drop_views(db: Database) -> None:
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall():
        db.execute(f"DROP VIEW {name}")


def _plant_prompts(db: Database) -> None:
    """Level by level, so that a parent is there before its children."""
    db.execute("CREATE TEMP TABLE tips (prompt_id INTEGER PRIMARY KEY, node_id INTEGER, hash TEXT)")
    (depth,) = db.execute("SELECT coalesce(max(position) + 1, 0) FROM messages").fetchone()
    for position in range(depth):
        db.execute(f"""
            CREATE TEMP TABLE level AS
            SELECT m.prompt_id, t.node_id AS parent_id, m.role, m.content, message_hash(coalesce(t.hash, '{START}'), m.role, m.content) AS hash,
              CASE WHEN m.role = 'assistant' THEN 'model' WHEN s.source = 'set' THEN 'dataset' ELSE 'operator' END AS origin
            FROM messages m LEFT JOIN tips t ON t.prompt_id = m.prompt_id
            LEFT JOIN sample_sets s ON s.id = (SELECT min(id) FROM sample_sets f WHERE f.prompt_id = m.prompt_id)
            WHERE m.position = {position}""")
        _plant(db)
        db.execute("INSERT OR REPLACE INTO tips SELECT l.prompt_id, n.id, n.hash FROM level l JOIN nodes n ON n.hash = l.hash")
        db.execute("DROP TABLE level")
    _rebuild(db, "prompts", """
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,               -- content address of the conversation
          node_id INTEGER NOT NULL REFERENCES nodes(id)  -- its last message
        """, "SELECT p.id, p.uid, t.node_id FROM prompts p JOIN tips t ON t.prompt_id = p.id")  # fmt: skip
    db.execute("DROP TABLE tips")


def _plant(db: Database) -> None:
    """The level's messages that are not in the tree yet."""
    db.execute("""
        INSERT INTO nodes (hash, parent_id, role, content, origin)
        SELECT hash, parent_id, role, content, origin FROM level l
        WHERE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.hash = l.hash) GROUP BY hash""")


def _plant_answers(db: Database) -> None:
    """Everything said to a prompt is a child of its last message."""
    texts = {
        "responses": "SELECT r.id, r.text, s.prompt_id FROM responses r JOIN sample_sets s ON s.id = r.set_id",
        "corrections": """SELECT c.seq AS id, c.text, s.prompt_id
            FROM corrections c JOIN events e ON e.seq = c.seq JOIN sample_sets s ON s.id = e.set_id""",
        "demonstrations": "SELECT d.seq AS id, d.text, s.prompt_id FROM demonstrations d JOIN sample_sets s ON s.id = d.set_id",
    }
    for (table, layout), origin in zip(_ANSWERED.items(), ("model", "correction", "operator"), strict=True):
        db.execute(f"""
            CREATE TEMP TABLE level AS
            SELECT a.id, n.id AS parent_id, 'assistant' AS role, a.text AS content, message_hash(n.hash, 'assistant', a.text) AS hash,
              '{origin}' AS origin
            FROM ({texts[table]}) a
            JOIN prompts p ON p.id = a.prompt_id JOIN nodes n ON n.id = p.node_id""")
        _plant(db)
        db.execute("CREATE INDEX temp.level_id ON level(id)")
        columns, rows = layout
        _rebuild(db, table, columns, rows + " JOIN level l ON l.id = o.rowid JOIN nodes n ON n.hash = l.hash")
        db.execute("DROP TABLE level")


_ANSWERED = {
    "responses": ("""
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          slot INTEGER NOT NULL CHECK (slot >= 0),
          node_id INTEGER NOT NULL REFERENCES nodes(id),  -- its text
          origin TEXT NOT NULL,                   -- 'drawn' by the engine, or where an imported one came from
          policy TEXT CHECK (policy IN ('acting', 'adapter', 'base')),
          version TEXT,                           -- no foreign key: an answer is kept whatever wrote it
          h_epoch INTEGER,
          beta REAL,
          seed INTEGER,
          temperature REAL,
          max_new_tokens INTEGER,
          prompt_ids TEXT,                        -- JSON list
          stop TEXT CHECK (stop IN ('eos', 'length', 'stopped')),
          kl REAL,
          utc TEXT NOT NULL,
          UNIQUE (set_id, slot),
          CHECK (origin <> 'drawn' OR (policy IS NOT NULL AND version IS NOT NULL AND h_epoch IS NOT NULL AND beta IS NOT NULL
            AND seed IS NOT NULL AND temperature IS NOT NULL AND max_new_tokens IS NOT NULL AND prompt_ids IS NOT NULL
            AND stop IS NOT NULL AND kl IS NOT NULL))
        """, """SELECT o.id, o.uid, o.set_id, o.slot, n.id, 'drawn', o.policy, o.version, o.h_epoch, o.beta, o.seed, o.temperature,
          o.max_new_tokens, o.prompt_ids, o.stop, o.kl, o.utc FROM responses o"""),
    "corrections": ("""
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          response_id INTEGER NOT NULL REFERENCES responses(id),
          node_id INTEGER NOT NULL REFERENCES nodes(id)
        """, "SELECT o.seq, o.response_id, n.id FROM corrections o"),
    "demonstrations": ("""
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          set_id INTEGER NOT NULL REFERENCES sample_sets(id),
          node_id INTEGER NOT NULL REFERENCES nodes(id)
        """, "SELECT o.seq, o.set_id, n.id FROM demonstrations o"),
}  # fmt: skip


def m010_origins(db: Database) -> None:
    """Who judged, with which build of the model, and what was imported from where."""
    db.execute("""
        CREATE TABLE operators (
          name TEXT PRIMARY KEY,
          kind TEXT NOT NULL CHECK (kind IN ('person', 'program', 'import')),
          utc TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""")
    db.execute("INSERT INTO operators SELECT operator, iif(instr(operator, ':'), 'program', 'person'), min(utc) FROM sittings GROUP BY operator")
    db.execute("""
        CREATE TABLE base_builds (                -- the base as it was loaded; a hash is NULL where it was not told
          id INTEGER PRIMARY KEY,
          base_id INTEGER NOT NULL REFERENCES base_models(id),
          weights_sha256 TEXT,
          tokenizer_sha256 TEXT,
          template_sha256 TEXT,
          quantize TEXT NOT NULL,
          utc TEXT NOT NULL
        ) STRICT""")
    db.execute("INSERT INTO base_builds SELECT NULL, base_id, NULL, NULL, NULL, quantize, min(utc) FROM sittings GROUP BY base_id, quantize")
    _rebuild(db, "sittings", """
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          build_id INTEGER REFERENCES base_builds(id),  -- NULL: an import, for which no model was loaded
          operator TEXT NOT NULL REFERENCES operators(name),
          app_version TEXT NOT NULL,
          settings TEXT NOT NULL,                 -- JSON of its options
          utc TEXT NOT NULL
        """, """SELECT o.id, o.uid, b.id, o.operator, o.app_version, o.settings, o.utc
          FROM sittings o JOIN base_builds b ON b.base_id = o.base_id AND b.quantize = o.quantize""")  # fmt: skip
    _imports(db)
    db.execute("""
        CREATE TABLE ranking_strengths (          -- how much better the better ones are, where it was said: 0 unsure … 3 significantly
          seq INTEGER PRIMARY KEY REFERENCES events(seq),
          strength INTEGER NOT NULL CHECK (strength BETWEEN 0 AND 3)
        ) STRICT""")
    db.execute("""
        CREATE TABLE prequential (                -- what a learner thought of a judgement before it learned from it
          id INTEGER PRIMARY KEY,
          seq INTEGER NOT NULL REFERENCES events(seq),
          judge TEXT NOT NULL,
          log_loss REAL,                          -- nats
          "right" REAL CHECK ("right" BETWEEN 0 AND pairs),  -- compared pairs in the operator's order, a tie being half of one
          pairs INTEGER CHECK (pairs >= 0),
          utc TEXT NOT NULL
        ) STRICT""")
    db.execute("CREATE INDEX prequential_seq ON prequential(seq)")
    append_only(db, "operators", "base_builds", "sittings", "imports", "import_items", "ranking_strengths", "prequential")


def _imports(db: Database) -> None:
    db.execute("""
        CREATE TABLE imports (
          id INTEGER PRIMARY KEY,
          uid TEXT NOT NULL UNIQUE,
          sha256 TEXT NOT NULL,                   -- of the file
          format TEXT NOT NULL,
          name TEXT NOT NULL,                     -- of the file, without its folder
          rows INTEGER NOT NULL CHECK (rows >= 0),
          skipped INTEGER NOT NULL CHECK (skipped >= 0),
          sitting_id INTEGER NOT NULL REFERENCES sittings(id),
          utc TEXT NOT NULL
        ) STRICT""")
    db.execute("CREATE INDEX imports_file ON imports(sha256, format)")
    db.execute("""
        CREATE TABLE import_items (               -- one judged item of a file: what is here is not imported again
          sha256 TEXT PRIMARY KEY,                -- of its content
          import_id INTEGER NOT NULL REFERENCES imports(id),
          set_id INTEGER REFERENCES sample_sets(id)
        ) STRICT, WITHOUT ROWID""")


def _rebuild(db: Database, table: str, columns: str, rows: str) -> None:
    """A table with other columns, filled from its old self; indices and triggers of the old one are gone."""
    db.execute(f"CREATE TABLE new_{table} ({columns}) STRICT")
    db.execute(f"INSERT INTO new_{table} {rows}")
    db.execute(f"DROP TABLE {table}")
    db.execute(f"ALTER TABLE new_{table} RENAME TO {table}")
