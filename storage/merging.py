"""Judgements of another database over the same base, as new events of this one: who judged stays, the two histories stay two.

Sets and answers keep their names, so that merging twice, or in both directions, adds nothing. A set that is judged in both, because both come from
one file, is copied under a name of its own: then two people have judged the same answers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from storage import judgements, kept, provenance, rows
from storage.database import JournalError, open_reader
from storage.journal import Journal
from storage.records import (
    DRAWN,
    Arm,
    BaseModel,
    Calibration,
    Comment,
    Correction,
    Critique,
    Demonstration,
    Flag,
    Judgement,
    KeptRow,
    Logged,
    Ranking,
    Rating,
    Response,
    SampleSet,
    Shown,
    Sitting,
    Skip,
    Span,
    Tap,
    Undo,
)
from storage.repeats import REPEAT

DEFAULT_OPERATOR = "operator"
CARRIED = Ranking | Rating | Correction | Demonstration | Critique | Tap | Arm | Skip | Span | Comment | Flag
"""What is taken over, and windows for taps, for they say how the taps are credited. What was on the screen, and at which pace, belongs to the other
sitting alone."""
_encode = msgspec.json.Encoder().encode


class Merged(NamedTuple):
    """What a merge did."""

    added: int
    known: int
    left: int  # live, and not of a kind that is taken over
    by: dict[str, int]  # judgements added, by operator


class _DryRunError(Exception):
    """Takes everything back."""


def merge(journal: Journal, other: Path, app_version: str, operator: str = "", dry_run: bool = False) -> Merged:
    """All of it or nothing. `operator` names the other's people where their name is the default one. Raises JournalError."""
    if other.resolve() == journal.path:
        raise JournalError("a database cannot be merged with itself", "give another one")
    done: list[Merged] = []

    def work(connection: sqlite3.Connection) -> None:
        with closing(open_reader(other)) as source:
            source.row_factory = sqlite3.Row
            source.execute("BEGIN")
            merging = _Merging(connection, source, operator or f"{DEFAULT_OPERATOR} of {other.stem}", other.name)
            merging.check_base()
            done.append(merging.run())
        if dry_run or not done[0].added:
            raise _DryRunError

    try:
        journal.run(work).result()
    except JournalError as error:
        if not isinstance(error.__cause__, _DryRunError):
            raise
    return done[0]


