"""What the engine is told of the log: at its start, and as judgements come and go."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from learners import protocol
from learners.protocol import Answer, Command, Lesson
from storage.lessons import Teaching as Listed
from storage.queries import Record, Taught
from storage.records import Arm, Message, Response, Tap, Teaching
from storage.repeats import said_again

TEACHING = get_args(Teaching)
READ_AT_ONCE = 512
"""Lessons in memory at once."""
REPLAY_CHUNK = 32
"""Judgements in one `replay` line, at most …"""
REPLAY_CHARACTERS = 500_000
"""… and characters of text, which keeps the line under the protocol's longest; a judgement with more has a line of its own."""
LONG_LOG = 2048
"""Judgements; of a longer log the engine gets a sample before the first answer."""
SAMPLE = 256
"""Judgements in it."""


class ToldLessons:
    """Keeps account of what the engine knows."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._sent: dict[str, set[int]] = {}  # set uid -> seqs that the engine has learned from
        self._over: dict[int, frozenset[str]] = {}  # seq of what was told -> uids of the answers that it beats besides
        self._changed: set[str] = set()  # uids of sets that `changes` has told all of
        self._left: list[int] = []  # of a long log, what is not told yet

    def begin(self, whole: bool) -> Iterator[Command]:
        """For an engine that knows nothing: everything live and the end of it, or, where that is long, a sample. `rest` goes on from there."""
        self._sent.clear()
        self._over.clear()
        self._changed.clear()
        self._left = []
        if whole or self._record.counts().judged <= LONG_LOG:
            yield from self._lines(self._lessons([each.seq for each in self._record.teaching()]))
            return
        teaching = self._record.teaching()
        sample = stratified(teaching, SAMPLE)
        self._left = [each.seq for each in teaching]
        place = {seq: i for i, seq in enumerate(sample)}
        found = sorted(self._lessons(sample), key=lambda taught: place[taught.logged.seq])
        yield from self._lines(found, sample=True, of=len(teaching))

    def rest(self) -> Iterator[Command]:
        """What `begin` left out, and the end of it; nothing where it left nothing out. Each line is right at the moment at which it is taken."""
        left, self._left = self._left, []
        if left:
            yield from self._lines(self._lessons(left), of=len(left))

    def changes(self, set_uid: str) -> Iterator[Command]:
        """What the engine must be told so that it knows what is live of one set: a newer score replaces an older, an undo brings it back."""
        sent = self._sent.get(set_uid, set())
        teaches, purpose = self._record.teaches(set_uid), self._record.sample_set(set_uid).purpose
        live = {
            logged.seq
            for logged in self._record.live(set_uid)
            if teaches and isinstance(logged.judgement, TEACHING) and not said_again(purpose, logged.judgement)
        }
        self._sent[set_uid] = live
        self._changed.add(set_uid)
        for seq in sorted(sent - live):
            self._over.pop(seq, None)
            yield protocol.Retract(seq=seq)
        for seq in sorted(live - sent):
            yield protocol.AddJudgement(lesson=self._told(self._record.lesson(seq)))
        yield from self._over_again(set_uid)

    def _over_again(self, set_uid: str) -> Iterator[Command]:
        """Judgements of later sets of the same prompt beat other answers than they did: a critique of this set was taken back, or put back."""
        for seq, over in self._record.surpassed_after(set_uid).items():
            if self._over.get(seq, over) != over:
                yield protocol.Retract(seq=seq)
                yield protocol.AddJudgement(lesson=self._told(self._record.lesson(seq)))

    def _told(self, taught: Taught) -> Lesson:
        lesson = lesson_of(taught)
        self._over[lesson.seq] = frozenset(answer.uid for answer in lesson.over)
        return lesson

    def _lessons(self, seqs: Sequence[int]) -> Iterator[Taught]:
        """Read a piece at a time: an imported log may have a hundred thousand."""
        for start in range(0, len(seqs), READ_AT_ONCE):
            yield from self._record.lessons_of(seqs[start : start + READ_AT_ONCE])

    def _lines(self, lessons: Iterable[Taught], sample: bool = False, of: int = 0) -> Iterator[Command]:
        """Chunks of those that the engine does not know yet."""
        chunk: list[tuple[str, Lesson]] = []
        characters = 0
        for taught in lessons:
            lesson = self._told(taught)
            size = _characters(lesson)
            if chunk and (len(chunk) == REPLAY_CHUNK or characters + size > REPLAY_CHARACTERS):
                yield protocol.Replay(lessons=self._unknown(chunk), sample=sample, of=of)
                chunk, characters = [], 0
            chunk.append((taught.sample_set.uid, lesson))
            characters += size
        yield protocol.Replay(lessons=self._unknown(chunk), last=True, sample=sample, of=of)

    def _unknown(self, chunk: list[tuple[str, Lesson]]) -> tuple[Lesson, ...]:
        """Those that were not told in the meantime; from now on they are."""
        new = [(uid, lesson) for uid, lesson in chunk if uid not in self._changed and lesson.seq not in self._sent.get(uid, ())]
        for uid, lesson in new:
            self._sent.setdefault(uid, set()).add(lesson.seq)
        return tuple(lesson for _, lesson in new)


def stratified(teaching: Sequence[Listed], n: int) -> list[int]:
    """Seqs of at most `n` judgements, in an order of which each beginning is a sample too: as many of the operator's own as of the imported, and of
    every kind its share, spread over the log. The same log gives the same sample."""
    own, imported = [each for each in teaching if not each.imported], [each for each in teaching if each.imported]
    n_own = min(len(own), max(n // 2, n - len(imported)))
    found = _spread(own, n_own) + _spread(imported, min(len(imported), n - n_own))
    random.Random(n).shuffle(found)
    return found


def _spread(some: Sequence[Listed], n: int) -> list[int]:
    by_kind = sorted(some, key=lambda each: (each.kind, each.seq))
    return [by_kind[i * len(by_kind) // n].seq for i in range(n)]


def lesson_of(taught: Taught) -> Lesson:
    """A judgement with the answers that it speaks of, complete enough for an engine that has never seen them."""
    messages, tap = taught.sample_set.prompt.messages, taught.logged.judgement
    if isinstance(tap, Tap | Arm):
        return _watched_lesson(taught, tap, messages)
    answers, beside, over = (tuple(answer_of(r, messages) for r in some) for some in (taught.responses, taught.beside, taught.over))
    return Lesson(
        seq=taught.logged.seq,
        judgement=taught.logged.judgement,  # type: ignore[arg-type]
        answers=answers or (Answer(uid="", messages=messages, text=""),),
        beside=beside,
        over=over,
    )


def _characters(lesson: Lesson) -> int:
    """Of its texts, and what its tokens take in a line."""
    answers = (*lesson.answers, *lesson.beside, *lesson.over)
    return sum(len(a.text) + 6 * (len(a.token_ids) + len(a.prompt_ids)) + sum(len(m.content) for m in a.messages) for a in answers)


def _watched_lesson(taught: Taught, tap: Tap | Arm, messages: tuple[Message, ...]) -> Lesson:
    """A tap, or a stretch of silence, with the answer as it was on the screen then; a tap on a whole answer with all that was shown of it."""
    shown = taught.shown
    if shown is None:
        return Lesson(seq=taught.logged.seq, judgement=tap, answers=tuple(answer_of(r, messages) for r in taught.responses))
    whole = isinstance(tap, Tap) and tap.whole
    n = len(shown.token_ids) if whole else bisect_right(shown.seconds, tap.seconds)
    answer = Answer(
        uid=tap.response_uid, messages=messages, text="".join(shown.texts[:n]), prompt_ids=(), token_ids=shown.token_ids[:n]
    )  # the same while it is drawn, and after
    return Lesson(seq=taught.logged.seq, judgement=tap, answers=(answer,), shown=() if whole else shown.seconds[:n], window=taught.window)


def answer_of(response: Response, messages: tuple[Message, ...]) -> Answer:
    """A recorded answer as the engine reads it."""
    r = response
    return Answer(uid=r.uid, messages=messages, text=r.text, prompt_ids=r.prompt_ids, token_ids=r.token_ids, stop=r.stop)
