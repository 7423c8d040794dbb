"""What a source holds, read once through and before anything is written: recognised shapes, counts, what was no row, what learners cannot use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from storage.database import JournalError
from storage.exchange.items import Judged, Row
from storage.exchange.shapes import NAMED, SHAPES, BadRow, Shape, shape_of
from storage.exchange.shapes.mapping import columns_in_words, mapped, proposal, with_rest
from storage.exchange.sources import Complain, Source
from storage.exchange.spool import Spool

SHOWN = 3
"""Malformed rows that are named, and judgements that are shown."""
ENOUGH = 1000
"""Rows of which none is understood: the rest will not be either."""
MOST_PEOPLE = 100
"""Who judged is told apart up to here; where everybody judged once, it tells nothing."""
SCALES = ((0, 1), (-1, 1), (1, 5), (0, 4), (0, 5), (1, 7), (1, 10), (0, 10), (0, 100))
Range = tuple[float, float]


class Understood(NamedTuple):
    """One row, or rows that belong together, as it was understood."""

    number: int
    shape: Shape
    judged: tuple[Judged, ...]


class Together(dict[str, Any]):
    """Rows that are read as one, under 'rows'."""


class Reading:
    """A source read by some shapes, or through a map."""

    def __init__(self, source: Source, format: str = "", mapping: Mapping[str, str] | None = None) -> None:
        if format and format not in NAMED:
            raise JournalError(f"{format!r} cannot be imported", f"use one of {', '.join((*NAMED, 'tamer'))}")
        self.source, self.format, self.mapping = source, format, dict(mapping or {})
        self._among = NAMED.get(format, SHAPES)

    def __call__(self, complain: Complain, seen: Callable[[Row], None] = lambda row: None) -> Iterator[Understood]:
        for number, row in self._grouped(complain):
            seen(row)
            try:
                yield self._understood(number, row)
            except BadRow as error:
                complain(number, str(error))
            except RecursionError:
                complain(number, "nested too deeply")
            except Exception as error:  # whatever a row of any kind can do to a reader: the others go on
                complain(number, f"not understood ({type(error).__name__})")

    def _understood(self, number: int, row: Row) -> Understood:
        told = mapped(row, self.mapping) if self.mapping else row
        shape = self._among[0] if len(self._among) == 1 else shape_of(_one(told), self._among)
        if shape is None:
            raise BadRow(f"neither a comparison, a label nor an answer: it has {', '.join(sorted(map(str, row))[:5]) or 'nothing'}")
        judged = tuple(shape.read(told))  # a row counts as a whole
        return Understood(number, shape, tuple(with_rest(one, row, self.mapping) for one in judged) if self.mapping else judged)

    def _grouped(self, complain: Complain) -> Iterator[tuple[int, Row]]:
        """Rows; of shapes that need several at once, those that follow each other, together."""
        groups = [shape for shape in self._among if shape.group]
        if not groups or self.mapping:
            yield from self.source.rows(complain)
            return
        rows = self.source.rows(complain)
        for (shape, _), group in groupby(rows, key=lambda each: next(((s, each[1].get(s.group)) for s in groups if s.fits(each[1])), (None, None))):
            if shape is None:
                yield from group
            else:
                together = list(group)
                yield together[0][0], Together(rows=[row for _, row in together])


class Survey:
    """The counts of a reading."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.rows = self.items = self.bad = self.not_learned = 0
        self.complaints: list[str] = []
        self.shapes: Counter[str] = Counter()
        self.said: Counter[str] = Counter()  # kinds of judgements
        self.not_used: Counter[str] = Counter()  # rows by what learners cannot use in them
        self.columns: Counter[str] = Counter()  # rows by the columns that are kept beside them
        self.shown: list[tuple[str, Judged]] = []
        self.people: set[str] = set()
        self.ranges: dict[str, Range] = {}
        self._first: Row | None = None
        self.spool = Spool()
        try:
            for each in reading(self._complain, self._see):
                for judged in each.judged:
                    self._count(each.shape.name, self.spool.add(each.shape.name, judged))
        except OSError as error:
            raise JournalError(f"no room beside the import: {error.strerror or error}", "free some space, or set TMPDIR") from error
        self.sha256 = reading.source.sha256()

    def _see(self, row: Row) -> None:
        self.rows += 1
        self._first = self._first or row
        if self.rows == ENOUGH and not self.items:
            raise self.unknown()

    def _complain(self, line: int, why: str) -> None:
        self.bad += 1
        if len(self.complaints) < SHOWN:
            self.complaints.append(f"line {line}: {why}")

    def _count(self, shape: str, judged: Judged) -> None:
        self.items += 1
        self.shapes[shape] += 1
        for kind in kinds_of(judged):
            self.said[kind] += 1
        if judged.by is not None and len(self.people) <= MOST_PEOPLE:
            self.people.add(judged.by)
        for _, criterion, score in judged.scored:
            low, high = self.ranges.get(criterion, (score, score))
            self.ranges[criterion] = (min(low, score), max(high, score))
        if len(self.shown) < SHOWN:
            self.shown.append((shape, judged))
        if (kept := judged.kept) is not None:
            self.not_learned += bool(kept.why)
            for what in (*kept.why, *kept.besides):
                self.not_used[what] += 1
            for name in kept.columns:
                self.columns[name] += 1

    def scale(self, criterion: str) -> Range:
        """The usual scale that all scores lie on, or their own range."""
        low, high = self.ranges[criterion]
        if low == high:  # says nothing
            return low, high
        return next((scale for scale in SCALES if scale[0] <= low and high <= scale[1]), (low, high))

    def unknown(self) -> JournalError:
        """Why nothing of it could be used, and what to try."""
        name, format = self.reading.source.name, self.reading.format
        if self.reading.mapping:
            return JournalError(f"{name}: nothing can be read by this map: {'; '.join(self.complaints) or 'no rows'}", "it has " + self._columns())
        if format or self._first is None:
            return JournalError(f"{name} has nothing that {format or 'an import'} could mean", "check --format" if format else "check the file")
        if (shape := shape_of(_one(self._first))) is not None:
            why = f"nothing in it can be used: {'; '.join(self.complaints)}" if self.complaints else "nothing in it was judged"
            return JournalError(f"{name}: {shape.what}, and {why}", "check the rows, or say with --map what is what")
        hint = (
            f"try --map {tried}"
            if (tried := proposal(_one(self._first)))
            else "say with --map what is what, such as --map prompt=question response=text"
        )
        return JournalError(f"{name} has rows of a shape that is not known, with {self._columns()}", hint)

    def _columns(self) -> str:
        return columns_in_words(_one(self._first or {})) or "no columns"


def _one(row: Row) -> Row:
    """The first of several."""
    return row["rows"][0] if isinstance(row, Together) else row  # type: ignore[no-any-return]


def kinds_of(judged: Judged) -> Iterator[str]:
    if judged.ranks:
        yield "comparison" if len(judged.ranks) == 2 else "ranking"
    yield from ("rating",) * (len(judged.ratings) + len(judged.scored))
    yield from ("demonstration",) * (judged.written is not None)
    yield from ("correction",) * len(judged.corrections)
    yield from ("comment",) * len(judged.comments)
    yield from ("critique",) * len(judged.critiques)
    yield from ("step",) * len(judged.steps)
