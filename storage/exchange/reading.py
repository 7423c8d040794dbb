"""Live judgements as items, one after another on one snapshot: memory does not grow with the database, and the order never changes.

- A **ranking** compares every pair of its answers but ties and pairs without any rank. The margin is the number of places between the two as a
  share of the most there could be, K - 1, or a third of the ranking's strength (0 to 3) where that was said.
- **Ratings** compare the answers of sets that were rated and not ranked; the margin is the difference as a share of 6. As labels 5 to 7 are good,
  1 to 3 bad, and a 4 is neither.
- A **correction** beats its original with margin 1, is good while the original is bad, and is an answer as the operator wants it.
- The first place of a ranking is good and the last one bad where the set has no ratings: a label is a weak summary of a ranking, better than none.
- Answers without any words are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, groupby
from typing import NamedTuple

from storage.exchange.items import Labelled, Messages, PreferencePair, Ranked, Written
from storage.records import Message

GOOD, BAD = 5, 3
"""Ratings from here up, and to here down."""
_PROMPT = """
    WITH RECURSIVE up(parent_id, role, content, height) AS (
      SELECT parent_id, role, content, 0 FROM nodes WHERE id = ?
      UNION ALL SELECT n.parent_id, n.role, n.content, u.height + 1 FROM up u JOIN nodes n ON n.id = u.parent_id)
    SELECT role, content FROM up ORDER BY height DESC"""


class ImportedSet(NamedTuple):
    """Answers to one prompt with what one kind of judgement says of them."""

    messages: Messages
    answers: tuple[str, ...]
    values: tuple[int | None, ...]  # ranks, or overall ratings
    strength: int | None = None


class Reader:
    """Reads a snapshot. `since` is the first event that counts."""

    def __init__(self, connection: sqlite3.Connection, since: int = 0) -> None:
        self._connection, self._since = connection, since
        self.messages = lru_cache(maxsize=4096)(self._messages)

    def _messages(self, node_id: int) -> Messages:
        return tuple(Message(role, content) for role, content in self._connection.execute(_PROMPT, (node_id,)))

    def comparisons(self) -> Iterator[PreferencePair]:
        """From rankings, then from ratings, then from corrections."""
        for found in self._rankings():
            yield from _of_ranks(found)
        for found in self._ratings(ranked=False):
            yield from _of_ratings(found)
        for messages, original, text in self._corrections():
            if original.strip() and original != text:
                yield PreferencePair(messages, text, original, 1.0)

    def labelled(self) -> Iterator[Labelled]:
        """From ratings, rankings without ratings, corrections and demonstrations."""
        for found in self._ratings(ranked=True):
            for answer, value in zip(found.answers, found.values, strict=True):
                if answer.strip() and value is not None and not BAD < value < GOOD:
                    yield Labelled(found.messages, answer, value >= GOOD)
        for found in self._rankings("NOT EXISTS (SELECT 1 FROM v_live q WHERE q.set_id = e.set_id AND q.kind = 'rating')"):
            yield from _ends(found)
        for messages, original, text in self._corrections():
            yield Labelled(messages, text, True)
            if original.strip() and original != text:
                yield Labelled(messages, original, False)
        for messages, text in self._demonstrations():
            yield Labelled(messages, text, True)

    def written(self) -> Iterator[Written]:
        """Demonstrations, then corrections."""
        for messages, text in self._demonstrations():
            yield Written(messages, text)
        for messages, _, text in self._corrections():
            yield Written(messages, text)

    def ranked(self) -> Iterator[Ranked]:
        """Rankings as they were made."""
        for found in self._rankings():
            yield Ranked(found.messages, found.answers, found.values)

    # --- queries ---------------------------------------------------------------------------------------------------------

    def _rankings(self, where: str = "1") -> Iterator[ImportedSet]:
        rows = self._connection.execute(f"""
            SELECT e.seq, p.node_id, n.content, i.rank, (SELECT g.strength FROM ranking_strengths g WHERE g.seq = e.seq)
            FROM v_live e JOIN sample_sets s ON s.id = e.set_id JOIN prompts p ON p.id = s.prompt_id
            JOIN responses r ON r.set_id = s.id JOIN nodes n ON n.id = r.node_id
            LEFT JOIN ranking_items i ON i.seq = e.seq AND i.response_id = r.id
            WHERE e.kind = 'ranking' AND e.seq >= ? AND {where} ORDER BY e.seq, r.slot""", (self._since,))  # fmt: skip
        for _, answers in groupby(rows, key=lambda row: row[0]):
            _, nodes, texts, ranks, strengths = zip(*answers, strict=True)
            yield ImportedSet(self.messages(nodes[0]), texts, ranks, strengths[0])

    def _ratings(self, ranked: bool) -> Iterator[ImportedSet]:
        """Overall ratings by set, by the first of them that counts. `ranked`: of sets with a ranking too."""
        without = "" if ranked else "AND NOT EXISTS (SELECT 1 FROM v_live q WHERE q.set_id = r.set_id AND q.kind = 'ranking')"
        rows = self._connection.execute(f"""
            WITH rated AS (
              SELECT r.set_id, r.slot, r.node_id, t.value, min(t.seq) OVER (PARTITION BY r.set_id) AS first
              FROM ratings t JOIN v_live e ON e.seq = t.seq JOIN responses r ON r.id = t.response_id
              WHERE t.criterion = 'overall' AND t.seq >= ? {without})
            SELECT d.set_id, p.node_id, n.content, d.value FROM rated d JOIN sample_sets s ON s.id = d.set_id
            JOIN prompts p ON p.id = s.prompt_id JOIN nodes n ON n.id = d.node_id ORDER BY d.first, d.slot""", (self._since,))  # fmt: skip
        for _, answers in groupby(rows, key=lambda row: row[0]):
            _, nodes, texts, values = zip(*answers, strict=True)
            yield ImportedSet(self.messages(nodes[0]), texts, values)

    def _corrections(self) -> Iterator[tuple[Messages, str, str]]:
        """Prompt, original, text."""
        rows = self._connection.execute("""
            SELECT p.node_id, o.content, w.content FROM v_live e JOIN corrections c ON c.seq = e.seq JOIN nodes w ON w.id = c.node_id
            JOIN responses r ON r.id = c.response_id JOIN nodes o ON o.id = r.node_id JOIN sample_sets s ON s.id = r.set_id
            JOIN prompts p ON p.id = s.prompt_id WHERE e.kind = 'correction' AND e.seq >= ? ORDER BY e.seq""", (self._since,))  # fmt: skip
        for node_id, original, text in rows:
            yield self.messages(node_id), original, text

    def _demonstrations(self) -> Iterator[tuple[Messages, str]]:
        rows = self._connection.execute("""
            SELECT p.node_id, w.content FROM v_live e JOIN demonstrations d ON d.seq = e.seq JOIN nodes w ON w.id = d.node_id
            JOIN sample_sets s ON s.id = d.set_id JOIN prompts p ON p.id = s.prompt_id
            WHERE e.kind = 'demonstration' AND e.seq >= ? ORDER BY e.seq""", (self._since,))  # fmt: skip
        for node_id, text in rows:
            yield self.messages(node_id), text


def _of_ranks(found: ImportedSet) -> Iterator[PreferencePair]:
    last = max((rank for rank in found.values if rank is not None), default=0) + 1  # where those without a rank stand
    places = [(last if rank is None else rank, answer) for rank, answer in zip(found.values, found.answers, strict=True)]
    most = max(1, len(places) - 1)
    for (one, first), (other, second) in combinations(places, 2):
        if one == other or not first.strip() or not second.strip() or first == second:
            continue
        margin = abs(one - other) / most if found.strength is None else found.strength / 3
        yield PreferencePair(found.messages, *((first, second) if one < other else (second, first)), round(margin, 6))


def _of_ratings(found: ImportedSet) -> Iterator[PreferencePair]:
    for (one, first), (other, second) in combinations(zip(found.values, found.answers, strict=True), 2):
        if one is None or other is None or one == other or not first.strip() or not second.strip() or first == second:
            continue
        yield PreferencePair(found.messages, *((first, second) if one > other else (second, first)), round(abs(one - other) / 6, 6))


def _ends(found: ImportedSet) -> Iterator[Labelled]:
    last = max((rank for rank in found.values if rank is not None), default=0) + 1
    places = [last if rank is None else rank for rank in found.values]
    if len(set(places)) < 2:
        return
    for place, answer in zip(places, found.answers, strict=True):
        if answer.strip() and place in (min(places), max(places)):
            yield Labelled(found.messages, answer, place == min(places))
