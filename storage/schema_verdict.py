"""What says how far a verdict can be trusted: the gate's canary, margins that were foreseen, answers that were drawn and not shown."""

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
