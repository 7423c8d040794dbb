"""The blind count: how often the operator, not knowing which is which, preferred the acting policy to the base model."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from math import sqrt
from typing import Literal

from msgspec import Struct

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


class BlindCount(Struct, frozen=True):
    """Outcomes of the counted sets, and the 95 % Wilson interval of the win rate (ties are half a win)."""

    wins: int
    ties: int
    losses: int
    n: int
    low: float
    high: float
    chosen: int = 0  # of them: of answers that were chosen as the best of several (best-of-n)

    @property
    def rate(self) -> float | None:
        """Win rate in [0, 1], None before anything was counted."""
        return (self.wins + self.ties / 2) / self.n if self.n else None

    def in_words(self) -> str:
        """'14.5 of 20 (50-88 %)', ties as half a win; 'nothing counted yet'."""
        if not self.n:
            return "nothing counted yet"
        return f"{self.wins + self.ties / 2:g} of {self.n} ({100 * self.low:.0f}-{100 * self.high:.0f} %)"


def wilson(wins_with_half_ties: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion, within [0, 1]; all of [0, 1] for n = 0.

    Source: Wilson 1927; the form of Newcombe 1998, method 3, without continuity correction.
    """
    if n == 0:
        return 0.0, 1.0
    p = wins_with_half_ties / n
    centre = p + Z95**2 / (2 * n)
    spread = Z95 * sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


_BY_WORDS = """EXISTS (SELECT 1 FROM sample_sets s WHERE s.id = o.set_id
    AND s.utc >= (SELECT min(e.utc) FROM events e WHERE e.kind = 'critique'))"""
"""Words may have steered the answers of a counted set `o`, which leave no mark on them: something had been said in words before."""
_ADAPTER = f"(o.policy = 'adapter' OR (o.policy = 'acting' AND o.beta = 0 AND NOT {_BY_WORDS})) AND o.version <> 'base'"
"""Of a counted set `o`: its answer was an adapter's alone."""


def tally(connection: sqlite3.Connection, last: int | None, policy: Literal["acting", "adapter"]) -> BlindCount:
    """Counts the latest `last` comparisons, or all. 'adapter': those whose acting slot had an adapter, and neither a bias nor words beside it."""
    wanted = _ADAPTER if policy == "adapter" else "o.policy = 'acting'"
    latest = f"SELECT o.outcome, o.seq FROM blind_outcomes o WHERE {wanted} ORDER BY o.seq DESC LIMIT ?"
    sql = f"SELECT outcome, count(*), min(seq) FROM ({latest}) GROUP BY 1"
    rows = connection.execute(sql, (-1 if last is None else last,)).fetchall()
    since = min((seq for _, _, seq in rows), default=0)
    best = f"""SELECT count(*) FROM selections c CROSS JOIN blind_outcomes o ON o.set_id = c.set_id
        WHERE o.policy = 'acting' AND {wanted} AND o.seq >= ?"""
    (chosen,) = connection.execute(best, (since,)).fetchone() if rows else (0,)
    return _count({outcome: n for outcome, n, _ in rows}, chosen)


DUELLED = """
    FROM sample_sets s JOIN v_live e ON e.set_id = s.id AND e.kind = 'ranking'
    JOIN responses a ON a.set_id = s.id JOIN responses b ON b.set_id = s.id AND b.slot <> a.slot
    JOIN ranking_items ra ON ra.seq = e.seq AND ra.response_id = a.id
    JOIN ranking_items rb ON rb.seq = e.seq AND rb.response_id = b.id
    WHERE s.purpose = 'duel' AND NOT EXISTS (SELECT 1 FROM events p WHERE p.set_id = s.id AND p.kind = 'peek' AND p.seq < e.seq)"""
"""Both answers of a duel, `a` and `b`, both ways around, and the ranking `e` that was made before it was told which was which."""
OUTCOME = "CASE WHEN ra.rank < rb.rank THEN 1.0 WHEN ra.rank > rb.rank THEN 0.0 ELSE 0.5 END"
"""Of `a` there."""


def duels(connection: sqlite3.Connection) -> dict[tuple[str, str], BlindCount]:
    """Sets that were made for nothing but a comparison, by who wrote the two answers: 'acting', 'base', or the version whose adapter drew alone. Each
    pair is there both ways around, the first one's wins. Counted are live rankings that were made before it was told which was which."""
    sides = ", ".join(f"CASE {each}.policy WHEN 'adapter' THEN {each}.version ELSE {each}.policy END" for each in "ab")
    rows = connection.execute(f"SELECT {sides}, {OUTCOME}, count(*) {DUELLED} GROUP BY 1, 2, 3")
    outcomes: dict[tuple[str, str], dict[float, int]] = {}
    for one, other, outcome, n in rows:
        outcomes.setdefault((one, other), {})[outcome] = n
    return {pair: _count(counted) for pair, counted in outcomes.items()}


def _count(outcomes: Mapping[float, int], chosen: int = 0) -> BlindCount:
    """By how often there was each: 1 won, 0.5 tied, 0 lost."""
    wins, ties, losses = (outcomes.get(value, 0) for value in (1.0, 0.5, 0.0))
    n = wins + ties + losses
    return BlindCount(wins, ties, losses, n, *wilson(wins + ties / 2, n), chosen)


NOTHING = _count({})
