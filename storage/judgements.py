"""Judgements become events: what is accepted, and the rows it is written as. Runs inside the writer's transaction."""

from __future__ import annotations

import math
import sqlite3

import msgspec

from storage.database import JournalError, now
from storage.records import (
    CRITERIA,
    Calibration,
    Correction,
    Demonstration,
    Judgement,
    Peek,
    Ranking,
    Rating,
    Redo,
    Skip,
    Tap,
    Undo,
    new_uid,
)

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True):
    """The references of a judgement, as columns of `events`."""

    set_id: int | None = None
    response_id: int | None = None
    subject: str | None = None  # of two live ones of a kind on the same subject, the newer counts or is refused
    target_seq: int | None = None


def append(connection: sqlite3.Connection, sitting_id: int | None, judgement: Judgement) -> int:
    """Checks a judgement against the log and writes its event and typed rows. Returns its seq; raises JournalError."""
    if sitting_id is None:
        raise JournalError("no sitting has begun", "bind the journal to a model first")
    event = _check(connection, judgement)
    kind = type(judgement).__struct_config__.tag
    if event.subject is not None:
        _refuse_second(connection, str(kind), event.subject)
    cursor = connection.execute(
        "INSERT INTO events (uid, kind, sitting_id, set_id, response_id, subject, target_seq, utc, payload)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (new_uid(), kind, sitting_id, *msgspec.structs.astuple(event), now(), _encode(judgement).decode()),
    )
    seq = cursor.lastrowid
    assert seq is not None
    _insert_details(connection, seq, event, judgement)
    return seq


def _check(connection: sqlite3.Connection, judgement: Judgement) -> Event:
    match judgement:
        case Ranking(set_uid=uid, ranks=ranks):
            _check_ranks(ranks)
            set_id = _set_id(connection, uid)
            for response_uid in ranks:
                _response_id(connection, uid, response_uid)
            return Event(set_id, subject=uid)
        case Rating(set_uid=uid, response_uid=response_uid, value=value, criterion=criterion):
            if type(value) is not int or not 1 <= value <= 7:
                raise JournalError(f"a rating of {value} is outside 1 to 7")
            if criterion not in CRITERIA:
                raise JournalError(f"there is no criterion {criterion!r}", f"use one of {', '.join(CRITERIA)}")
            return _about_response(connection, uid, response_uid, f"{response_uid}/{criterion}")
        case Correction(set_uid=uid, response_uid=response_uid, text=text):
            _check_text(text)
            return _about_response(connection, uid, response_uid, response_uid)
        case Demonstration(set_uid=uid, text=text):
            _check_text(text)
            return Event(_set_id(connection, uid), subject=uid)
        case Tap(set_uid=uid, value=value, seconds=seconds, repeat=repeat):
            if not -10 <= value <= 10 or value == 0 or not math.isfinite(seconds) or repeat < 1:
                raise JournalError(f"a tap of {value} at {seconds} is none", "a tap is from -10 to 10, and not 0")
            return Event(_set_id(connection, uid))
        case Calibration(low=low, high=high, shape=shape, scale=scale):
            if not 0 <= low < high < math.inf or (shape is not None and not 0 < shape < math.inf) or (scale is not None and not 0 < scale < math.inf):
                raise JournalError(f"a window from {low} to {high} s is none", "calibrate again")
            return Event()
        case Skip(set_uid=uid) | Peek(set_uid=uid):
            return Event(_set_id(connection, uid), subject=uid)
        case Undo(target=target):
            _check_undo(connection, target)
            return Event(target_seq=target)
        case Redo(target=target):
            _check_redo(connection, target)
            return Event(target_seq=target)


def _insert_details(connection: sqlite3.Connection, seq: int, event: Event, judgement: Judgement) -> None:
    match judgement:
        case Ranking(ranks=ranks):
            connection.executemany(
                "INSERT INTO ranking_items SELECT ?, id, ? FROM responses WHERE uid = ?",
                [(seq, rank, uid) for uid, rank in ranks.items()],
            )
        case Rating(criterion=criterion, value=value):
            connection.execute("INSERT INTO ratings VALUES (?, ?, ?, ?)", (seq, event.response_id, criterion, value))
        case Correction(text=text):
            connection.execute("INSERT INTO corrections VALUES (?, ?, ?)", (seq, event.response_id, text))
        case Tap():
            row = (judgement.response_uid, judgement.value, judgement.key, judgement.seconds, judgement.wall, judgement.repeat, judgement.whole)
            connection.execute("INSERT INTO taps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (seq, *row))
        case Demonstration(text=text):
            connection.execute("INSERT INTO demonstrations VALUES (?, ?, ?)", (seq, event.set_id, text))


def _check_ranks(ranks: dict[str, int]) -> None:
    if not ranks:
        raise JournalError("the ranking names no answer")
    values = set(ranks.values())
    if any(type(rank) is not int for rank in values) or values != set(range(1, len(values) + 1)):
        raise JournalError(
            f"the ranks {sorted(ranks.values())} leave gaps", "number them 1, 2, 3 with ties sharing one"
        )


def _check_text(text: str) -> None:
    if not text.strip():
        raise JournalError("the text is empty", "write an answer, or leave without saving")


def _set_id(connection: sqlite3.Connection, set_uid: str) -> int:
    row = connection.execute("SELECT id FROM sample_sets WHERE uid = ?", (set_uid,)).fetchone()
    if row is None:
        raise JournalError(f"there is no set {set_uid}")
    return int(row[0])


def _response_id(connection: sqlite3.Connection, set_uid: str, response_uid: str) -> int:
    row = connection.execute(
        "SELECT r.id FROM responses r JOIN sample_sets s ON s.id = r.set_id WHERE r.uid = ? AND s.uid = ?",
        (response_uid, set_uid),
    ).fetchone()
    if row is None:
        raise JournalError(f"there is no answer {response_uid} in set {set_uid}")
    return int(row[0])


def _about_response(connection: sqlite3.Connection, set_uid: str, response_uid: str, subject: str) -> Event:
    return Event(_set_id(connection, set_uid), _response_id(connection, set_uid, response_uid), subject)


def _refuse_second(connection: sqlite3.Connection, kind: str, subject: str) -> None:
    """What a live ranking stands in the way of: the operator undoes it first."""
    row = connection.execute(
        "SELECT e.seq FROM v_standing e JOIN event_kinds k ON k.kind = e.kind"
        " WHERE e.kind = ? AND e.subject = ? AND k.again = 'refused'",
        (kind, subject),
    ).fetchone()
    if row is not None:
        raise JournalError(f"this set has a {kind} already", "undo it first")


def _check_undo(connection: sqlite3.Connection, target: int) -> None:
    row = connection.execute(
        "SELECT k.undoable, e.seq IN (SELECT seq FROM v_standing WHERE seq = e.seq)"
        " FROM events e JOIN event_kinds k ON k.kind = e.kind WHERE e.seq = ?",
        (target,),
    ).fetchone()
    if row is None:
        raise JournalError(f"there is no judgement {target} to undo")
    if row != (1, 1):
        raise JournalError(
            f"judgement {target} cannot be undone" if not row[0] else f"judgement {target} is undone already"
        )


def _check_redo(connection: sqlite3.Connection, target: int) -> None:
    row = connection.execute("SELECT kind, subject FROM v_undone WHERE seq = ?", (target,)).fetchone()
    if row is None:
        raise JournalError(f"judgement {target} is not undone, so it cannot be redone")
    _refuse_second(connection, *row)
