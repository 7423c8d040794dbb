"""How the operator judges: pace, leanings that have nothing to do with the answers, agreement with themselves, and how well learners foresaw it.

Each is one query over the log; none is kept.
"""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from storage.blind import wilson
from storage.lapses import lapse_rate, slips_of_agreement
from storage.thoughts import count_what_is_said
from storage.verdict import Rate

PAUSE_SECONDS = 300
"""A longer gap between two judgements counts as this much: the operator was away."""
LEAST_SECONDS = 60
"""Of teaching, before a rate means anything."""
RECENT = 50
"""Judgements that tell how well a learner does now."""


class JudgingPace(Struct, frozen=True):
    """Teaching judgements while somebody was at it."""

    judgements: int
    hours: float  # with longer pauses cut down to five minutes
    per_hour: float | None


class Place(Struct, frozen=True):
    """How often the answers of one slot were ranked first, a shared first place counting in part."""

    slot: int  # 0 is shown as 'a'
    rankings: int
    first: float  # share
    by_chance: float


class Length(Struct, frozen=True):
    """Of the compared pairs whose answers differ in length."""

    pairs: int
    longer_won: float | None  # share
    mean_difference: float | None  # characters, the winner's minus the loser's


class Agreement(Struct, frozen=True):
    """The same two answers compared more than once by one person: how often two such judgements agree, with the 95 % interval. Ties are left out."""

    comparisons: int
    agree: float | None
    low: float = 0.0
    high: float = 1.0
    ceiling: float | None = None  # how often a learner that knew what the operator means would foresee what they say


class Foresight(Struct, frozen=True):
    """How well a learner foresaw judgements before it learned from them."""

    judge: str  # 'human_reward' for Ĥ, 'reward' for the reward model
    judgements: int
    log_loss: float  # nats, mean; a coin has 0.693
    accuracy: float | None  # of pairs
    recent_accuracy: float | None


class Habits(Struct, frozen=True):
    """All of it."""

    pace: JudgingPace
    places: tuple[Place, ...]
    length: Length
    agreement: Agreement
    foresight: tuple[Foresight, ...]
    lapses: Rate | None  # how often the operator says the opposite of what they mean, by what Ĥ had foreseen


def habits(connection: sqlite3.Connection) -> Habits:
    return Habits(pace(connection), places(connection), length(connection), agreement(connection), foresight(connection), lapses(connection))


def pace(connection: sqlite3.Connection) -> JudgingPace:
    judgements, seconds = connection.execute(f"""
        SELECT count(*), coalesce(sum(min(gap, {PAUSE_SECONDS})), 0) FROM (
          SELECT (julianday(e.utc) - lag(julianday(e.utc)) OVER (PARTITION BY e.sitting_id ORDER BY e.seq)) * 86400 AS gap
          FROM v_live e JOIN event_kinds k ON k.kind = e.kind JOIN sittings i ON i.id = e.sitting_id
          WHERE k.teaches AND i.build_id IS NOT NULL)""").fetchone()
    return JudgingPace(judgements, round(seconds / 3600, 3), round(judgements / seconds * 3600, 1) if seconds >= LEAST_SECONDS else None)


def places(connection: sqlite3.Connection) -> tuple[Place, ...]:
    rows = connection.execute("""
        WITH ranked AS (
          SELECT e.seq, e.set_id, (SELECT count(*) FROM responses r WHERE r.set_id = e.set_id) AS k,
                 (SELECT count(*) FROM ranking_items i WHERE i.seq = e.seq AND i.rank = 1) AS firsts
          FROM v_live e JOIN sample_sets s ON s.id = e.set_id
          WHERE e.kind = 'ranking' AND s.purpose = 'judge')  -- a file often names the better one first
        SELECT p.slot, count(*), avg(iif(i.rank = 1, 1.0 / r.firsts, 0)), avg(1.0 / r.k)
        FROM ranked r JOIN responses p ON p.set_id = r.set_id
        LEFT JOIN ranking_items i ON i.seq = r.seq AND i.response_id = p.id
        GROUP BY p.slot ORDER BY p.slot""")
    return tuple(Place(slot, n, round(first, 4), round(chance, 4)) for slot, n, first, chance in rows)


