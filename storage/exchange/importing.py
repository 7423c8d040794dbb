"""Imports: a source's judgements into the log, as if they had been made here, with where they came from. All that can be used of it, or nothing.

A source is read once, and what was understood of it is written in one transaction. What was imported before, by content, is passed over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import Struct

from storage import bulk, provenance
from storage.database import JournalError
from storage.exchange import lossless
from storage.exchange.items import Judged
from storage.exchange.shapes.pieces import on_scale
from storage.exchange.sources import Source
from storage.exchange.spool import by
from storage.exchange.survey import MOST_PEOPLE, Reading, Survey
from storage.journal import Journal
from storage.progress import CancelledError, Step, unwatched
from storage.queries import Record
from storage.records import Comment, Correction, Critique, Demonstration, Import, Judgement, Prompt, Ranking, Rating, Sitting, Span, new_uid


class Imported(Struct, frozen=True):
    """What an import did."""

    format: str
    added: int  # judgements
    known: int  # items that were there before
    skipped: int  # malformed rows
    complaints: tuple[str, ...] = ()  # about the first of them


def import_file(
    journal: Journal,
    file: Path,
    format: str = "",
    app_version: str = "0",
    skip_bad: bool = False,
    operator: str = "",
    mapping: Mapping[str, str] | None = None,
    step: Step = unwatched,
) -> Imported:
    """All of a file; with `skip_bad` without its malformed rows. Raises JournalError, and then nothing was written."""
    source = Source(file)
    if format == lossless.NAME or (not format and not mapping and is_whole(source)):
        return restore(journal, source)
    survey = Survey(Reading(source, format, mapping))
    if survey.bad and not skip_bad:
        more = f"; {survey.bad - len(survey.complaints)} more" if survey.bad > len(survey.complaints) else ""
        raise JournalError(f"{source.name}: {'; '.join(survey.complaints)}{more}", "nothing was imported: --skip-bad leaves such lines out")
    return take(journal, survey, app_version, operator, step)


def take(journal: Journal, survey: Survey, app_version: str, operator: str = "", step: Step = unwatched) -> Imported:
    """Write what a survey found. Raises JournalError, and then nothing was written."""
    if not survey.items:
        raise survey.unknown()
    name = survey.reading.format or survey.shapes.most_common(1)[0][0]
    known = Imported(name, 0, survey.items, survey.bad, tuple(survey.complaints))
    plain = not (survey.reading.source.hub_id or survey.reading.mapping or operator)
    with Record(journal.path) as record:
        if plain and record.imported_file(survey.sha256, name):
            return known

    def write(connection: sqlite3.Connection) -> bulk.Written:
        sets = _sets(survey, _People(connection, survey, name, operator, app_version), operator, step)
        first = next(sets)
        heading = Import(new_uid(), survey.sha256, name, survey.reading.source.name, survey.items, survey.bad)
        provenance.write(connection, first.sitting[0], heading)
        (import_id,) = connection.execute("SELECT id FROM imports WHERE uid = ?", (heading.uid,)).fetchone()
        written = bulk.write(connection, import_id, chain([first], sets))
        if not written.sets:
            raise _NothingNewError
        return written

    try:
        written = journal.run(write).result()
    except JournalError as error:
        if isinstance(error.__cause__, _NothingNewError):
            return known
        if isinstance(error.__cause__, CancelledError):
            raise JournalError("cancelled", "nothing was imported") from error
        raise
    return Imported(name, written.judgements, survey.items - written.sets, survey.bad, tuple(survey.complaints))


class _NothingNewError(Exception):
    """Takes back what was written."""


class _People:
    """A sitting for each person who judged, made where it is first needed."""

    def __init__(self, connection: sqlite3.Connection, survey: Survey, format: str, operator: str, app_version: str) -> None:
        self._connection, self._app_version = connection, app_version
        self._settings = msgspec.json.encode({"format": format} | ({"map": survey.reading.mapping} if survey.reading.mapping else {})).decode()
        self._operator = operator or f"import {format}"
        self._apart = 1 < len(survey.people) <= MOST_PEOPLE or (len(survey.people) == 1 and not operator)
        self._sittings: dict[str, tuple[int, str]] = {}

    def of(self, person: str | None) -> tuple[int, str]:
        """Row id and uid of the sitting."""
        name = f"{self._operator}/{_plain(person)}" if person and self._apart else self._operator
        if name not in self._sittings:
            sitting = Sitting(new_uid(), "", self._app_version, self._settings, operator=name)
            self._sittings[name] = (provenance.bind(self._connection, None, sitting), sitting.uid)
        return self._sittings[name]


def _plain(name: str) -> str:
    return name.encode("utf-8", "replace").decode().replace(":", "_")[:100]


# --- the whole database ----------------------------------------------------------------------------------------------------


def is_whole(source: Source) -> bool:
    """Whether it is an export of `--format tamer`."""
    if source.hub_id or not source.path.is_file():
        return False
    _, first = next(source.rows(lambda line, why: None), (0, {}))
    return first.get("format") == lossless.NAME and "schema" in first


def restore(journal: Journal, source: Source, dry_run: bool = False) -> Imported:
    """Add what the database lacks, and what a dry run added is taken back. Raises JournalError, and then nothing was written."""
    rows = source.rows(_refuse)
    try:
        lossless.check_heading(next(rows, (0, {}))[1])
    except ValueError as error:
        raise JournalError(f"{source.name}: {error}") from error
    added: list[int] = []

    def write(connection: sqlite3.Connection) -> None:
        added.append(lossless.restore(connection, (row for _, row in rows)))
        if dry_run:
            raise _NothingNewError

    try:
        journal.run(write).result()
    except JournalError as error:
        if not isinstance(error.__cause__, _NothingNewError):
            raise
    return Imported(lossless.NAME, added[0], 0, 0)


def _refuse(line: int, why: str) -> None:
    raise JournalError(f"line {line}: {why}", "the file is not whole: export it again")


# --- what was judged becomes records ---------------------------------------------------------------------------------------


def _sets(survey: Survey, people: _People, operator: str, step: Step) -> Iterator[bulk.JudgedSet]:
    format = survey.reading.format
    for done, each in enumerate(survey.spool):
        step(done, survey.items)
        judged, uid = each.judged, new_uid()
        answers = [(f"{uid}{slot:02x}", text) for slot, text in enumerate(judged.answers)]
        said = list(_judgements(judged, uid, [name for name, _ in answers], survey))
        content = each.content if judged.by else by(each.content, operator)
        yield bulk.JudgedSet(
            people.of(judged.by), uid, Prompt(judged.messages, format or each.shape), answers, said, content, each.kept, each.teaches
        )


def _judgements(judged: Judged, uid: str, answers: list[str], survey: Survey) -> Iterator[Judgement]:
    if judged.ranks:
        yield Ranking(uid, {answer: rank for answer, rank in zip(answers, judged.ranks, strict=True) if rank is not None}, strength=judged.strength)
    for slot, criterion, value in judged.ratings:
        yield Rating(uid, answers[slot], value, criterion)
    for slot, criterion, score in judged.scored:
        low, high = survey.scale(criterion)
        yield Rating(uid, answers[slot], on_scale(score, low, high) if high > low else 4, criterion)
    if judged.written is not None:
        yield Demonstration(uid, judged.written)
    for slot, text in judged.corrections:
        yield Correction(uid, answers[slot], text)
    for place, text in judged.comments:
        yield Comment(uid, answers[place] if place is not None else None, text)
    for place, text, scope, strength in judged.critiques:
        yield Critique(uid, answers[place] if place is not None else None, text, scope, strength)  # type: ignore[arg-type]
    start = 0
    for sentence, fine in judged.steps:
        yield Span(uid, answers[0], start, start + len(sentence), "step", 1.0 if fine else -1.0)
        start += len(sentence)
