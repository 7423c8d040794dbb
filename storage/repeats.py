"""Sets that are judged once more, long after: what tells how far an operator agrees with themselves.

A repeat is a set of its own with the purpose 'repeat' and the same answers in other places. Its rankings and scores are not learned from: the
judgement that was learned from stays the only one.
"""

from __future__ import annotations

import sqlite3

from storage.records import Judgement, Ranking, Rating

REPEAT = "repeat"
"""The purpose of such sets."""
LONG_AGO = 20
"""Sets that came since, at least: what was read within the hour is remembered."""


def repeatable(connection: sqlite3.Connection, place: float) -> str | None:
    """A set whose ranking stands and that was not repeated yet, with LONG_AGO sets after it; None where there is none, or the newest is a repeat.

    `place` in [0, 1): how far between the oldest and the newest of them to begin looking.
    """
    newest = connection.execute("SELECT id, purpose FROM sample_sets ORDER BY id DESC LIMIT 1").fetchone()
    if newest is None or newest[1] == REPEAT:
        return None
    last = newest[0] - LONG_AGO
    for first in (int(last * place), 0):
        found = connection.execute(
            f"""SELECT s.uid FROM sample_sets s
                WHERE s.id BETWEEN ? AND ? AND s.purpose = 'judge'
                  AND EXISTS (SELECT 1 FROM v_live e WHERE e.set_id = s.id AND e.kind = 'ranking')
                  AND NOT EXISTS (SELECT 1 FROM sample_sets r WHERE r.prompt_id = s.prompt_id AND r.purpose = '{REPEAT}')
                ORDER BY s.id LIMIT 1""",
            (first, last),
        ).fetchone()
        if found is not None:
            return str(found[0])
    return None


NOT_SAID_AGAIN = f"(e.kind NOT IN ('ranking', 'rating') OR (SELECT purpose FROM sample_sets WHERE id = e.set_id) <> '{REPEAT}')"
"""Of an event `e`: it is none that says again what was learned already."""


def said_again(purpose: str, judgement: Judgement) -> bool:
    """The same, of a judgement of a set with this purpose."""
    return purpose == REPEAT and isinstance(judgement, Ranking | Rating)
