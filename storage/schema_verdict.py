"""What says how far a verdict can be trusted: the gate's canary, margins that were foreseen, answers that were drawn and not shown; and which
versions learned from what does not hold any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.migration import append_only

if TYPE_CHECKING:
    from sqlite_utils import Database


def m017_verdict(db: Database) -> None:
    """A version's figures besides its wins, how far a ranking was expected to go the other way, and what best-of-n left out."""
    db.execute("ALTER TABLE versions ADD COLUMN canary TEXT")
    db.execute("ALTER TABLE prequential ADD COLUMN margin REAL")
    db.execute("""
        CREATE TABLE selections (                 -- sets that show the best of more answers than they have places
          set_id INTEGER PRIMARY KEY REFERENCES sample_sets(id),
          drawn INTEGER NOT NULL CHECK (drawn >= 2),  -- by the acting policy
          judge TEXT NOT NULL,                    -- who chose
          scores TEXT NOT NULL,                   -- JSON: uid of each answer that was chosen, and its score
          left_out TEXT NOT NULL                  -- JSON list of the others: seed, score, token_ids, text
        ) STRICT""")
    append_only(db, "selections")


def m018_stale(db: Database) -> None:
    """A wish that was switched off or given another strength is not what a version learned from, as if it had been undone."""
    db.execute("DROP VIEW v_versions")
    db.execute("""
        CREATE VIEW v_versions AS                 -- stale: it, or a version it came from, learned from what is undone now, or said otherwise in words
        WITH RECURSIVE withdrawn(seq) AS MATERIALIZED (
          SELECT u.seq FROM v_undone u WHERE NOT EXISTS (SELECT 1 FROM critiques k WHERE k.seq = u.seq AND k.strength = 0)
          UNION
          SELECT c.seq FROM critiques c JOIN events e ON e.seq = c.seq WHERE c.strength <> 0 AND (
            EXISTS (SELECT 1 FROM v_standing n WHERE n.kind = 'critique' AND n.subject = e.subject AND n.seq > e.seq)
            OR c.scope = 'all' AND c.strength <> (
              SELECT d.strength FROM critiques d JOIN v_standing n ON n.seq = d.seq
              WHERE d.scope = 'all' AND d.text = c.text ORDER BY d.seq DESC LIMIT 1))),
        stale(version) AS (
          SELECT v.version FROM withdrawn u
            JOIN run_events re ON re.seq = u.seq
            JOIN version_runs vr ON vr.run_id = re.run_id JOIN versions v ON v.id = vr.version_id
          UNION
          SELECT child.version FROM stale JOIN versions child ON child.parent = stale.version)
        SELECT v.*, v.version IN (SELECT version FROM stale) AS stale,
               coalesce(v.version = (SELECT version FROM activations ORDER BY id DESC LIMIT 1), 0) AS acting
        FROM versions v""")
