"""Imports: a file's judgements into the log, as if they had been made here, with where they came from. All of a file or nothing of it.

A file is read twice: to see whether all of it can be used, and to write it, in one transaction. What was imported before, by content, is passed over.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from storage.database import JournalError
from storage.exchange import lossless
from storage.exchange.items import Item, Labelled, PreferencePair, Ranked, Steps, Written
from storage.exchange.parsing import PARSERS, BadRow, Row
from storage.journal import Journal
from storage.provenance import Record as Writable
from storage.queries import Record
from storage.records import Demonstration, Import, ImportedItem, Judgement, Prompt, Ranking, Rating, Response, SampleSet, Sitting, Span, new_uid

LONGEST_LINE = 64 * 2**20
"""Bytes; a longer one is malformed."""
SHOWN = 3
"""Malformed lines that are named."""
LABEL = {True: 6, False: 2}
"""The rating that a label becomes: with these, an export gives the label back."""


class Imported(Struct, frozen=True):
    """What an import did."""

    format: str
    added: int  # judgements
    known: int  # items that were there before
    skipped: int  # malformed lines
    complaints: tuple[str, ...] = ()  # about the first of them


def import_file(journal: Journal, file: Path, format: str, app_version: str, skip_bad: bool = False) -> Imported:
    """Raises JournalError, and then nothing was written."""
    if format == lossless.NAME:
        return _restore(journal, file)
    if format not in PARSERS:
        raise JournalError(f"{format!r} cannot be imported", f"use one of {', '.join((*PARSERS, lossless.NAME))}")
    survey = _Survey(file, format)
    if survey.bad and not skip_bad:
        more = f"; {survey.bad - len(survey.complaints)} more" if survey.bad > len(survey.complaints) else ""
        raise JournalError(f"{file.name}: {'; '.join(survey.complaints)}{more}", "nothing was imported: --skip-bad leaves such lines out")
    if not survey.items:
        raise JournalError(f"{file.name} has nothing that {format} could mean", "check --format")
    with Record(journal.path) as record:
        if record.imported_file(survey.sha256, format):
            return Imported(format, 0, survey.items, survey.bad, tuple(survey.complaints))
    sitting = new_uid()
    journal.bind(None, Sitting(sitting, "", app_version, msgspec.json.encode({"format": format}).decode(), operator=f"import {format}"))
    with Record(journal.path) as record:
        known = _Known(record)
        records = _records(survey, sitting, format, known, Import(new_uid(), survey.sha256, format, file.name, survey.items, survey.bad))
        seqs = journal.together(records).result()
    return Imported(format, len(seqs), known.count, survey.bad, tuple(survey.complaints))


def _restore(journal: Journal, file: Path) -> Imported:
    rows = _rows_of(file, _refuse)
    try:
        lossless.check_heading(next(rows, (0, {}))[1])
    except ValueError as error:
        raise JournalError(f"{file.name}: {error}") from error
    added = journal.run(lambda connection: lossless.restore(connection, (row for _, row in rows))).result()
    return Imported(lossless.NAME, added, 0, 0)


def _refuse(line: int, why: str) -> None:
    raise JournalError(f"line {line}: {why}", "the file is not whole: export it again")


# --- reading files ---------------------------------------------------------------------------------------------------------


class _Survey:
    """What a file holds, read once through."""

    def __init__(self, file: Path, format: str) -> None:
        self._file, self._parse = file, PARSERS[format]
        self.bad, self.complaints = 0, list[str]()
        self.items = sum(1 for _ in self._read(self._complain))
        self.sha256 = _sha256(file)

    def __iter__(self) -> Iterator[Item]:
        return self._read(lambda line, why: None)

    def _complain(self, line: int, why: str) -> None:
        self.bad += 1
        if len(self.complaints) < SHOWN:
            self.complaints.append(f"line {line}: {why}")

    def _read(self, complain: Callable[[int, str], None]) -> Iterator[Item]:
        for number, row in _rows_of(self._file, complain):
            try:
                items = list(self._parse(row))  # a line counts as a whole
            except BadRow as error:
                complain(number, str(error))
                continue
            yield from items


def _rows_of(file: Path, complain: Callable[[int, str], None]) -> Iterator[tuple[int, Row]]:
    """Lines of JSON objects, or the elements of one JSON list, with their numbers; also compressed with gzip. Raises JournalError."""
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(file.open("rb"))
            start = stream.peek(4)[:4]
            if start[:4] == b"PAR1":
                yield from _parquet(file)
                return
            plain: Any = stack.enter_context(gzip.open(stream)) if start[:2] == b"\x1f\x8b" else stream
            yield from _json_rows(plain, complain)
    except (OSError, EOFError) as error:
        raise JournalError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _json_rows(stream: BinaryIO, complain: Callable[[int, str], None]) -> Iterator[tuple[int, Row]]:
    decode, number = msgspec.json.Decoder().decode, 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST_LINE)
            complain(number, f"longer than {LONGEST_LINE // 2**20} MB")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if line.lstrip().startswith(b"["):
                yield from _elements(line + stream.read(LONGEST_LINE), complain)
                return
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            complain(number, "not UTF-8" if "utf-8" in str(error).lower() else "no JSON")
            continue
        except RecursionError:
            complain(number, "nested too deeply")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            complain(number, "no JSON object")


def _elements(content: bytes, complain: Callable[[int, str], None]) -> Iterator[tuple[int, Row]]:
    """Of a list, numbered from 1."""
    if len(content) > LONGEST_LINE:
        raise JournalError(f"a JSON list of more than {LONGEST_LINE // 2**20} MB", "write one object a line")
    try:
        rows = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        complain(1, "no JSON")
        return
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            complain(number, "no JSON object")


def _parquet(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise JournalError("parquet needs pyarrow", "pip install 'tamer-tui[parquet]'") from None
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1000):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as error:
        raise JournalError(f"{file.name} is no whole Parquet file: {str(error).splitlines()[0][:100]}") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- items become records --------------------------------------------------------------------------------------------------


class _Known:
    """Items that are in the database, or came earlier in the file."""

    def __init__(self, record: Record) -> None:
        self._record, self._seen = record, set[bytes]()
        self.count = 0

    def __contains__(self, sha256: str) -> bool:
        short = bytes.fromhex(sha256)[:16]
        if short in self._seen or self._record.imported(sha256):
            self.count += 1
            return True
        self._seen.add(short)
        return False


def _records(survey: _Survey, sitting: str, format: str, known: _Known, heading: Import) -> Iterator[Judgement | Writable]:
    begun = False
    for item in survey:
        sha256 = hashlib.sha256(msgspec.json.encode([type(item).__name__, item])).hexdigest()
        if sha256 in known:
            continue
        if not begun:
            yield heading
            begun = True
        uid = new_uid()
        yield from _set(item, uid, sitting, format)
        yield ImportedItem(sha256, heading.uid, uid)


def _set(item: Item, uid: str, sitting: str, format: str) -> Iterator[Judgement | Writable]:
    """A set with its answers, and what was said of them."""
    texts: tuple[str, ...]
    match item:
        case PreferencePair(_, chosen, rejected, _):
            texts = (chosen, rejected)
        case Ranked(_, answers, _):
            texts = answers
        case Labelled(_, answer, _):
            texts = (answer,)
        case Steps(_, sentences, _):
            texts = ("".join(sentences),)
        case Written():
            texts = ()
    answers = tuple(f"{uid}{slot:02x}" for slot in range(len(texts)))
    yield SampleSet(uid, sitting, Prompt(item.messages, format), max(1, len(texts)), "imported")
    for slot, (answer, text) in enumerate(zip(answers, texts, strict=True)):
        yield Response.written_elsewhere(answer, uid, slot, text, format)
    match item:
        case PreferencePair():
            yield Ranking(uid, {answers[0]: 1, answers[1]: 2})
        case Ranked(_, _, ranks):
            yield Ranking(uid, {answer: rank for answer, rank in zip(answers, ranks, strict=True) if rank is not None})
        case Labelled(_, _, good):
            yield Rating(uid, answers[0], LABEL[good])
        case Written(_, text):
            yield Demonstration(uid, text)
        case Steps(_, sentences, good):
            start = 0
            for sentence, fine in zip(sentences, good, strict=True):
                yield Span(uid, answers[0], start, start + len(sentence), "step", 1.0 if fine else -1.0)
                start += len(sentence)
