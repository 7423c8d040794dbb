"""The rows that a judgement has beside its event: what other tools query, and what views join."""

from __future__ import annotations

import json
import sqlite3

from storage.records import (
    Arm,
    Calibration,
    Comment,
    Correction,
    Critique,
    Demonstration,
    Flag,
    Judgement,
    Pace,
    Present,
    Ranking,
    Rating,
    Span,
    Tap,
)
from storage.tree import plant_answer


def insert(connection: sqlite3.Connection, seq: int, set_id: int | None, response_id: int | None, judgement: Judgement) -> None:
    """Writes the typed rows of event `seq`; its references have been looked up. Raises sqlite3.IntegrityError."""

    def add(table: str, *values: object) -> None:
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)

    match judgement:
        case Ranking(ranks=ranks, strength=strength):
            connection.executemany(
                "INSERT INTO ranking_items SELECT ?, id, ? FROM responses WHERE uid = ?",
                [(seq, rank, uid) for uid, rank in ranks.items()],
            )
            if strength is not None:
                add("ranking_strengths", seq, strength)
        case Rating(criterion=criterion, value=value):
            add("ratings", seq, response_id, criterion, value)
        case Correction(text=text):
            assert set_id is not None
            add("corrections", seq, response_id, plant_answer(connection, set_id, text, "correction"))
        case Demonstration(text=text):
            assert set_id is not None
            add("demonstrations", seq, set_id, plant_answer(connection, set_id, text, "operator"))
        case Critique(text=text, scope=scope, strength=strength):
            add("critiques", seq, set_id, response_id, text, scope, strength)
        case Tap(response_uid=uid):
            tap = judgement
            add("taps", seq, uid, float(tap.value), tap.key, tap.seconds, tap.wall, tap.repeat, tap.whole)
        case Arm(response_uid=uid, on=on, seconds=seconds, since=since):
            add("arms", seq, set_id, uid, on, seconds, since)
        case Pace(tokens_per_second=pace, seconds=seconds):
            add("paces", seq, set_id, pace, seconds)
        case Present(order=order, seconds=seconds):
            for position, uid in enumerate(order):
                add("presentations", seq, position, uid, seconds)
        case Span(start=start, stop=stop, label=label, value=amount):
            add("spans", seq, response_id, start, stop, label, amount)
        case Comment(text=text):
            add("comments", seq, set_id, response_id, text)
        case Flag(label=label):
            add("flags", seq, response_id, label)
        case Calibration() as c:
            add("calibrations", seq, c.family, c.low, c.high, c.shape, c.scale, c.connection, json.dumps(c.delays))
