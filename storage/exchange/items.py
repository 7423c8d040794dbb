"""What trainers train on, free of any file format: exports make rows of these, imports make these of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from storage.records import Message

Messages = tuple[Message, ...]
"""A prompt: ends with the user's turn."""
Row = dict[str, Any]


class Beside(NamedTuple):
    """What an imported item has beside texts: messages as they were (None: role and text are all of it), scores, other columns."""

    prompt: tuple[Row | None, ...] = ()  # by turn, or empty
    answers: tuple[list[Row] | None, ...] = ()  # by answer of the item, or empty
    scores: tuple[float | None, ...] = ()  # by answer of the item, or empty
    columns: Row = {}
    plain: bool = True  # the texts say all that matters: no tool calls, no images

    def turn(self, place: int) -> Row | None:
        return self.prompt[place] if place < len(self.prompt) else None

    def answer(self, place: int) -> list[Row] | None:
        return self.answers[place] if place < len(self.answers) else None

    def of(self, *places: int) -> Beside:
        """For an item with these answers alone."""
        answers = tuple(self.answer(place) for place in places) if self.answers else ()
        return self._replace(answers=answers, scores=tuple(self.scores[place] for place in places) if self.scores else ())


NOTHING = Beside()


class PreferencePair(NamedTuple):
    """One answer that beat another."""

    messages: Messages
    chosen: str
    rejected: str
    margin: float  # how much better: 0 to 1, or as an imported file has it
    beside: Beside = NOTHING


class DerivedPair(NamedTuple):
    """One answer that beat another by what follows from a judgement: nobody compared them."""

    messages: Messages
    chosen: str
    rejected: str
    why: str  # 'critique' or 'demonstration'
    beside: Beside = NOTHING


class Labelled(NamedTuple):
    """One answer that was found good, or bad."""

    messages: Messages
    answer: str
    good: bool
    beside: Beside = NOTHING


class Written(NamedTuple):
    """The answer as the operator wants it."""

    messages: Messages
    text: str
    beside: Beside = NOTHING


class Steps(NamedTuple):
    """An answer in sentences, each fine or not."""

    messages: Messages
    sentences: tuple[str, ...]
    good: tuple[bool, ...]


class Ranked(NamedTuple):
    """Answers with ranks, 1 is best, dense; None: worse than any that has one, and not compared with others that have none."""

    messages: Messages
    answers: tuple[str, ...]
    ranks: tuple[int | None, ...]
    beside: Beside = NOTHING


class Criticised(NamedTuple):
    """What should be otherwise, in words: of an answer, or of whatever is answered."""

    messages: Messages
    answer: str | None
    critique: str
    scope: str  # 'prompt' or 'all'
    strength: int  # -3 to 3
    beside: Beside = NOTHING


Item = PreferencePair | DerivedPair | Labelled | Written | Steps | Ranked | Criticised


class Kept(NamedTuple):
    """What a row of a file has beside the texts and the judgements. Answers are those of the set, or else what was written."""

    prompt: tuple[Row | None, ...] = ()
    answers: tuple[list[Row] | None, ...] = ()
    scores: tuple[float | None, ...] = ()
    margin: float | None = None
    columns: Row = {}
    why: tuple[str, ...] = ()  # learners cannot use it, e.g. 'tool calls'; empty: they can
    besides: tuple[str, ...] = ()  # what is kept and not learned from although the rest is, e.g. 'reasoning'


class Judged(NamedTuple):
    """One judged set of a file: answers to a prompt and all that a row says of them. What imports make records of."""

    messages: Messages
    answers: tuple[str, ...] = ()
    ranks: tuple[int | None, ...] = ()  # by answer, or empty: not compared
    strength: int | None = None  # 0 to 3
    ratings: tuple[tuple[int, str, int], ...] = ()  # answer, criterion, 1 to 7
    scored: tuple[tuple[int, str, float], ...] = ()  # answer, criterion, on a scale that only the whole file tells
    written: str | None = None  # the answer as it should be
    corrections: tuple[tuple[int, str], ...] = ()  # answer, text
    comments: tuple[tuple[int | None, str], ...] = ()
    critiques: tuple[tuple[int | None, str, str, int], ...] = ()  # answer, text, scope, strength
    steps: tuple[tuple[str, bool], ...] = ()  # sentences that make up the one answer
    by: str | None = None  # who judged, where the row says it
    kept: Kept | None = None
