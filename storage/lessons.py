"""Lessons: live judgements that teach, with their sets and answers. Judgements of sets that are only kept teach nothing.

Every function runs on any read connection, and takes a condition in SQL over events `e`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from typing import NamedTuple

from storage import rows
from storage.derived import surpassed
from storage.records import Arm, Calibration, Correction, Logged, Ranking, Rating, Redo, Response, SampleSet, Shown, Tap, Undo
from storage.repeats import NOT_SAID_AGAIN


class Taught(NamedTuple):
    """A live judgement with what a learner needs to learn from it."""

    logged: Logged
    sample_set: SampleSet
    responses: tuple[Response, ...]  # of a ranking the whole set; of a demonstration or a critique none; else the one it is about
    beside: tuple[Response, ...] = ()  # of a rating or a correction: the other answers of its set
    shown: Shown | None = None  # of a tap, or of silence: the answer as far as it had appeared
    window: Calibration | None = None  # of a tap: how late the operator's taps were at the time, where that was measured
    over: tuple[Response, ...] = ()  # answers to the prompt that its best one, or what was written, beats too (derived.py)


class Teaching(NamedTuple):
    """A live judgement that teaches, without its texts."""

    seq: int
    kind: str
    imported: bool


LEARNABLE = f"e.set_id NOT IN (SELECT set_id FROM kept_rows WHERE NOT teaches) AND {NOT_SAID_AGAIN}"
"""Of an event `e`: its set is not one that is only kept, and it does not say again what was learned already."""


OWN = """e.seq IN (
    SELECT o.seq FROM events o WHERE o.set_id IN (SELECT id FROM sample_sets WHERE purpose < 'imported' OR purpose > 'imported')
    UNION ALL SELECT seq FROM critiques)"""
"""Of an event `e`: of a set that was not imported, or words, of which imported ones too hold at once and have no answers to be looked at."""


def teaching(connection: sqlite3.Connection, where: str = "1") -> list[Teaching]:
    """Of every lesson, in seq order; of those that a condition over events `e` and sets `s` is true of."""
    found = connection.execute(
        "SELECT e.seq, e.kind, s.purpose = 'imported' FROM v_live e JOIN sample_sets s ON s.id = e.set_id"
        f" WHERE e.kind IN (SELECT kind FROM event_kinds WHERE teaches) AND {LEARNABLE} AND {where} ORDER BY e.seq"
    )
    return [Teaching(seq, kind, bool(imported)) for seq, kind, imported in found]


def teaches_nothing(connection: sqlite3.Connection) -> dict[str, int]:
    """Judgements that no lesson is made of: why, and how many."""
    live = "e.seq IN (SELECT seq FROM v_live)"
    kinds = "e.kind IN (SELECT kind FROM event_kinds WHERE teaches)"
    kept = "e.set_id IN (SELECT set_id FROM kept_rows WHERE NOT teaches)"
    reasons = {
        "undone, or said anew": f"{kinds} AND NOT {live}",
        "judged before, and again to see how often the operator slips": f"{kinds} AND {live} AND NOT {kept} AND NOT {NOT_SAID_AGAIN}",
        "of rows that are only kept: their texts alone would teach something else": f"{kinds} AND {live} AND {kept}",
        "skips, peeks and the like": f"NOT {kinds} AND e.kind NOT IN ('undo', 'redo')",
    }
    counted = {why: connection.execute(f"SELECT count(*) FROM events e WHERE {where}").fetchone()[0] for why, where in reasons.items()}
    return {why: int(n) for why, n in counted.items() if n}


def taught(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Taught]:
    """Those that the condition is true of, in seq order."""
    teaching = f"e.kind IN (SELECT kind FROM event_kinds WHERE teaches) AND {LEARNABLE} AND {where}"
    of_set = f"s.id IN (SELECT e.set_id FROM v_live e WHERE {teaching})"
    judged = rows.logged(connection, "v_live", teaching, values)
    sets = {each.uid: each for each in rows.sample_sets(connection, of_set, values)}
    answers: defaultdict[str, list[Response]] = defaultdict(list)
    for answer in rows.responses(connection, of_set, values):
        answers[answer.set_uid].append(answer)
    named = "SELECT t.response_uid FROM {} t JOIN v_live e ON e.seq = t.seq WHERE {}"
    watched = f"k.response_uid IN ({named.format('taps', where)} UNION {named.format('arms', where)})"
    shown = rows.shown(connection, watched, (*values, *values))
    windows = rows.logged(connection, "events", "e.kind = 'calibration'", ())
    elsewhere = dict(iter(connection.execute("SELECT uid, operator FROM sittings WHERE build_id IS NULL")))
    over = _surpassed(connection, teaching, values)
    found = [_with_answers(event, sets, answers, shown, _windows_for(event, windows, elsewhere)) for event in judged]
    return [lesson._replace(over=tuple(over[lesson.logged.seq])) if lesson.logged.seq in over else lesson for lesson in found]


def _surpassed(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> dict[int, list[Response]]:
    """By seq."""
    pairs = surpassed(connection, where, values)
    uids = json.dumps([pair.response_uid for pair in pairs])
    known = {answer.uid: answer for answer in rows.responses(connection, "r.uid IN (SELECT value FROM json_each(?))", (uids,))}
    found: defaultdict[int, list[Response]] = defaultdict(list)
    for seq, uid, _ in pairs:
        found[seq].append(known[uid])
    return found


def _windows_for(event: Logged, windows: list[Logged], elsewhere: dict[str, str]) -> list[Logged]:
    """Those that were measured here, for what was said here; for what was said elsewhere, those of the same person."""
    who = elsewhere.get(event.sitting_uid)
    return [window for window in windows if elsewhere.get(window.sitting_uid) == who]


def _with_answers(
    event: Logged, sets: dict[str, SampleSet], answers: dict[str, list[Response]], shown: dict[str, Shown], windows: list[Logged]
) -> Taught:
    assert not isinstance(event.judgement, Undo | Redo | Calibration)  # they teach nothing
    uid = event.judgement.set_uid
    about = tuple(_about(event, answers[uid]))
    if not isinstance(event.judgement, Tap | Arm):
        others = tuple(answer for answer in answers[uid] if answer not in about) if about else ()
        return Taught(event, sets[uid], about, others)
    window = next((w.judgement for w in reversed(windows) if w.seq < event.seq and isinstance(w.judgement, Calibration)), None)
    return Taught(event, sets[uid], about, (), shown.get(event.judgement.response_uid), window)


def _about(logged: Logged, of_set: list[Response]) -> list[Response]:
    match logged.judgement:
        case Ranking():
            return of_set
        case Rating(response_uid=uid) | Correction(response_uid=uid) | Tap(response_uid=uid) | Arm(response_uid=uid):
            return [answer for answer in of_set if answer.uid == uid]
    return []
