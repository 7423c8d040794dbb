"""The live judgements as the learners see them: evidence for Ĥ, comparisons and scores for the reward model, targets for SFT.

A lesson arrives with token ids where the engine drew the answer, and with text alone where it was imported or written by hand; the dataset
tokenises what lacks ids, once. What this model cannot use is refused, with a reason. A snapshot is immutable: any thread may read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

from learners.feedback.corrections import correction_weights
from learners.feedback.samples import Comparison, Scored, Target
from learners.feedback.tap_attribution import Near, attribute
from learners.feedback.tap_credit import credit, read_after, silent, window_of
from learners.model.answer_text import words_of
from learners.model.chat_format import PromptError, fit_prompt
from learners.protocol import Answer, Lesson
from storage.records import Arm, Correction, Critique, Demonstration, Message, Ranking, Rating, Tap

RATING_MIDDLE = 4.0
RATING_HALF_RANGE = 3.0
RATING_PRIOR = 2.0
"""Ratings are centred on the operator's mean, which is shrunk to the middle as if by this many ratings of it."""

LEAST_SHARE = 0.02
"""Of a tap: words that were credited less by time alone are left out …"""
LEAST_ATTRIBUTED = 0.05
"""… and those to which all taps together give less than this."""
RAGGED_END = 20
"""Characters at the end of a cut-off answer that tell whether a correction kept it."""


@dataclass(frozen=True)
class Sample:
    """A judged or written answer in tokens. `span`: only these are judged, [start, stop): what a correction changed, or a word."""

    name: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    span: tuple[int, int] | None = None
    thought: int = 0  # tokens at the end of `prompt_ids` that were thought, not asked
    word: bool = False  # `span` is a word, of a tap or of silence
    batch: tuple[tuple[int, ...], ...] = field(default=(), repr=False)  # answers to the prompt whose states are computed with its own, sorted

    @property
    def asked(self) -> tuple[int, ...]:
        """The prompt without what was thought."""
        return self.prompt_ids[: max(0, len(self.prompt_ids) - self.thought)]


class Credited(NamedTuple):
    """What a tap was about: a word, or a whole answer."""

    sample: Sample
    share: float = 1.0  # how likely it was about this one
    trust: float = 1.0  # how much such words earned beside the one that earned most


