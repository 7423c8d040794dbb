"""The migration that makes a million events quick to ask: views anew, and a few counts that are kept while the log grows. See schema.py.

The views say what is true. `tallies`, `judged_prompts` and `blind_outcomes` hold what they would say, row by row, because counting
a million events takes seconds; `state.py` keeps them and `tamer verify` counts again. They are not evidence and not append-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import state

if TYPE_CHECKING:
    from sqlite_utils import Database


def m011_state(db: Database) -> None:
    """What is live, what beats what, which versions are stale, and how much there is of everything."""
    for view, definition in VIEWS.items():
        db.execute(f"CREATE VIEW {view} AS {definition}")
    db.execute("CREATE INDEX sample_sets_purpose ON sample_sets(purpose)")
    db.execute("CREATE INDEX events_sitting ON events(sitting_id)")
    db.execute("CREATE TABLE tallies (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID")
    db.execute("""
        CREATE TABLE judged_prompts (
          prompt_uid TEXT PRIMARY KEY,
          n INTEGER NOT NULL                      -- standing judgements that teach, and skips
        ) STRICT, WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE blind_outcomes (             -- v_blind, kept
          set_id INTEGER PRIMARY KEY REFERENCES sample_sets(id),
          seq INTEGER NOT NULL,
          policy TEXT NOT NULL,
          version TEXT NOT NULL,
          beta REAL NOT NULL,
          outcome REAL NOT NULL
        ) STRICT""")
    db.execute("CREATE INDEX blind_outcomes_seq ON blind_outcomes(seq, policy, version, beta, outcome)")
    state.recount(db.conn)


def m012_search(db: Database) -> None:
    """Words of prompts, answers and what was written, for `tamer log --search`. It holds no text of its own, only where the words are."""
    db.execute("CREATE VIRTUAL TABLE search USING fts5(content, content='nodes', content_rowid='id')")
    db.execute("INSERT INTO search(search) VALUES ('rebuild')")
    for table in ("prompts", "responses", "corrections", "demonstrations"):
        db.execute(f"CREATE INDEX {table}_node ON {table}(node_id)")


VIEWS = {
    "v_undone": """                               -- the last word on it is an undo
        SELECT e.* FROM events u JOIN events e ON e.seq = u.target_seq
        WHERE u.kind = 'undo' AND NOT EXISTS (SELECT 1 FROM events w WHERE w.target_seq = u.target_seq AND w.seq > u.seq)""",
    "v_standing": """                             -- not undone; an earlier rating stands behind a later one
        SELECT e.* FROM events e WHERE e.kind NOT IN ('undo', 'redo') AND coalesce(
          (SELECT w.kind FROM events w WHERE w.target_seq = e.seq ORDER BY w.seq DESC LIMIT 1), 'redo') <> 'undo'""",
    "v_live": """                                 -- what is learned from: standing, and not replaced by a newer one
        SELECT e.* FROM v_standing e
        WHERE (SELECT k.again FROM event_kinds k WHERE k.kind = e.kind) <> 'replaces' OR NOT EXISTS (
          SELECT 1 FROM v_standing n WHERE n.kind = e.kind AND n.subject = e.subject AND n.seq > e.seq)""",
    "v_chain": """                                -- each event's hash and the one before it
        SELECT seq, lag(sha256, 1, '0000000000000000000000000000000000000000000000000000000000000000') OVER (ORDER BY seq) AS prev, sha256
        FROM chain""",
    "messages": """                               -- every prompt as a list; the tree behind it is in nodes
        WITH RECURSIVE up(prompt_id, node_id, height) AS (
          SELECT id, node_id, 0 FROM prompts
          UNION ALL SELECT u.prompt_id, n.parent_id, u.height + 1 FROM up u JOIN nodes n ON n.id = u.node_id WHERE n.parent_id IS NOT NULL)
        SELECT u.prompt_id, count(*) OVER (PARTITION BY u.prompt_id) - 1 - u.height AS position, n.role, n.content
        FROM up u JOIN nodes n ON n.id = u.node_id""",
    "v_answers": """                              -- answers with their texts
        SELECT r.id, r.uid, s.uid AS set_uid, p.uid AS prompt_uid, tip.content AS prompt, r.slot, n.content AS text, n.hash AS node,
               r.origin, r.policy, r.version, r.h_epoch, r.beta, r.seed, r.temperature, r.max_new_tokens, r.stop, r.kl, r.utc
        FROM responses r JOIN nodes n ON n.id = r.node_id JOIN sample_sets s ON s.id = r.set_id
        JOIN prompts p ON p.id = s.prompt_id JOIN nodes tip ON tip.id = p.node_id""",
    "v_pairs": """                                -- ranked beat worse ranked and unranked; ties and two unranked make none
        SELECT e.seq, s.uid AS set_uid, p.uid AS prompt_uid, chosen.uid AS chosen, rejected.uid AS rejected,
               c.rank AS chosen_rank, r.rank AS rejected_rank,
               (SELECT g.strength FROM ranking_strengths g WHERE g.seq = e.seq) AS strength
        FROM v_live e
        JOIN sample_sets s ON s.id = e.set_id
        JOIN prompts p ON p.id = s.prompt_id
        JOIN ranking_items c ON c.seq = e.seq
        JOIN responses chosen ON chosen.id = c.response_id
        JOIN responses rejected ON rejected.set_id = s.id
        LEFT JOIN ranking_items r ON r.seq = e.seq AND r.response_id = rejected.id
        WHERE e.kind = 'ranking' AND rejected.id <> chosen.id AND (r.rank IS NULL OR c.rank < r.rank)""",
    "v_ratings": """                              -- live ones
        SELECT e.seq, e.utc, s.uid AS set_uid, p.uid AS prompt_uid, tip.content AS prompt, r.uid AS response_uid, n.content AS answer,
               t.criterion, t.value
        FROM ratings t JOIN v_live e ON e.seq = t.seq JOIN responses r ON r.id = t.response_id JOIN nodes n ON n.id = r.node_id
        JOIN sample_sets s ON s.id = r.set_id JOIN prompts p ON p.id = s.prompt_id JOIN nodes tip ON tip.id = p.node_id""",
    "v_corrections": """                          -- live ones: the written text beats the answer
        SELECT e.seq, e.utc, s.uid AS set_uid, p.uid AS prompt_uid, tip.content AS prompt, r.uid AS response_uid,
               n.content AS answer, w.content AS text
        FROM corrections c JOIN v_live e ON e.seq = c.seq JOIN nodes w ON w.id = c.node_id
        JOIN responses r ON r.id = c.response_id JOIN nodes n ON n.id = r.node_id
        JOIN sample_sets s ON s.id = r.set_id JOIN prompts p ON p.id = s.prompt_id JOIN nodes tip ON tip.id = p.node_id""",
    "v_demonstrations": """                       -- live ones
        SELECT e.seq, e.utc, s.uid AS set_uid, p.uid AS prompt_uid, tip.content AS prompt, w.content AS text
        FROM demonstrations d JOIN v_live e ON e.seq = d.seq JOIN nodes w ON w.id = d.node_id
        JOIN sample_sets s ON s.id = d.set_id JOIN prompts p ON p.id = s.prompt_id JOIN nodes tip ON tip.id = p.node_id""",
    "v_taps": """                                 -- live ones; the answer is what was shown where it was never finished
        SELECT t.seq, e.utc, t.value, t.key, t.seconds, t.wall, t.repeat, t.whole, s.uid AS set_uid, p.uid AS prompt_uid,
               tip.content AS prompt, t.response_uid,
               coalesce((SELECT n.content FROM responses r JOIN nodes n ON n.id = r.node_id WHERE r.uid = t.response_uid),
                 (SELECT group_concat(text, '') FROM
                   (SELECT text FROM shown_tokens w WHERE w.response_uid = t.response_uid ORDER BY position))) AS answer
        FROM taps t JOIN v_live e ON e.seq = t.seq
        JOIN sample_sets s ON s.id = e.set_id JOIN prompts p ON p.id = s.prompt_id JOIN nodes tip ON tip.id = p.node_id""",
    "v_versions": """                             -- stale: it, or a version it came from, learned from what is now undone
        WITH RECURSIVE stale(version) AS (
          SELECT v.version FROM v_undone u JOIN run_events re ON re.seq = u.seq
            JOIN version_runs vr ON vr.run_id = re.run_id JOIN versions v ON v.id = vr.version_id
          UNION
          SELECT child.version FROM stale JOIN versions child ON child.parent = stale.version)
        SELECT v.*, v.version IN (SELECT version FROM stale) AS stale,
               coalesce(v.version = (SELECT version FROM activations ORDER BY id DESC LIMIT 1), 0) AS acting
        FROM versions v""",
    "v_blind": """                                -- the acting slot against the base slot: 1 won, 0.5 tied, 0 lost
        WITH slots AS NOT MATERIALIZED (
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
          WHERE NOT EXISTS (SELECT 1 FROM v_live e WHERE e.set_id = s.set_id AND e.kind = 'ranking')),
        judged AS (                               -- unranked is worse than any rank; two unranked are not compared
          SELECT *, coalesce(base, 1e9) - coalesce(acting, 1e9) AS better FROM ranked
          WHERE acting IS NOT NULL OR base IS NOT NULL
          UNION ALL SELECT *, acting - base FROM rated)
        SELECT set_id, seq, set_uid, policy, version, beta, CASE WHEN better > 0 THEN 1.0 WHEN better < 0 THEN 0.0 ELSE 0.5 END AS outcome
        FROM judged j
        WHERE NOT EXISTS (SELECT 1 FROM events p WHERE p.set_id = j.set_id AND p.kind = 'peek' AND p.seq < j.seq)""",
}  # fmt: skip
