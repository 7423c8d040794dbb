"""Which words acted when: how strongly a critique steered the answers of a set, by what had been said when they were drawn.

A critique's strength is changed by saying it again: the last word on its subject counts, of standing wishes the last one in the same words. Nothing
that was said, undone or put back later changes what a set was drawn with. Everything here is SQL, for conditions over events and sets.
"""

from __future__ import annotations


def _same(one: str, other: str) -> str:
    """Two critiques are in the same words, whatever blanks are around them."""
    blanks = "char(9, 10, 11, 12, 13, 32)"
    return f"trim({one}.text, {blanks}) = trim({other}.text, {blanks})"


def stood(event: str, at: str) -> str:
    """Event `event` had been said by the time `at`, and was not undone then."""
    last = f"SELECT w.kind FROM events w WHERE w.target_seq = {event}.seq AND w.utc <= {at} ORDER BY w.seq DESC LIMIT 1"
    return f"({event}.utc <= {at} AND coalesce(({last}), 'redo') <> 'undo')"


def _last(which: str, at: str) -> str:
    """The strength that the last of these critiques `n` gave the words; NULL where none had been said."""
    return f"""(SELECT n.strength FROM critiques n JOIN events o ON o.seq = n.seq
        WHERE {which} AND {stood("o", at)} ORDER BY n.seq DESC LIMIT 1)"""


def acted(event: str, critique: str, drawn: str) -> str:
    """The critique `critique`, which is the event `event`, asked for what it says when the set `drawn` was drawn, which is of the same prompt: it was
    neither off nor turned around, nor were its words, said again with another scope."""
    own = f"""n.seq IN (SELECT q.seq FROM events q WHERE q.kind = 'critique' AND q.subject = {event}.subject
        UNION ALL SELECT q.seq FROM critiques q WHERE q.scope = 'all' AND {critique}.scope = 'all' AND {_same("q", critique)})"""
    held = f"""n.seq IN (SELECT q.seq FROM sample_sets z CROSS JOIN events q ON q.set_id = z.id AND q.kind = 'critique'
          WHERE z.prompt_id = {drawn}.prompt_id
        UNION ALL SELECT q.seq FROM critiques q WHERE q.scope = 'all') AND {_same("n", critique)}"""
    return f"({_last(own, f'{drawn}.utc')} > 0 AND {_last(held, f'{drawn}.utc')} >= 0)"
