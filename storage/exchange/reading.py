"""Live judgements as items, one after another on one snapshot: memory does not grow with the database, and the order never changes.

- A **ranking** compares every pair of its answers but ties and pairs without any rank. The margin is the number of places between the two as a
  share of the most there could be, K - 1, or a third of the ranking's strength (0 to 3) where that was said. Of an imported comparison it is
  the margin that the file had, or else the difference of its scores.
- **Ratings** compare the answers of sets that were rated and not ranked; the margin is the difference as a share of 6. As labels 5 to 7 are good,
  1 to 3 bad, and a 4 is neither.
- A **correction** beats its original with margin 1, is good while the original is bad, and is an answer as the operator wants it.
- The first place of a ranking is good and the last one bad where the set has no overall ratings: a label is a weak summary of a ranking, better
  than none.
- What follows from a judgement and was not said (storage/derived.py) is a file of its own, with the reason.
- Answers without any words are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, groupby
from typing import NamedTuple

from storage import kept
from storage.derived import followed, surpassed
from storage.exchange.items import NOTHING, Beside, Criticised, DerivedPair, Labelled, Messages, PreferencePair, Ranked, Written
from storage.progress import Step, unwatched
from storage.provenance import has_template
from storage.records import Message, criticised
from storage.repeats import NOT_SAID_AGAIN
from storage.thoughts import FIELDS, NAMES

GOOD, BAD = 5, 3
"""Ratings from here up, and to here down."""
READ = {
    "comparisons": ("ranking", "rating", "correction"), "labelled": ("ranking", "rating", "correction", "demonstration"),
    "written": ("demonstration", "correction"), "ranked": ("ranking",), "criticised": ("critique",),
}  # fmt: skip
"""What a method of the reader reads: kinds of judgements."""
_PROMPT = """
    WITH RECURSIVE up(parent_id, role, content, height) AS (
      SELECT parent_id, role, content, 0 FROM nodes WHERE id = ?
      UNION ALL SELECT n.parent_id, n.role, n.content, u.height + 1 FROM up u JOIN nodes n ON n.id = u.parent_id)
    SELECT role, content FROM up ORDER BY height DESC"""


_BEST = """
    SELECT p.node_id, n.content FROM (
      SELECT r.set_id, r.node_id FROM ranking_items i JOIN responses r ON r.id = i.response_id WHERE i.seq = ? AND i.rank = 1
      UNION ALL SELECT r.set_id, r.node_id FROM ratings t JOIN responses r ON r.id = t.response_id WHERE t.seq = ?
      UNION ALL SELECT r.set_id, c.node_id FROM corrections c JOIN responses r ON r.id = c.response_id WHERE c.seq = ?
      UNION ALL SELECT d.set_id, d.node_id FROM demonstrations d WHERE d.seq = ?) b
    JOIN nodes n ON n.id = b.node_id JOIN sample_sets s ON s.id = b.set_id JOIN prompts p ON p.id = s.prompt_id"""
"""Of a judgement: what it puts first, or scores, or what was written."""


class JudgedAnswers(NamedTuple):
    """Answers to one prompt with what one kind of judgement says of them."""

    messages: Messages
    answers: tuple[str, ...]
    values: tuple[int | None, ...]  # ranks, or overall ratings
    beside: Beside = NOTHING
    strength: int | None = None
    margin: float | None = None  # that an imported file had


class Reader:
    """Reads a snapshot. `since` is the first event that counts; `step` is told the judgements that were read of those that `expect` foresaw."""

    def __init__(self, connection: sqlite3.Connection, since: int = 0, step: Step = unwatched) -> None:
        self._connection, self._since, self._step = connection, since, step
        self._read = self._of = 0
        self.alike = 0  # compared pairs with the same text on both sides, which say nothing
        self.messages = lru_cache(maxsize=4096)(self._messages)

    def expect(self, method: str) -> None:
        """This method will be read to its end, once more."""
        kinds = READ.get(method, ())
        marks = ", ".join("?" * len(kinds))
        counted = f"SELECT count(*) FROM v_live WHERE seq >= ? AND kind IN ({marks})"
        self._of += self._connection.execute(counted, (self._since, *kinds)).fetchone()[0]

    def _count(self, n: int = 1) -> None:
        self._read += n
        self._step(self._read, max(self._read, self._of))

    def _messages(self, node_id: int) -> Messages:
        return tuple(Message(role, content) for role, content in self._connection.execute(_PROMPT, (node_id,)))

    def scored(self) -> bool:
        """Whether some comparison has scores."""
        one = "SELECT EXISTS (SELECT 1 FROM kept_rows WHERE iif(json_valid(content), json_array_length(content, '$.scores'), 0) > 1)"
        others = self._connection.execute("SELECT content FROM kept_rows WHERE NOT json_valid(content)")
        return bool(self._connection.execute(one).fetchone()[0]) or any(len(kept.read(content)["scores"]) > 1 for (content,) in others)

    def thoughtful(self) -> bool:
        """Whether something may have been thought before what was said."""
        texts = " OR ".join(f"content LIKE '%<{name}>%'" for name in NAMES.split("|"))
        beside = " OR ".join(f"content LIKE '%\"{name}\"%'" for name in FIELDS)
        sql = f"SELECT EXISTS (SELECT 1 FROM nodes WHERE {texts}) OR EXISTS (SELECT 1 FROM kept_rows WHERE {beside})"
        return bool(self._connection.execute(sql).fetchone()[0])

    def comparisons(self) -> Iterator[PreferencePair]:
        """From rankings, then from ratings, then from corrections."""
        for found in self._rankings():
            yield from self._told_apart(_of_ranks(found))
        for found in self._ratings(ranked=False):
            yield from self._told_apart(_of_ratings(found))
        for messages, original, text, beside in self._corrections():
            if original.strip() and original != text:
                yield PreferencePair(messages, text, original, 1.0, beside)

    def _told_apart(self, pairs: Iterator[PreferencePair]) -> Iterator[PreferencePair]:
        for pair in pairs:
            if pair.chosen == pair.rejected:
                self.alike += 1
            else:
                yield pair

    def derived(self) -> Iterator[DerivedPair]:
        """Of each judgement what it puts first, or what was written, over the answers that this beats too."""
        for pair in surpassed(self._connection, "e.seq >= ?", (self._since,)):
            best = self._connection.execute(_BEST, (pair.seq,) * 4).fetchall()
            (rejected,) = self._connection.execute("SELECT text FROM v_answers WHERE uid = ?", (pair.response_uid,)).fetchone()
            for node_id, chosen in best:
                if chosen == rejected:
                    self.alike += 1
                elif rejected.strip() and chosen.strip():
                    yield DerivedPair(self.messages(node_id), chosen, rejected, pair.why)

    def hindsight(self) -> Iterator[Written]:
        """Each critique in the context of the answer that followed it and was let stand, where the base reads it (Liu et al. 2023)."""
        chat = has_template(self._connection)
        for seq, uid in followed(self._connection, "e.seq >= ?", (self._since,)):
            text, node_id, answer = self._connection.execute(
                """SELECT c.text, p.node_id, n.content FROM critiques c, responses r JOIN nodes n ON n.id = r.node_id
                   JOIN sample_sets s ON s.id = r.set_id JOIN prompts p ON p.id = s.prompt_id WHERE c.seq = ? AND r.uid = ?""",
                (seq, uid),
            ).fetchone()
            if answer.strip():
                yield Written(criticised(self.messages(node_id), [text], chat), answer)

    def labelled(self) -> Iterator[Labelled]:
        """From overall ratings, rankings of sets without them, corrections and demonstrations."""
        for found in self._ratings(ranked=True):
            for place, (answer, value) in enumerate(zip(found.answers, found.values, strict=True)):
                if answer.strip() and value is not None and not BAD < value < GOOD:
                    yield Labelled(found.messages, answer, value >= GOOD, found.beside.of(place))
        overall = "SELECT 1 FROM v_live q JOIN ratings o ON o.seq = q.seq WHERE q.set_id = e.set_id AND o.criterion = 'overall'"
        for found in self._rankings(f"NOT EXISTS ({overall})"):
            yield from _ends(found)
        for messages, original, text, beside in self._corrections():
            yield Labelled(messages, text, True, beside)
            if original.strip() and original != text:
                yield Labelled(messages, original, False, beside)
        for messages, text, beside in self._demonstrations():
            yield Labelled(messages, text, True, beside)

    def written(self) -> Iterator[Written]:
        """Demonstrations, then corrections."""
        for messages, text, beside in self._demonstrations():
            yield Written(messages, text, beside)
        for messages, _, text, beside in self._corrections():
            yield Written(messages, text, beside)

    def ranked(self) -> Iterator[Ranked]:
        """Rankings as they were made."""
        for found in self._rankings():
            yield Ranked(found.messages, found.answers, found.values, found.beside)

    def criticised(self) -> Iterator[Criticised]:
        """Critiques with the answers that they are about, where they are about one."""
        rows = self._connection.execute(f"""
            SELECT p.node_id, n.content, r.slot, c.text, c.scope, c.strength, {_KEPT} FROM v_live e JOIN critiques c ON c.seq = e.seq
            JOIN sample_sets s ON s.id = c.set_id JOIN prompts p ON p.id = s.prompt_id
            LEFT JOIN responses r ON r.id = c.response_id LEFT JOIN nodes n ON n.id = r.node_id
            WHERE e.kind = 'critique' AND e.seq >= ? ORDER BY e.seq""", (self._since,))  # fmt: skip
        for node_id, answer, slot, text, scope, strength, content in rows:
            self._count()
            beside = _beside(content)[0].of(*([] if slot is None else [slot]))
            yield Criticised(self.messages(node_id), answer, text, scope, strength, beside)

    # --- queries ---------------------------------------------------------------------------------------------------------

    def _rankings(self, where: str = "1") -> Iterator[JudgedAnswers]:
        rows = self._connection.execute(f"""
            SELECT e.seq, p.node_id, n.content, i.rank, (SELECT g.strength FROM ranking_strengths g WHERE g.seq = e.seq), {_KEPT}
            FROM v_live e JOIN sample_sets s ON s.id = e.set_id JOIN prompts p ON p.id = s.prompt_id
            JOIN responses r ON r.set_id = s.id JOIN nodes n ON n.id = r.node_id
            LEFT JOIN ranking_items i ON i.seq = e.seq AND i.response_id = r.id
            WHERE e.kind = 'ranking' AND {NOT_SAID_AGAIN} AND e.seq >= ? AND {where} ORDER BY e.seq, r.slot""", (self._since,))  # fmt: skip
        for _, answers in groupby(rows, key=lambda row: row[0]):
            _, nodes, texts, ranks, strengths, contents = zip(*answers, strict=True)
            self._count()
            beside, margin = _beside(contents[0])
            yield JudgedAnswers(self.messages(nodes[0]), texts, ranks, beside, strengths[0], margin)

    def _ratings(self, ranked: bool) -> Iterator[JudgedAnswers]:
        """Overall ratings by set, by the first of them that counts. `ranked`: of sets with a ranking too."""
        without = "" if ranked else "AND NOT EXISTS (SELECT 1 FROM v_live q WHERE q.set_id = r.set_id AND q.kind = 'ranking')"
        rows = self._connection.execute(f"""
            WITH rated AS (
              SELECT r.set_id, r.slot, r.node_id, t.value, min(t.seq) OVER (PARTITION BY r.set_id) AS first
              FROM ratings t JOIN v_live e ON e.seq = t.seq JOIN responses r ON r.id = t.response_id
              WHERE t.criterion = 'overall' AND {NOT_SAID_AGAIN} AND t.seq >= ? {without})
            SELECT d.set_id, p.node_id, n.content, d.value, d.slot, {_KEPT} FROM rated d JOIN sample_sets s ON s.id = d.set_id
            JOIN prompts p ON p.id = s.prompt_id JOIN nodes n ON n.id = d.node_id ORDER BY d.first, d.slot""", (self._since,))  # fmt: skip
        for _, answers in groupby(rows, key=lambda row: row[0]):
            _, nodes, texts, values, slots, contents = zip(*answers, strict=True)
            self._count(len(values))
            yield JudgedAnswers(self.messages(nodes[0]), texts, values, _beside(contents[0])[0].of(*slots))

    def _corrections(self) -> Iterator[tuple[Messages, str, str, Beside]]:
        """Prompt, original, text."""
        rows = self._connection.execute(f"""
            SELECT p.node_id, o.content, w.content, {_KEPT} FROM v_live e JOIN corrections c ON c.seq = e.seq JOIN nodes w ON w.id = c.node_id
            JOIN responses r ON r.id = c.response_id JOIN nodes o ON o.id = r.node_id JOIN sample_sets s ON s.id = r.set_id
            JOIN prompts p ON p.id = s.prompt_id WHERE e.kind = 'correction' AND e.seq >= ? ORDER BY e.seq""", (self._since,))  # fmt: skip
        for node_id, original, text, content in rows:
            self._count()
            yield self.messages(node_id), original, text, _beside(content)[0].of()

    def _demonstrations(self) -> Iterator[tuple[Messages, str, Beside]]:
        rows = self._connection.execute(f"""
            SELECT p.node_id, w.content, {_KEPT}, s.id IN (SELECT set_id FROM responses)
            FROM v_live e JOIN demonstrations d ON d.seq = e.seq JOIN nodes w ON w.id = d.node_id
            JOIN sample_sets s ON s.id = d.set_id JOIN prompts p ON p.id = s.prompt_id
            WHERE e.kind = 'demonstration' AND e.seq >= ? ORDER BY e.seq""", (self._since,))  # fmt: skip
        for node_id, text, content, answered in rows:
            self._count()
            beside = _beside(content)[0]
            yield self.messages(node_id), text, beside.of(*(() if answered else (0,)))


_KEPT = "(SELECT k.content FROM kept_rows k WHERE k.set_id = s.id)"


def _beside(content: str | None) -> tuple[Beside, float | None]:
    """What an imported set has beside its texts, and the margin that its file had."""
    if content is None:
        return NOTHING, None
    told = kept.read(content)
    beside = Beside(tuple(told["prompt"]), tuple(told["answers"]), tuple(told["scores"]), told["columns"], not told["why"])
    return beside, told["margin"]


def _of_ranks(found: JudgedAnswers) -> Iterator[PreferencePair]:
    last = max((rank for rank in found.values if rank is not None), default=0) + 1  # where those without a rank stand
    places = [(last if rank is None else rank, place) for place, rank in enumerate(found.values)]
    most = max(1, len(places) - 1)
    for (one, first), (other, second) in combinations(places, 2):
        if one == other:
            continue
        margin = abs(one - other) / most if found.strength is None else found.strength / 3
        yield from _pair(found, *((first, second) if one < other else (second, first)), _margin(found, first, second, round(margin, 6)))


def _margin(found: JudgedAnswers, first: int, second: int, margin: float) -> float:
    """As the file had it where there was one."""
    scores = found.beside.of(first, second).scores
    if found.margin is not None and len(found.answers) == 2:
        return found.margin
    if len(scores) == 2 and scores[0] is not None and scores[1] is not None:
        return round(abs(scores[0] - scores[1]), 6)
    return margin


def _of_ratings(found: JudgedAnswers) -> Iterator[PreferencePair]:
    for (first, one), (second, other) in combinations(enumerate(found.values), 2):
        if one is None or other is None or one == other:
            continue
        yield from _pair(found, *((first, second) if one > other else (second, first)), round(abs(one - other) / 6, 6))


def _pair(found: JudgedAnswers, chosen: int, rejected: int, margin: float) -> Iterator[PreferencePair]:
    better, worse = found.answers[chosen], found.answers[rejected]
    if better.strip() and worse.strip():
        yield PreferencePair(found.messages, better, worse, margin, found.beside.of(chosen, rejected))


def _ends(found: JudgedAnswers) -> Iterator[Labelled]:
    last = max((rank for rank in found.values if rank is not None), default=0) + 1
    places = [last if rank is None else rank for rank in found.values]
    if len(set(places)) < 2:
        return
    for slot, (place, answer) in enumerate(zip(places, found.answers, strict=True)):
        if answer.strip() and place in (min(places), max(places)):
            yield Labelled(found.messages, answer, place == min(places), found.beside.of(slot))