class _Merging:
    def __init__(self, connection: sqlite3.Connection, source: sqlite3.Connection, unnamed: str, name: str) -> None:
        self._to, self._from, self._unnamed, self._name = connection, source, unnamed, name
        self._sittings: dict[str, tuple[int, str]] = {}  # of the other: row id here, operator
        self._names: dict[str, str] = {}  # sets and answers that have another name here

    def check_base(self) -> None:
        ours, theirs = (connection.execute("SELECT base_hash, name FROM base_models").fetchone() for connection in (self._to, self._from))
        if ours and theirs and ours[0] != theirs[0]:
            raise JournalError(
                f"the databases belong to two models: {ours[1]} and {theirs[1]}", "judgements of texts alone go by an export, such as trl-preference"
            )
        if theirs and not ours:
            columns = "base_hash, name, quantize, parameters, layers"
            base = BaseModel(*self._from.execute(f"SELECT {columns} FROM base_models").fetchone())
            provenance.bind_base(self._to, base)

    def run(self) -> Merged:
        added: Counter[str] = Counter()
        known = left = 0
        for logged in rows.logged(self._from, "v_live", "1", ()):
            if isinstance(logged.judgement, Calibration):
                self._bring_window(logged)
                continue
            if not isinstance(logged.judgement, CARRIED):
                left += 1
                continue
            sitting, operator = self._sitting(logged.sitting_uid)
            judgement = self._here(logged.judgement, operator)
            if self._is_known(logged, judgement, operator):
                known += 1
                continue
            self._make_room(judgement, operator)
            judgements.append(self._to, sitting, judgement)
            added[operator] += 1
        return Merged(sum(added.values()), known, left, dict(added))

    def _bring_window(self, logged: Logged) -> None:
        """How late somebody's taps come; it holds for their own taps alone."""
        sitting, _ = self._sitting(logged.sitting_uid)
        payload = _encode(logged.judgement).decode()
        there = "SELECT 1 FROM events e JOIN sittings i ON i.id = e.sitting_id WHERE e.kind = 'calibration' AND e.payload = ? AND i.uid = ?"
        if self._to.execute(there, (payload, logged.sitting_uid)).fetchone() is None:
            judgements.append(self._to, sitting, logged.judgement)

    def _sitting(self, uid: str) -> tuple[int, str]:
        """The same sitting here, with its operator, but without a model: what it drew was drawn elsewhere."""
        if uid not in self._sittings:
            operator, app_version, settings = self._from.execute(
                "SELECT operator, app_version, settings FROM sittings WHERE uid = ?", (uid,)
            ).fetchone()
            known = self._to.execute("SELECT id, operator FROM sittings WHERE uid = ?", (uid,)).fetchone()
            name = known[1] if known else self._unnamed if operator == DEFAULT_OPERATOR else operator
            told = json.dumps({"merged from": self._name, "settings": json.loads(settings)})
            row = known[0] if known else provenance.bind(self._to, None, Sitting(uid, "", app_version, told, operator=name))
            self._sittings[uid] = (row, name)
        return self._sittings[uid]

    # --- sets and answers ------------------------------------------------------------------------------------------------

    def _here(self, judgement: Any, operator: str) -> Judgement:
        """The judgement about the set as it is called here; the set and what was shown of it are brought over first."""
        uid = judgement.set_uid
        if uid not in self._names:
            self._bring(uid, operator)
        elif self._names[uid] == uid and self._judged_by_another(judgement, operator):
            self._bring(uid, operator, another=True)
        renamed = {"set_uid": self._names[uid]}
        if isinstance(judgement, Ranking):
            renamed["ranks"] = {self._names.get(answer, answer): rank for answer, rank in judgement.ranks.items()}  # type: ignore[assignment]
        elif getattr(judgement, "response_uid", None) is not None:
            renamed["response_uid"] = self._names.get(judgement.response_uid, judgement.response_uid)
        return replace(judgement, **renamed)  # type: ignore[no-any-return]

    def _bring(self, uid: str, operator: str, another: bool = False) -> None:
        (found,) = rows.sample_sets(self._from, "s.uid = ?", (uid,))
        first = self._first_judgement(uid)
        apart = another or (first is not None and not self._is_there(first, operator) and self._judged_by_another(first, operator))
        answers = rows.responses(self._from, "s.uid = ?", (uid,))
        shown = rows.shown(self._from, "s.uid = ?", (uid,)).values()
        self._names[uid] = _apart(uid, operator) if apart else uid
        for name in {answer.uid for answer in answers} | {one.response_uid for one in shown}:
            self._names[name] = _apart(name, operator) if apart else name
        if self._to.execute("SELECT 1 FROM sample_sets WHERE uid = ?", (self._names[uid],)).fetchone() is None:
            self._write_set(found, answers)
        for one in shown:
            self._write_shown(one)

    def _write_set(self, found: SampleSet, answers: list[Response]) -> None:
        self._sitting(found.sitting_uid)
        purpose = REPEAT if found.purpose == REPEAT else "imported"
        provenance.write(self._to, None, replace(found, uid=self._names[found.uid], purpose=purpose, blind_base=None, blind_acting=None))
        for answer in answers:
            names = {"uid": self._names[answer.uid], "set_uid": self._names[found.uid]}
            origin = self._name if answer.origin == DRAWN else answer.origin
            version = f"{self._name}:{answer.version}" if answer.version is not None else None
            provenance.write(self._to, None, replace(answer, **names, origin=origin, version=version))
        sql = "SELECT k.content, k.teaches FROM kept_rows k JOIN sample_sets s ON s.id = k.set_id WHERE s.uid = ?"
        for content, teaches in self._from.execute(sql, (found.uid,)):
            provenance.write(self._to, None, KeptRow(self._names[found.uid], kept.sound(content), bool(teaches)))

    def _write_shown(self, shown: Shown) -> None:
        """What was shown may have gone on since it was merged last."""
        name = self._names[shown.response_uid]
        (there,) = self._to.execute("SELECT count(*) FROM shown_tokens WHERE response_uid = ?", (name,)).fetchone()
        if there < len(shown.token_ids):
            columns = {column: getattr(shown, column)[there:] for column in ("token_ids", "texts", "seconds", "h_epochs", "betas")}
            provenance.write(self._to, None, Shown(self._names[shown.set_uid], name, there, **columns))

    # --- what stands here already ----------------------------------------------------------------------------------------

    def _first_judgement(self, uid: str) -> Judgement | None:
        where = "e.set_id = (SELECT id FROM sample_sets WHERE uid = ?)"
        found: list[Logged] = rows.logged(self._from, "v_live", where, (uid,))
        return next((logged.judgement for logged in found if isinstance(logged.judgement, CARRIED)), None)

    def _is_there(self, judgement: Judgement, operator: str) -> bool:
        """Said by them, also where it was undone here since."""
        sql = """SELECT 1 FROM events e JOIN sample_sets s ON s.id = e.set_id JOIN sittings i ON i.id = e.sitting_id
            WHERE s.uid = ? AND e.kind = ? AND e.payload = ? AND i.operator = ?"""
        values = (judgement.set_uid, type(judgement).__struct_config__.tag, _encode(judgement).decode(), operator)  # type: ignore[union-attr]
        return self._to.execute(sql, values).fetchone() is not None

    def _is_known(self, there: Logged, judgement: Judgement, operator: str) -> bool:
        """Whether the other's live judgement, `judgement` in the names of here, was taken over. What can be said anew may be said as it was before:
        then it is there more often than here, and is not the last word here."""
        subject = judgements.subject_of(judgement)
        if subject is None:
            return self._is_there(judgement, operator)
        said = """SELECT e.payload FROM events e JOIN sittings i ON i.id = e.sitting_id
            WHERE e.kind = ? AND e.subject = ? AND i.operator = ? ORDER BY e.seq"""
        kind, payload = type(judgement).__struct_config__.tag, _encode(judgement).decode()  # type: ignore[union-attr]
        here = [each for (each,) in self._to.execute(said, (kind, subject, operator))]
        if here[-1:] == [payload]:
            return True
        again = """SELECT count(*) FROM events o JOIN events e USING (kind, subject, payload) JOIN sittings i ON i.id = e.sitting_id
            WHERE o.seq = ? AND i.operator = (SELECT s.operator FROM sittings s WHERE s.id = o.sitting_id)"""
        return int(self._from.execute(again, (there.seq,)).fetchone()[0]) <= here.count(payload)

    def _standing(self, judgement: Judgement) -> list[tuple[int, str, str]]:
        """Standing judgements of its kind in its place: number, payload, operator."""
        event = {"s.uid": judgement.set_uid, "e.kind": type(judgement).__struct_config__.tag}  # type: ignore[union-attr]
        sql = "SELECT e.seq, e.subject, i.operator FROM v_standing e JOIN sample_sets s ON s.id = e.set_id JOIN sittings i ON i.id = e.sitting_id"
        found = self._to.execute(f"{sql} WHERE {' AND '.join(f'{name} = ?' for name in event)}", tuple(event.values())).fetchall()
        subject = judgements.subject_of(judgement)
        return [row for row in found if row[1] == subject]

    def _judged_by_another(self, judgement: Judgement, operator: str) -> bool:
        """Whether it would replace, or be refused for, what somebody else said here."""
        if isinstance(judgement, Tap | Arm | Skip | Span | Comment | Flag):
            return False
        return any(who != operator for _, _, who in self._standing(judgement))

    def _make_room(self, judgement: Judgement, operator: str) -> None:
        """A ranking that its operator has made anew since: the earlier one is undone here too."""
        if isinstance(judgement, Ranking):
            for seq, _, who in self._standing(judgement):
                if who == operator:
                    judgements.append(self._to, self._sittings_of(operator), Undo(seq))

    def _sittings_of(self, operator: str) -> int:
        return next(row for row, name in self._sittings.values() if name == operator)


def _apart(name: str, operator: str) -> str:
    """The name of a copy: always the same for the same person."""
    return hashlib.sha256(f"{name}/{operator}".encode()).hexdigest()[:28]