@dataclass(frozen=True)
class Feedback:
    """What the live judgements say, in the order of the log."""

    lessons: tuple[Lesson, ...]
    read: Mapping[int, tuple[Sample, ...]]  # of each lesson, by its seq: its answers in tokens

    def until(self, n: int) -> Feedback:
        """As it was when the first n of these judgements were all."""
        return Feedback(self.lessons[:n], self.read)

    @cached_property
    def samples(self) -> Mapping[str, Sample]:
        """Answers by name."""
        return {sample.name: sample for lesson in self.lessons for sample in self.read[lesson.seq]}

    @cached_property
    def credited(self) -> Mapping[int, Sequence[Credited]]:
        """Of each tap, by its seq: the words that all taps together say it was about."""
        taps: dict[int, tuple[Near, tuple[Sample, ...]]] = {}
        seen: dict[str, tuple[int, ...]] = {}  # of each tapped answer as much as was on the screen at its last tap
        for lesson in self.lessons:
            samples = self.read[lesson.seq]
            if not isinstance(tap := lesson.judgement, Tap) or tap.whole or not samples:
                continue
            seen[tap.response_uid] = max(seen.get(tap.response_uid, ()), samples[0].token_ids, key=len)
            words = tuple(sample.token_ids[slice(*sample.span)] for sample in samples if sample.span)
            taps[lesson.seq] = Near(tap.value > 0, words), samples
        found = attribute([near for near, _ in taps.values()], Counter(token for ids in seen.values() for token in ids))
        return {
            seq: [Credited(sample, share, trust) for sample, share, trust in zip(samples, *attributed, strict=True) if share >= LEAST_ATTRIBUTED]
            for (seq, (_, samples)), attributed in zip(taps.items(), found, strict=True)
        }

    def __len__(self) -> int:
        return len(self.lessons)

    @property
    def seqs(self) -> tuple[int, ...]:
        return tuple(lesson.seq for lesson in self.lessons)

    def count(self, kind: type) -> int:
        return sum(isinstance(lesson.judgement, kind) for lesson in self.lessons)

    def targets(self) -> list[tuple[int, Target]]:
        """Answers to imitate, with the judgement that gave them: demonstrations, and corrections, of which the changed words weigh most."""
        return [(lesson.seq, target) for lesson in self.lessons if (target := self._target(lesson)) is not None]

    def comparisons(self) -> list[Comparison]:
        """Rankings, and each correction as a pair with its original; then what follows from a judgement besides."""
        found = [c for lesson in self.lessons for c in (self._comparison(lesson), self._derived(lesson))]
        return [c for c in found if c is not None]

    def surpassed(self, lesson: Lesson) -> tuple[list[str], list[str]]:
        """Answers that beat others by what follows from a judgement, and those others, by name: `Lesson.over`. None where either side is empty."""
        judgement = lesson.judgement
        if isinstance(judgement, Ranking):
            best = [uid for uid, rank in judgement.ranks.items() if rank == 1]
        elif isinstance(judgement, Rating):
            best = [judgement.response_uid]
        else:
            best = [whole_name(lesson.seq)]
        known = {sample.name for sample in self.read[lesson.seq]}
        best, over = [name for name in best if name in known], [name for a in lesson.over if (name := over_name(lesson.seq, a.uid)) in known]
        return (best, over) if best and over else ([], [])

    def scores(self) -> list[Scored]:
        """Ratings, centred."""
        return [Scored(sample.prompt_ids, sample.token_ids, score, seq) for seq, name, score in self.levels() if (sample := self.samples[name])]

    def levels(self) -> list[tuple[int, str, float]]:
        """Ratings as (seq, answer, score), centred on the operator's mean for the criterion; about -1 to 1."""
        ratings = [(lesson.seq, lesson.judgement) for lesson in self.lessons if isinstance(lesson.judgement, Rating)]
        ratings = [(seq, rating) for seq, rating in ratings if rating.response_uid in self.samples]
        values: dict[str, list[int]] = {}
        for _, rating in ratings:
            values.setdefault(rating.criterion, []).append(rating.value)
        means = {criterion: _shrunk_mean(some) for criterion, some in values.items()}
        return [(seq, r.response_uid, (r.value - means[r.criterion]) / RATING_HALF_RANGE) for seq, r in ratings]

    def tapped(self, lesson: Lesson) -> Sequence[Credited]:
        """What a tap was about: words, each with its share; or the whole answer, where it came too late for that."""
        tap = lesson.judgement
        if isinstance(tap, Tap) and tap.whole:
            return [Credited(self.samples[tap.response_uid])] if tap.response_uid in self.samples else []
        return self.credited.get(lesson.seq, ())

    def silent(self, lesson: Lesson) -> list[Sample]:
        """Words that a stretch of silence was about: those that no live tap was about, and that were tapped elsewhere. Of others nothing is known
        that silence could deny."""
        uid = lesson.answers[0].uid if lesson.answers else ""
        places, words = self._tapped
        found = [self.samples.get(silence_name(lesson.seq, i)) for i in range(len(lesson.shown))]
        return [s for s in found if s is not None and s.span and (uid, s.span[0]) not in places and s.token_ids[slice(*s.span)] in words]

    @cached_property
    def _tapped(self) -> tuple[frozenset[tuple[str, int]], frozenset[tuple[int, ...]]]:
        """Where live taps fell, as (answer, position of the word), and on which words, in tokens."""
        taps = [lesson for lesson in self.lessons if isinstance(tap := lesson.judgement, Tap) and not tap.whole]
        found = [(lesson.answers[0].uid, sample.token_ids, sample.span) for lesson in taps for sample, *_ in self.tapped(lesson) if sample.span]
        return frozenset((uid, span[0]) for uid, _, span in found), frozenset(token_ids[slice(*span)] for _, token_ids, span in found)

    def prompts(self) -> list[tuple[int, ...]]:
        """Distinct prompts of judged answers, but for those of which a longer answer left nothing."""
        return [asked for asked in dict.fromkeys(sample.asked for sample in self.samples.values()) if asked]

    def _target(self, lesson: Lesson) -> Target | None:
        written = self.samples.get(written_name(lesson.seq))
        if written is None or not written.token_ids:
            return None
        original = self.samples.get(lesson.judgement.response_uid) if isinstance(lesson.judgement, Correction) else None
        weights = correction_weights(original.token_ids, written.token_ids) if original is not None else ()
        return Target(written.prompt_ids, written.token_ids, weights)

    def _derived(self, lesson: Lesson) -> Comparison | None:
        best, over = self.surpassed(lesson)
        answers = [self.samples[name] for name in (*best, *over)]
        return _compared(answers, [1] * len(best) + [None] * len(over), lesson.seq, derived=True) if answers else None

    def _comparison(self, lesson: Lesson) -> Comparison | None:
        judgement = lesson.judgement
        if isinstance(judgement, Ranking):
            ranked = [(self.samples[a.uid], judgement.ranks.get(a.uid)) for a in lesson.answers if a.uid in self.samples]
        elif isinstance(judgement, Correction):
            written, original = self.samples.get(written_name(lesson.seq)), self.samples.get(judgement.response_uid)
            ranked = [(written, 1), (original, 2)] if written and original else []
        else:
            return None
        if len(ranked) < 2 or all(rank is None for _, rank in ranked):
            return None
        answers, ranks = zip(*ranked, strict=True)
        return _compared(answers, ranks, lesson.seq)


