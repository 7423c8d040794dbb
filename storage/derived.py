"""Preferences that follow from what was said, and that nobody said as such: a pure function of the record, in SQL.

- An answer that was drawn after a critique beats the one that was criticised, where the operator lets it stand: puts it first, the base's answer
  not beside it, or scores it as good. It counts for the first judged set of the same prompt after the critique, and only where the critique acted
  when that was drawn: one that was switched off or turned around by then asked for nothing. Who takes the critique back, or that ranking or score,
  takes the pair back. A standing wish is for every prompt and against no answer, whichever one it was said at: it makes no pair.
- What the operator wrote beats the model's own answers to the prompt, those of its set and of older versions (DITTO, Shaikh et al. 2024). Only
  answers that were there when it was written count, so that nothing that comes later changes what it says.

Every function takes a condition in SQL over live events `e` and its values.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Literal, NamedTuple

from storage.repeats import NOT_SAID_AGAIN, REPEAT
from storage.words import acted

Why = Literal["critique", "demonstration"]
GOOD = 5
"""Scores from here up let an answer stand."""
OLDER_ANSWERS = 4
"""To one prompt that what was written beats, beside those of its set: the newest of each older version, the newest versions first."""

_STANDS = f"""
    ((e.kind = 'ranking' AND NOT EXISTS (SELECT 1 FROM ranking_items w JOIN responses a ON a.id = w.response_id
        WHERE w.seq = e.seq AND w.rank = 1 AND a.policy IS NOT 'acting'))
     OR (e.kind = 'rating' AND EXISTS (SELECT 1 FROM ratings w JOIN responses a ON a.id = w.response_id
        WHERE w.seq = e.seq AND w.criterion = 'overall' AND w.value >= {GOOD} AND a.policy = 'acting')))"""
_FIRST = f"""
    NOT EXISTS (SELECT 1 FROM sample_sets s CROSS JOIN v_live f ON f.set_id = s.id
        WHERE s.prompt_id = was.prompt_id AND s.id > was.id AND s.id < later.id AND s.utc >= c.utc AND s.purpose <> '{REPEAT}'
          AND f.kind IN ('ranking', 'rating'))"""
_AFTER_CRITIQUES = f"""
    v_live e CROSS JOIN sample_sets later ON later.id = e.set_id AND later.purpose <> '{REPEAT}'
    CROSS JOIN sample_sets was ON was.prompt_id = later.prompt_id AND was.id < later.id
    CROSS JOIN v_standing c ON c.set_id = was.id AND c.kind = 'critique' AND c.utc <= later.utc
    JOIN critiques k ON k.seq = c.seq"""
"""Judgements `e`, and each critique `c` of an answer to the same prompt, in the set `was`, after which the answers of `e` were drawn."""
_STOOD = f"""
    e.kind IN ('ranking', 'rating') AND {NOT_SAID_AGAIN} AND {_STANDS}
      AND NOT EXISTS (SELECT 1 FROM v_standing o WHERE o.kind = 'critique' AND o.subject = c.subject AND o.seq < c.seq)
      AND {_FIRST} AND {acted("c", "k", "later")}"""
"""Of these: `e` lets an answer stand, `c` is where its words were said first, no set in between was judged, and the words acted."""


class Surpassed(NamedTuple):
    """A judgement says that its best answer, or what was written, beats this one too."""

    seq: int
    response_uid: str
    why: Why


class Followed(NamedTuple):
    """A critique, and the answer that was drawn after it and let stand."""

    critique: int  # seq
    response_uid: str


def surpassed(connection: sqlite3.Connection, where: str = "1", values: tuple[object, ...] = ()) -> list[Surpassed]:
    """In seq order."""
    criticised = connection.execute(
        f"""SELECT DISTINCT e.seq, b.uid FROM {_AFTER_CRITIQUES}
            JOIN responses b ON b.set_id = was.id AND (b.id = k.response_id OR (k.response_id IS NULL AND b.policy IS NOT 'base'))
            WHERE k.scope = 'prompt' AND {_STOOD} AND {where} ORDER BY e.seq, b.id""",
        values,
    )
    return sorted([*(Surpassed(seq, uid, "critique") for seq, uid in criticised), *_own_answers(connection, where, values)], key=lambda s: s.seq)


def followed(connection: sqlite3.Connection, where: str = "1", values: tuple[object, ...] = ()) -> list[Followed]:
    """In the order of the critiques; the condition is on the judgement that let the answer stand."""
    rows = connection.execute(
        f"""SELECT DISTINCT c.seq, a.uid FROM {_AFTER_CRITIQUES} JOIN responses a ON a.set_id = later.id
            WHERE a.id IN (SELECT w.response_id FROM ranking_items w WHERE w.seq = e.seq AND w.rank = 1
                UNION ALL SELECT w.response_id FROM ratings w WHERE w.seq = e.seq)
              AND {_STOOD} AND {where} ORDER BY c.seq, a.id""",
        values,
    )
    return [Followed(*row) for row in rows]


def _own_answers(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Surpassed]:
    rows = connection.execute(
        f"""SELECT e.seq, r.uid, r.version, r.set_id = e.set_id
            FROM v_live e CROSS JOIN sample_sets s ON s.id = e.set_id CROSS JOIN sample_sets o ON o.prompt_id = s.prompt_id AND o.id <= s.id
            CROSS JOIN responses r ON r.set_id = o.id AND r.policy IS NOT NULL AND r.id IS NOT e.response_id
            WHERE e.kind IN ('correction', 'demonstration') AND {where} ORDER BY e.seq, o.id DESC, r.slot""",
        values,
    )
    found: list[Surpassed] = []
    older: defaultdict[int, set[str]] = defaultdict(set)
    for seq, uid, version, beside in rows:
        if not beside and (version in older[seq] or len(older[seq]) == OLDER_ANSWERS):
            continue
        if not beside:
            older[seq].add(version)
        found.append(Surpassed(seq, uid, "demonstration"))
    return found
