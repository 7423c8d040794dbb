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
    """The strength that the last of these critiques `n`, of sets `i`, gave the words; NULL where none had been said."""
    return f"""(SELECT n.strength FROM critiques n JOIN events o ON o.seq = n.seq JOIN sample_sets i ON i.id = n.set_id
        WHERE {which} AND {stood("o", at)} ORDER BY n.seq DESC LIMIT 1)"""


def _is_of(one: str, said: str, other: str, said_there: str) -> str:
    """Two critiques, events `said` and `said_there`, of which the later one replaces the other."""
    return f"({said}.subject = {said_there}.subject OR ({one}.scope = 'all' AND {other}.scope = 'all' AND {_same(one, other)}))"


def steered_by_words(drawn: str, version: str) -> str:
    """Words may have steered what this version said in the set `drawn`: some held for its prompt then, and were not absorbed for certain. A wish
    was absorbed by a distillation that learned from it, of the version or of one that it comes from; a critique of one prompt may not have spoken
    there, so where one held nothing is certain."""
    at = f"{drawn}.utc"
    replaced = f"SELECT 1 FROM critiques n JOIN events o ON o.seq = n.seq WHERE n.seq > k.seq AND {_is_of('n', 'o', 'k', 'c')} AND {stood('o', at)}"
    goes_on = f"""WITH RECURSIVE up(id) AS (SELECT p.node_id FROM prompts p WHERE p.id = {drawn}.prompt_id
        UNION ALL SELECT n.parent_id FROM up JOIN nodes n ON n.id = up.id WHERE n.parent_id IS NOT NULL)
      SELECT 1 FROM up JOIN prompts q ON q.node_id = up.id WHERE q.id = m.prompt_id"""
    absorbed = f"""WITH RECURSIVE line(version) AS (SELECT {version}
        UNION SELECT v.parent FROM line l JOIN versions v ON v.version = l.version)
      SELECT 1 FROM line l JOIN versions v ON v.version = l.version JOIN version_runs b ON b.version_id = v.id
      JOIN runs r ON r.id = b.run_id AND r.stage = 'distill' JOIN run_events t ON t.run_id = r.id WHERE t.seq = k.seq"""
    return f"""EXISTS (SELECT 1 FROM critiques k JOIN events c ON c.seq = k.seq JOIN sample_sets m ON m.id = k.set_id
      WHERE k.strength <> 0 AND {stood("c", at)} AND NOT EXISTS ({replaced})
        AND iif(k.scope = 'all', NOT EXISTS ({absorbed}), EXISTS ({goes_on})))"""


def acted(event: str, critique: str, drawn: str) -> str:
    """The critique `critique`, which is the event `event`, asked for what it says when the set `drawn` was drawn, which is of the same prompt: it was
    neither off nor turned around, nor were its words, said again with another scope."""
    own = f"""n.seq IN (SELECT q.seq FROM events q WHERE q.kind = 'critique' AND q.subject = {event}.subject
        UNION ALL SELECT q.seq FROM critiques q WHERE q.scope = 'all' AND {critique}.scope = 'all' AND {_same("q", critique)})"""
    held = f"{_same('n', critique)} AND (n.scope = 'all' OR i.prompt_id = {drawn}.prompt_id)"
    return f"({_last(own, f'{drawn}.utc')} > 0 AND {_last(held, f'{drawn}.utc')} >= 0)"