def _compared(answers: Sequence[Sample], ranks: Sequence[int | None], seq: int, derived: bool = False) -> Comparison:
    prompts = tuple(a.prompt_ids for a in answers)
    return Comparison(prompts[0], tuple(a.token_ids for a in answers), tuple(ranks), seq, prompts if len(set(prompts)) > 1 else (), derived)


def written_name(seq: int) -> str:
    """Name of the answer that the operator wrote in judgement `seq`."""
    return f"written:{seq}"


class FeedbackDataset:
    """Keeps the live lessons by seq; tokenises."""

    def __init__(
        self,
        encode_prompt: Callable[[Sequence[Message], int], tuple[list[int], int]],
        encode_answer: Callable[[Sequence[Message], str], list[int]],
        pieces_of: Callable[[Sequence[int]], list[str]],
        eos_ids: frozenset[int],
        context: int,
        spoken: Callable[[Sequence[int], Sequence[int]], tuple[tuple[int, ...], tuple[int, ...]]] = lambda prompt, ids: (tuple(prompt), tuple(ids)),
        no_thought: tuple[int, ...] = (),
    ) -> None:
        """encode_prompt: messages and room in tokens -> at most as many ids, and how many were dropped for that.

        It and encode_answer raise PromptError for what the model's template does not take. spoken: a prompt and an answer -> the same with the
        answer's thought in the prompt: nothing is learned of it. no_thought: ids between a prompt and what a person writes.
        """
        self._encode_prompt = encode_prompt
        self._encode_answer = encode_answer
        self._pieces_of = pieces_of  # an answer's text by tokens
        self._eos_ids = eos_ids
        self._context = self.context = context
        self._spoken, self._no_thought = spoken, no_thought
        self._lessons: dict[int, Lesson] = {}
        self._samples: dict[int, tuple[Sample, ...]] = {}
        self._refused: dict[int, str] = {}
        self.dropped_tokens = 0  # prompt tokens cut to fit the context

    @property
    def refused(self) -> Mapping[int, str]:
        """Judgements, by seq, that cannot be used with this model, and why: they are in no snapshot."""
        return self._refused

    def add(self, lesson: Lesson) -> tuple[Sample, ...]:
        """Remember a lesson; returns its answers in tokens, none where it is refused. Adding a seq again (redo) replaces it."""
        self.remove(lesson.seq)
        try:
            samples = tuple(self._read(lesson))
        except PromptError as error:
            self._refused[lesson.seq] = str(error)
            return ()
        self._lessons[lesson.seq] = lesson
        self._samples[lesson.seq] = samples
        return samples

    def refuse(self, seq: int, why: str) -> None:
        """A lesson that was read turns out to be of no use here."""
        if self.remove(seq):
            self._refused[seq] = why

    def remove(self, seq: int) -> bool:
        """Whether it was known."""
        self._samples.pop(seq, None)
        return self._refused.pop(seq, None) is not None or self._lessons.pop(seq, None) is not None

    def samples(self, seq: int) -> tuple[Sample, ...]:
        """Of a lesson that is live."""
        return self._samples.get(seq, ())

    def snapshot(self) -> Feedback:
        """Of the judgements that are live now."""
        seqs = sorted(self._lessons)
        return Feedback(tuple(self._lessons[seq] for seq in seqs), {seq: self._samples[seq] for seq in seqs})

    def _read(self, lesson: Lesson) -> Iterator[Sample]:
        """Raises PromptError."""
        if isinstance(lesson.judgement, Tap) and not lesson.judgement.whole:
            yield from self._credited(lesson, lesson.judgement)
        elif isinstance(lesson.judgement, Arm):
            yield from self._untapped(lesson, lesson.judgement)
        elif isinstance(lesson.judgement, Critique):
            self._check_length(lesson.judgement.text, lesson)
        else:
            yield from self._answered(lesson)

    def _check_length(self, text: str, lesson: Lesson) -> None:
        """A critique stands in the context beside the prompt and the answer, to which it leaves half."""
        tokens = len(self._encode_answer(lesson.answers[0].messages if lesson.answers else (), text))
        if tokens > self._context // 2:
            raise PromptError(f"the critique takes {tokens:,} tokens, more than half of the model's context of {self._context:,}")

    def _answered(self, lesson: Lesson) -> Iterator[Sample]:
        """The answers of a ranking or a rating, or of a whole-answer tap; for a correction or a demonstration also what was written."""
        answers = self._usable([answer for answer in lesson.answers if answer.uid])
        judgement = lesson.judgement
        yield from _with_batches(answers, self._usable(lesson.beside))
        if isinstance(judgement, Ranking | Rating | Tap | Arm | Critique):
            if len(answers) < (2 if isinstance(judgement, Ranking) else 1):
                raise PromptError(self._why(lesson.answers))
        elif judgement.text.strip() and lesson.answers:
            written = list(self._corrected(lesson, judgement, answers))
            yield from written
            if lesson.over:
                whole = (0, len(written[0].token_ids))
                yield replace(written[0], name=whole_name(lesson.seq), span=whole)
        yield from self._over(lesson)

    def _over(self, lesson: Lesson) -> Iterator[Sample]:
        """Answers that the best one beats too; beside what a person wrote they say nothing of what sureness is worth (see HumanReward.add_answer)."""
        written = isinstance(lesson.judgement, Correction | Demonstration)
        for sample in _with_batches(self._usable(lesson.over), ()):
            yield replace(sample, name=over_name(lesson.seq, sample.name), span=(0, len(sample.token_ids)) if written else None)

    def _corrected(self, lesson: Lesson, judgement: Correction | Demonstration, answers: Sequence[Sample]) -> Iterator[Sample]:
        original = lesson.answers[0]
        ids = self._written(original, judgement.text)
        if len(ids) >= self._context:
            raise PromptError(f"what was written is longer than the model's context of {self._context:,} tokens")
        if not (isinstance(judgement, Correction) and answers):
            asked = answers[0] if answers else Sample("", self._unthought(original, len(ids)), (), thought=len(self._no_thought))
            yield replace(asked, name=written_name(lesson.seq), token_ids=ids, batch=())
            return
        before = answers[0].token_ids
        prompt_ids = self._fitted(answers[0].prompt_ids, max(len(ids), len(before)))
        start, stop = changed_span(before, ids)
        written = replace(answers[0], name=written_name(lesson.seq), prompt_ids=prompt_ids, token_ids=ids, span=(start, stop), batch=())
        yield written
        yield replace(written, name=original_name(lesson.seq), token_ids=before, span=(start, len(before) - (len(ids) - stop)))

    def _usable(self, answers: Sequence[Answer]) -> list[Sample]:
        """Those that have tokens, and not too many."""
        return [sample for answer in answers if 0 < len((sample := self._sample(answer)).token_ids) < self._context]

    def _why(self, answers: Sequence[Answer]) -> str:
        """Nothing can be learned from these."""
        longest = max((len(self._sample(answer).token_ids) for answer in answers), default=0)
        if longest >= self._context:
            return f"an answer is longer than the model's context of {self._context:,} tokens"
        return "none of its answers has any words" if not longest else "it speaks of one answer only"

    def _credited(self, lesson: Lesson, tap: Tap) -> Iterator[Sample]:
        """The words that a tap may be about, of the answer as it was on the screen then. None where its window lies mostly before the answer."""
        if not lesson.answers:
            return
        sample, words, shown = self._words(lesson)
        found = credit(tap.seconds, read_after(shown, words), window_of(lesson.window))
        for share, span in zip(found.shares, words, strict=True):
            if found.usable and share >= LEAST_SHARE:
                yield replace(sample, name=tap_name(lesson.seq, span[0]), span=span, word=True)

    def _untapped(self, lesson: Lesson, arm: Arm) -> Iterator[Sample]:
        """The words about which a tap would have come, had there been one."""
        if arm.since is None or not lesson.answers:
            return
        sample, words, shown = self._words(lesson)
        words = [span for span in words if shown[span[0]] >= arm.since]  # none that had begun to appear before silence counted
        for i in silent(read_after(shown, words), arm.since, arm.seconds, window_of(lesson.window)):
            yield replace(sample, name=silence_name(lesson.seq, words[i][0]), span=words[i], word=True)

    def _words(self, lesson: Lesson) -> tuple[Sample, list[tuple[int, int]], tuple[float, ...]]:
        """The answer as far as it was on the screen, its words, and when its tokens appeared. Nobody sees what ends an answer."""
        sample = self._sample(lesson.answers[0])
        shown = lesson.shown[max(0, len(lesson.answers[0].token_ids) - len(sample.token_ids)) :]  # what was thought is not what taps are about
        seen = list(takewhile(lambda token: token not in self._eos_ids, sample.token_ids[: len(shown)]))
        return sample, words_of(self._pieces_of(seen)), shown

    def _written(self, original: Answer, text: str) -> tuple[int, ...]:
        """The operator's words. Where they kept the ragged end of an answer that was cut off, its end is no ending to learn."""
        ids = self._encode_answer(original.messages, text)
        ragged = original.uid and original.stop != "eos" and text.rstrip().endswith(original.text.rstrip()[-RAGGED_END:])
        return tuple(ids[:-1] if ragged and ids and ids[-1] in self._eos_ids else ids)

    def _sample(self, answer: Answer) -> Sample:
        if answer.token_ids:
            prompt_ids, ids = self._spoken(self._prompt(answer, len(answer.token_ids)), answer.token_ids)
            return Sample(answer.uid, prompt_ids, ids, thought=len(answer.token_ids) - len(ids))
        ids = tuple(self._encode_answer(answer.messages, answer.text))
        return Sample(answer.uid, self._unthought(answer, len(ids)), ids, thought=len(self._no_thought))

    def _unthought(self, answer: Answer, length: int) -> tuple[int, ...]:
        """The prompt of what was written in so many tokens, with no thought before it."""
        return (*self._prompt(answer, length + len(self._no_thought)), *self._no_thought)

    def _prompt(self, answer: Answer, answer_length: int) -> tuple[int, ...]:
        if answer.prompt_ids:
            return self._fitted(answer.prompt_ids, answer_length)
        ids, dropped = self._encode_prompt(answer.messages, max(1, self._context - answer_length))
        self.dropped_tokens += dropped
        return tuple(ids)

    def _fitted(self, prompt_ids: tuple[int, ...], answer_length: int) -> tuple[int, ...]:
        """Ids of a prompt, cut where there is no room for them beside a longer answer."""
        ids, dropped = fit_prompt(prompt_ids, self._context, answer_length)
        self.dropped_tokens += dropped
        return tuple(ids) if dropped else prompt_ids


