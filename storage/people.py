"""Who judged: each operator's judgements and leanings, and how far two of them agree.

Two people have judged the same thing where they compared, or labelled, the same texts in answer to the same conversation, in one set or in two.
Cohen's kappa (Cohen 1960) is the agreement beyond what two people with these habits would have by chance: 1 is all, 0 none.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import combinations

from msgspec import Struct

from storage.statistics import rounded
from storage.thoughts import count_what_is_said

MOST_COMPARED = 20
"""People who are compared with each other: those with the most judgements."""


class Operator(Struct, frozen=True):
    """One operator; a share is None where there is nothing that it could be of."""

    name: str
    kind: str  # 'person', 'program' or 'import'
    judgements: dict[str, int]  # live, by kind
    first: str  # UTC
    last: str
    first_place: float | None  # how often the answer shown first was ranked first, of comparisons of two that were not tied
    longer_won: float | None  # of compared pairs of unequal length
    good: float | None  # of answers with an overall rating other than the middle one


class Between(Struct, frozen=True):
    """Two operators on what both of them judged. Ties are an outcome of their own; of several judgements of one thing the last counts."""

    one: str
    other: str
    comparisons: int
    compared_alike: float | None
    comparisons_kappa: float | None
    labels: int
    labelled_alike: float | None
    labels_kappa: float | None


class People(Struct, frozen=True):
    """All of them, those with the most judgements first."""

    operators: tuple[Operator, ...]
    between: tuple[Between, ...]


def people(connection: sqlite3.Connection) -> People:
    """Seconds for a hundred thousand judgements."""
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    times: dict[str, tuple[str, str]] = {}
    for name, kind, n, first, last in connection.execute(
        "SELECT i.operator, e.kind, count(*), min(e.utc), max(e.utc) FROM v_live e JOIN sittings i ON i.id = e.sitting_id"
        " WHERE e.kind NOT IN ('calibration', 'present', 'pace', 'peek') GROUP BY 1, 2"
    ):
        counts[name][kind] = n
        since, until = times.get(name, (first, last))
        times[name] = min(since, first), max(until, last)
    kinds = dict(iter(connection.execute("SELECT name, kind FROM operators")))
    habits = _habits(connection)
    order = sorted(counts, key=lambda name: (-sum(counts[name].values()), name))
    told = tuple(Operator(name, kinds[name], counts[name], *times[name], *habits.get(name, (None, None, None))) for name in order)
    return People(told, _between(connection, order[:MOST_COMPARED]) if len(order) > 1 else ())


_PAIRS = """
    SELECT e.seq, i.operator, c.node_id AS better, r.node_id AS worse, c.slot AS better_slot, r.slot AS worse_slot, a.rank = b.rank AS tied, s.k AS k
    FROM v_live e JOIN sittings i ON i.id = e.sitting_id JOIN sample_sets s ON s.id = e.set_id
    JOIN ranking_items a ON a.seq = e.seq JOIN responses c ON c.id = a.response_id
    JOIN responses r ON r.set_id = e.set_id AND r.id <> c.id LEFT JOIN ranking_items b ON b.seq = e.seq AND b.response_id = r.id
    WHERE e.kind = 'ranking' AND (b.rank IS NULL OR a.rank < b.rank OR (a.rank = b.rank AND c.slot < r.slot))"""
"""Every compared pair of live rankings, the better one first; of a tie, the one that was shown first."""


def _habits(connection: sqlite3.Connection) -> dict[str, tuple[float | None, float | None, float | None]]:
    count_what_is_said(connection)
    compared = connection.execute(f"""
        SELECT operator, avg(first), avg(CASE WHEN difference <> 0 THEN difference > 0 END)
        FROM (SELECT p.operator, CASE WHEN p.k = 2 THEN p.better_slot < p.worse_slot END AS first,
                     said_length(a.content) - said_length(b.content) AS difference
              FROM ({_PAIRS}) p JOIN nodes a ON a.id = p.better JOIN nodes b ON b.id = p.worse WHERE NOT coalesce(p.tied, 0)) GROUP BY 1""")
    found = {name: (rounded(first), rounded(longer)) for name, first, longer in compared}
    rated = connection.execute("""
        SELECT i.operator, avg(t.value > 4) FROM ratings t JOIN v_live e ON e.seq = t.seq JOIN sittings i ON i.id = e.sitting_id
        WHERE t.criterion = 'overall' AND t.value <> 4 GROUP BY 1""")
    good = {name: rounded(share) for name, share in rated}
    return {name: (*found.get(name, (None, None)), good.get(name)) for name in found.keys() | good.keys()}


def _between(connection: sqlite3.Connection, names: list[str]) -> tuple[Between, ...]:
    """Of those who have something in common."""
    compared = _said(connection, f"""
        SELECT p.operator, min(p.better, p.worse) || '/' || max(p.better, p.worse),
               CASE WHEN p.tied THEN 'tie' WHEN a.hash < b.hash THEN '<' ELSE '>' END  -- not by id: files name the better one first
        FROM ({_PAIRS}) p JOIN nodes a ON a.id = p.better JOIN nodes b ON b.id = p.worse ORDER BY p.seq""")  # fmt: skip
    labelled = _said(connection, """
        SELECT i.operator, r.node_id, CASE WHEN t.value > 4 THEN 'good' WHEN t.value < 4 THEN 'bad' ELSE 'middle' END
        FROM ratings t JOIN v_live e ON e.seq = t.seq JOIN sittings i ON i.id = e.sitting_id JOIN responses r ON r.id = t.response_id
        WHERE t.criterion = 'overall' ORDER BY t.seq""")  # fmt: skip
    found = [
        Between(one, other, *agreement(compared.get(one, {}), compared.get(other, {})), *agreement(labelled.get(one, {}), labelled.get(other, {})))
        for one, other in combinations(names, 2)
    ]
    return tuple(each for each in found if each.comparisons or each.labels)


def _said(connection: sqlite3.Connection, sql: str) -> dict[str, dict[str, str]]:
    """By operator, what they said last of each thing."""
    said: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, thing, outcome in connection.execute(sql):
        said[name][thing] = outcome
    return said


def agreement(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[int, float | None, float | None]:
    """Things both judged, the share of them that they judged alike, and Cohen's kappa; None where chance alone would agree always."""
    both = one.keys() & other.keys()
    if not both:
        return 0, None, None
    n = len(both)
    alike = sum(one[thing] == other[thing] for thing in both) / n
    ours, theirs = (Counter(said[thing] for thing in both) for said in (one, other))
    chance = sum(ours[outcome] * theirs[outcome] for outcome in ours) / n**2
    return n, rounded(alike), rounded((alike - chance) / (1 - chance)) if chance < 1 else None