_COMPARED = """
    SELECT e.seq, e.sitting_id, c.node_id AS chosen, r.node_id AS rejected
    FROM v_live e JOIN ranking_items i ON i.seq = e.seq JOIN responses c ON c.id = i.response_id
    JOIN responses r ON r.set_id = e.set_id AND r.id <> c.id LEFT JOIN ranking_items j ON j.seq = e.seq AND j.response_id = r.id
    WHERE e.kind = 'ranking' AND (j.rank IS NULL OR i.rank < j.rank)"""
"""Pairs of live rankings, by their texts."""


def length(connection: sqlite3.Connection) -> Length:
    count_what_is_said(connection)
    pairs, longer, difference = connection.execute(f"""
        SELECT count(*), avg(difference > 0), avg(difference)
        FROM (SELECT said_length(a.content) - said_length(b.content) AS difference
              FROM ({_COMPARED}) p JOIN nodes a ON a.id = p.chosen JOIN nodes b ON b.id = p.rejected)
        WHERE difference <> 0""").fetchone()
    return Length(pairs, rounded(longer), rounded(difference))


def agreement(connection: sqlite3.Connection) -> Agreement:
    compared, agreeing = connection.execute(f"""
        SELECT coalesce(sum(n * (n - 1) / 2), 0), coalesce(sum(p * (p - 1) / 2 + (n - p) * (n - p - 1) / 2), 0)
        FROM (SELECT count(*) AS n, sum(way) AS p
              FROM (SELECT i.operator, min(chosen, rejected) AS one, max(chosen, rejected) AS other, max(chosen < rejected) AS way
                    FROM ({_COMPARED}) c JOIN sittings i ON i.id = c.sitting_id
                    WHERE chosen <> rejected GROUP BY seq, one, other HAVING way = min(chosen < rejected))
              GROUP BY operator, one, other HAVING n > 1)""").fetchone()
    if not compared:
        return Agreement(0, None)
    low, high = wilson(agreeing, compared)
    agree = agreeing / compared
    return Agreement(compared, round(agree, 4), round(low, 4), round(high, 4), round(1 - slips_of_agreement(agree), 4))


def lapses(connection: sqlite3.Connection) -> Rate | None:
    """From Ĥ's margins of rankings that still stand, foreseen once each."""
    rows = connection.execute("""
        SELECT q.margin FROM prequential q JOIN v_live e ON e.seq = q.seq
        WHERE q.judge = 'human_reward' AND q.margin IS NOT NULL
          AND q.id = (SELECT min(o.id) FROM prequential o WHERE o.seq = q.seq AND o.judge = q.judge)
        ORDER BY q.id""")
    return lapse_rate([margin for (margin,) in rows])


def foresight(connection: sqlite3.Connection) -> tuple[Foresight, ...]:
    """Of judgements that still stand, whenever they were foreseen first."""
    rows = connection.execute(f"""
        WITH foreseen AS (
          SELECT q.judge, q.log_loss, q."right", q.pairs, row_number() OVER (PARTITION BY q.judge ORDER BY q.id DESC) AS age
          FROM prequential q JOIN v_live e ON e.seq = q.seq
          WHERE q.id = (SELECT min(o.id) FROM prequential o WHERE o.seq = q.seq AND o.judge = q.judge))
        SELECT judge, count(*), avg(log_loss), sum("right") / sum(pairs),
               sum("right") FILTER (WHERE age <= {RECENT}) / sum(pairs) FILTER (WHERE age <= {RECENT})
        FROM foreseen GROUP BY judge ORDER BY judge""")
    return tuple(Foresight(judge, n, round(loss, 4), rounded(accuracy), rounded(recent)) for judge, n, loss, accuracy, recent in rows)


def rounded(value: float | None) -> float | None:
    """To four digits, as shares and losses are told; None where there is nothing to tell."""
    return round(value, 4) if value is not None else None
