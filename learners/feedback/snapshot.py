"""The live judgements as the learners see them: comparisons and scores for the reward model, targets for SFT, words that taps were about. A snapshot
is immutable: any thread may read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from learners.feedback.corrections import correction_weights
from learners.feedback.samples import Comparison, Sample, Scored, Target, over_name, silence_name, whole_name, written_name
from learners.feedback.tap_attribution import Near, attribute
from learners.protocol import Lesson
from storage.records import Correction, Critique, Ranking, Rating, Tap

RATING_MIDDLE = 4.0
RATING_HALF_RANGE = 3.0
RATING_PRIOR = 2.0
"""Ratings are centred on the operator's mean, which is shrunk to the middle as if by this many ratings of it."""
LEAST_ATTRIBUTED = 0.05
"""Of a tap: words to which all taps together give less than this are left out."""


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
        """Of what can be learned from: a wish that is switched off teaches nothing, so that nothing is to be forgotten where it comes on again."""
        return tuple(lesson.seq for lesson in self.lessons if not (isinstance(lesson.judgement, Critique) and lesson.judgement.strength == 0))

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


def _shrunk_mean(values: Sequence[int]) -> float:
    return (RATING_PRIOR * RATING_MIDDLE + sum(values)) / (RATING_PRIOR + len(values))
