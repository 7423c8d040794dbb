"""Judgements become events: what is accepted, and the rows it is written as. Runs inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from math import isfinite

import msgspec

from storage import chain, state, typed_rows
from storage.database import JournalError, now
from storage.records import (
    CRITERIA,
    Arm,
    Calibration,
    Comment,
    Correction,
    Critique,
    Demonstration,
    Flag,
    Judgement,
    Pace,
    Peek,
    Present,
    Ranking,
    Rating,
    Redo,
    Skip,
    Span,
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
        "INSERT INTO events (uid, kind, sitting_id, set_id, response_id, subject, target_seq, utc, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (new_uid(), kind, sitting_id, *msgspec.structs.astuple(event), now(), _encode(judgement).decode()),
    )
    seq = cursor.lastrowid
    assert seq is not None
    typed_rows.insert(connection, seq, event.set_id, event.response_id, judgement)
    chain.link(connection, seq)
    state.follow(connection, seq)
    return seq


def subject_of(judgement: Judgement) -> str | None:
    """What a second one of its kind would be refused for, or replace: see event_kinds.again."""
    match judgement:
        case Rating(response_uid=uid, criterion=criterion):
            return f"{uid}/{criterion}"
        case Correction(response_uid=uid):
            return uid
        case Ranking(set_uid=uid) | Demonstration(set_uid=uid):
            return uid
        case Critique(set_uid=uid, response_uid=response_uid, scope=scope, text=text):
            return f"{uid}/{response_uid or ''}/{scope}/{text}"
    return None


def _check(connection: sqlite3.Connection, judgement: Judgement) -> Event:
    match judgement:
        case Ranking(set_uid=uid, ranks=ranks, strength=strength):
            _check_ranks(ranks)
            if strength not in (None, 0, 1, 2, 3):
                raise JournalError(f"a strength of {strength} is outside 0 to 3")
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
        case Critique(set_uid=uid, response_uid=response_uid, text=text, strength=strength):
            if not text.strip():
                raise JournalError("the critique is empty", "say in a line what should be otherwise")
            if type(strength) is not int or not -3 <= strength <= 3:
                raise JournalError(f"a strength of {strength} is outside -3 to 3")
            subject = subject_of(judgement)
            if response_uid is None:
                return Event(_set_id(connection, uid), subject=subject)
            return Event(_set_id(connection, uid), _response_id(connection, uid, response_uid), subject)
        case Skip(set_uid=uid) | Peek(set_uid=uid):
            return Event(_set_id(connection, uid), subject=uid)
        case Tap() | Arm() | Pace() | Present() | Calibration():
            event = _check_watching(connection, judgement)
            _check_finite(judgement)
            return event
        case Span() | Comment() | Flag():
            return _check_mark(connection, judgement)
        case Undo(target=target):
            _check_undo(connection, target)
            return Event(target_seq=target)
        case Redo(target=target):
            _check_redo(connection, target)
            return Event(target_seq=target)


def _check_watching(connection: sqlite3.Connection, judgement: Tap | Arm | Pace | Present | Calibration) -> Event:
    """What is said while answers appear: an answer may have no row yet."""
    match judgement:
        case Tap(set_uid=uid, response_uid=response_uid, value=value, repeat=repeat):
            if not -10 <= value <= 10 or value == 0:
                raise JournalError(f"a tap of {value:g} is none", "a tap is from -10 to 10, and not 0")
            if repeat < 1:
                raise JournalError("a tap is at least one press")
            return _about_appearing(connection, uid, response_uid)
        case Arm(set_uid=uid, response_uid=response_uid, seconds=seconds, since=since):
            if since is not None and not since <= seconds:
                raise JournalError(f"a stretch of silence from {since:g} to {seconds:g} s is none")
            return _about_appearing(connection, uid, response_uid)
        case Pace(set_uid=uid, tokens_per_second=pace):
            if pace <= 0:
                raise JournalError("a pace is more than 0 tokens a second")
            return Event(_set_id(connection, uid), subject=uid)
        case Present(set_uid=uid, order=order):
            if not order or len(set(order)) < len(order):
                raise JournalError("each answer is presented once")
            return Event(_set_id(connection, uid), subject=uid)
        case Calibration(connection=over, low=low, high=high, shape=shape, scale=scale):
            if not 0 <= low < high or not all(value is None or value > 0 for value in (shape, scale)):
                raise JournalError(f"a window from {low:g} to {high:g} s is none", "calibrate again")
            return Event(subject=over)


def _check_mark(connection: sqlite3.Connection, judgement: Span | Comment | Flag) -> Event:
    uid, response_uid = judgement.set_uid, judgement.response_uid
    _check_text(judgement.text if isinstance(judgement, Comment) else judgement.label)
    if response_uid is None:
        return Event(_set_id(connection, uid), subject=uid)
    event = _about_response(connection, uid, response_uid, response_uid)
    if isinstance(judgement, Span):
        _check_finite(judgement)
        (text,) = connection.execute(
            "SELECT n.content FROM responses r JOIN nodes n ON n.id = r.node_id WHERE r.id = ?", (event.response_id,)
        ).fetchone()
        if not 0 <= judgement.start < judgement.stop <= len(text):
            raise JournalError(f"the answer has no characters {judgement.start} to {judgement.stop}")
    return event


def _about_appearing(connection: sqlite3.Connection, set_uid: str, response_uid: str) -> Event:
    """The answer is named by its uid alone; where it has a row, that must be in the set."""
    set_id = _set_id(connection, set_uid)
    row = connection.execute("SELECT set_id FROM responses WHERE uid = ?", (response_uid,)).fetchone()
    if not response_uid or (row is not None and row[0] != set_id):
        raise JournalError(f"there is no answer {response_uid} in set {set_uid}")
    return Event(set_id, subject=response_uid)


def _check_finite(judgement: msgspec.Struct) -> None:
    for name, value in msgspec.structs.asdict(judgement).items():
        if any(isinstance(x, float) and not isfinite(x) for x in (value if isinstance(value, tuple) else (value,))):
            raise JournalError(f"{name.replace('_', ' ')} is not a finite number")


def _check_ranks(ranks: dict[str, int]) -> None:
    if not ranks:
        raise JournalError("the ranking names no answer")
    values = set(ranks.values())
    if any(type(rank) is not int for rank in values) or values != set(range(1, len(values) + 1)):
        raise JournalError(f"the ranks {sorted(ranks.values())} leave gaps", "number them 1, 2, 3 with ties sharing one")


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
    (again,) = connection.execute("SELECT again FROM event_kinds WHERE kind = ?", (kind,)).fetchone()
    if again != "refused":
        return
    standing = connection.execute("SELECT 1 FROM v_standing WHERE kind = ? AND subject = ?", (kind, subject))
    if standing.fetchone() is not None:
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
        raise JournalError(f"judgement {target} cannot be undone" if not row[0] else f"judgement {target} is undone already")


def _check_redo(connection: sqlite3.Connection, target: int) -> None:
    row = connection.execute("SELECT kind, subject FROM v_undone WHERE seq = ?", (target,)).fetchone()
    if row is None:
        raise JournalError(f"judgement {target} is not undone, so it cannot be redone")
    _refuse_second(connection, *row)