def _with_batches(answers: Sequence[Sample], beside: Sequence[Sample]) -> Iterator[Sample]:
    """Each with the distinct answers to the same prompt that were drawn in its set, in canonical order."""
    for sample in answers:
        together = {other.token_ids for other in (*answers, *beside) if other.prompt_ids == sample.prompt_ids}
        yield replace(sample, batch=tuple(sorted(together)))


def original_name(seq: int) -> str:
    """Name of the rewritten answer as evidence: only the span that the correction changed."""
    return f"original:{seq}"


def whole_name(seq: int) -> str:
    """Name of all that the operator wrote in judgement `seq`, as evidence that it beats the model's own answers."""
    return f"whole:{seq}"


def over_name(seq: int, uid: str) -> str:
    """Name of an answer as evidence: what judgement `seq` puts at its best beats it too."""
    return f"over:{seq}:{uid}"


def tap_name(seq: int, position: int) -> str:
    """Name of a word as evidence: what tap `seq` says of the one that begins at `position`."""
    return f"tap:{seq}@{position}"


def silence_name(seq: int, position: int) -> str:
    """Name of a word as evidence: that stretch `seq` passed without a tap about the one that begins at `position`."""
    return f"silence:{seq}@{position}"


def changed_span(before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """[start, stop) of `after` that differs from `before`: common tokens at both ends are left out."""
    limit = min(len(before), len(after))
    start = next((i for i in range(limit) if before[i] != after[i]), limit)
    tail = next((i for i in range(limit - start) if before[-1 - i] != after[-1 - i]), limit - start)
    return start, len(after) - tail


def _shrunk_mean(values: Sequence[int]) -> float:
    return (RATING_PRIOR * RATING_MIDDLE + sum(values)) / (RATING_PRIOR + len(values))
