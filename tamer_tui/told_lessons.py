"""What the engine is told of the log: at its start, and as judgements come and go."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from learners import protocol
from learners.protocol import Answer, Command, Lesson
from storage.lessons import Taught
from storage.lessons import Teaching as Listed
from storage.queries import Record
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
"""Judgements; where there are more of the operator's own, the engine gets a sample of them before the first answer."""
SAMPLE = 256
"""Judgements in it, and in that of the imported ones, with which the rest of the log begins."""


class ToldLessons:
    """Keeps account of what the engine knows."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._sent: dict[str, set[int]] = {}  # set uid -> seqs that the engine has learned from
        self._over: dict[int, frozenset[str]] = {}  # seq of what was told -> uids of the answers that it beats besides
        self._changed: set[str] = set()  # uids of sets that `changes` has told all of
        self._known: set[int] | None = None  # what the engine knew before, where something is told after the first answer

    def begin(self, whole: bool) -> Iterator[Command]:
        """For an engine that knows nothing: everything live and the end of it, or, where some is imported or there is much, what it should know
        before the first answer. `rest` goes on from there."""
        self._sent.clear()
        self._over.clear()
        yield from self._first(set(), whole)

    def go_on(self, runs: Iterable[tuple[int, int]]) -> Iterator[Command]:
        """For an engine that knows these judgements (first and last of each run): what it lacks, and what is not live any more."""
        known = {seq for first, last in runs for seq in range(first, last + 1)}
        live = {each.seq for each in self._record.teaching()}
        self._sent = {}
        for seq, set_uid in self._record.sets_of(sorted(live & known)).items():
            self._sent.setdefault(set_uid, set()).add(seq)
        for seq in sorted(known - live):
            yield protocol.Retract(seq=seq)
        yield from self._first(known)

    def rest(self) -> Iterator[Command]:
        """What `begin` or `go_on` left out, a sample of what was imported first, and the end of it; nothing where nothing was left out. Each line is
        right at the moment at which it is taken."""
        known, self._known = self._known, None
        if known is None:
            return
        left = [each for each in self._record.teaching() if each.seq not in known]
        if imported := [each for each in left if each.imported and each.kind != "critique"]:
            yield from self._sample(imported, len(left))
        yield from self._lines(self._lessons([each.seq for each in left]), of=len(left))

    def _first(self, known: set[int], whole: bool = False) -> Iterator[Command]:
        """Before the first answer: what the operator judged, or a sample of it. Nobody waits for what was imported."""
        self._changed.clear()
        acting = self._record.acting_version()
        stale = acting is not None and acting.stale
        everything = whole or not self._record.has_imports()
        listed = [each for each in self._record.teaching(own=not everything) if each.seq not in known]
        if whole or (everything and len(listed) <= LONG_LOG):
            self._known = None
            yield from self._lines(self._lessons([each.seq for each in listed]), stale=stale)
            return
        self._known = known
        of = max(len(listed), self._record.counts().judged)  # about: `rest` counts
        if len(listed) > LONG_LOG:
            yield from self._sample(listed, of, stale)
        else:
            yield from self._lines(self._lessons([each.seq for each in listed]), True, of, stale)

    def _sample(self, listed: Sequence[Listed], of: int, stale: bool = False) -> Iterator[Command]:
        place = {seq: i for i, seq in enumerate(stratified(listed, SAMPLE))}
        found = sorted(self._lessons(list(place)), key=lambda taught: place[taught.logged.seq])
        yield from self._lines(found, True, of, stale)

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

    def _lines(self, lessons: Iterable[Taught], sample: bool = False, of: int = 0, stale: bool = False) -> Iterator[Command]:
        """Chunks of those that the engine does not know yet."""
        chunk: list[tuple[str, Lesson]] = []
        characters = 0
        for taught in lessons:
            lesson = self._told(taught)
            size = _characters(lesson)
            if chunk and (len(chunk) == REPLAY_CHUNK or characters + size > REPLAY_CHARACTERS):
                yield protocol.Replay(lessons=self._unknown(chunk), sample=sample, of=of, stale=stale)
                chunk, characters = [], 0
            chunk.append((taught.sample_set.uid, lesson))
            characters += size
        yield protocol.Replay(lessons=self._unknown(chunk), last=True, sample=sample, of=of, stale=stale)

    def _unknown(self, chunk: list[tuple[str, Lesson]]) -> tuple[Lesson, ...]:
        """Those that were not told in the meantime; from now on they are."""
        new = [(uid, lesson) for uid, lesson in chunk if uid not in self._changed and lesson.seq not in self._sent.get(uid, ())]
        for uid, lesson in new:
            self._sent.setdefault(uid, set()).add(lesson.seq)
        return tuple(lesson for _, lesson in new)


def stratified(teaching: Sequence[Listed], n: int) -> list[int]:
    """Seqs of at most `n` judgements, in an order of which each beginning is a sample too: of every kind its share, spread over the log. The same log
    gives the same sample."""
    by_kind = sorted(teaching, key=lambda each: (each.kind, each.seq))
    n = min(n, len(by_kind))
    found = [by_kind[i * len(by_kind) // n].seq for i in range(n)]
    random.Random(n).shuffle(found)
    return found


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
