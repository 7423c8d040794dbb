"""Ĥ kept fitted to the live judgements: reads lessons, looks at their answers with the base, and fits the head anew each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from learners.feedback.dataset import Feedback, FeedbackDataset, Sample, original_name, written_name
from learners.human_reward.features import Features, Seen
from learners.human_reward.fit import HumanReward
from learners.human_reward.head import RewardHead
from learners.human_reward.likelihood import Evidence, Level, Pairs
from learners.human_reward.prequential import PrequentialScores, Score
from learners.model.chat_format import PromptError
from learners.protocol import Lesson
from storage.records import Arm, Correction, Ranking, Tap

TAP_REWARD = 10.0
"""What a tap of 1 says a token is worth, on Ĥ's scale: one tap moves its words about as far as one ranking does."""
TAP_WEIGHT = 0.003
"""Of a tap's squared error beside one comparison, for the whole of its credit; chosen on simulated taps (benchmarks/taps.py)."""
SILENCE_WEIGHT = 0.1 * TAP_WEIGHT
"""Of one word that passed untapped while silence counted: there are many of them to a tap."""
StatesBefore = Callable[[Sequence[int], Sequence[Sequence[int]]], list[Seen]]
"""Prompt ids and the ids of some answers to it -> of each answer the T states of the base in which its tokens were chosen."""


@dataclass(frozen=True)
class Fitted:
    """What one judgement did to Ĥ."""

    head: RewardHead
    foreseen: Score | None = None  # this judgement, before learning from it
    dropped: str = ""  # what could not be used, in words


class OnlineHumanReward:
    """Belongs to the generator's thread. `lessons` and the head it returns are immutable and may be handed to others."""

    def __init__(self, book: FeedbackDataset, features: Features, states_before: StatesBefore, likeness: Tensor | None = None) -> None:
        self._book = book
        self._states_before = states_before
        self._human_reward = HumanReward(features, likeness)
        self.record = PrequentialScores()
        self.head = RewardHead.empty(features)
        self.lessons = Feedback((), {})
        self._epoch = 0
        self._waiting: dict[int, Lesson] = {}
        self._refused: dict[int, str] = {}
        self._prepared: OrderedDict[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], list[Seen]] = OrderedDict()
        self.resets = 0  # times that Ĥ turned non-finite

    @property
    def dropped_tokens(self) -> int:
        """Of prompts that were too long for the context, so far: their beginnings."""
        return self._book.dropped_tokens

    @property
    def waiting(self) -> int:
        """Judgements whose answers have not been looked at."""
        return len(self._waiting)

    @property
    def refused(self) -> Mapping[int, str]:
        """Judgements, by seq, that cannot be used with this model, and why."""
        return dict(self._refused)

    def prepare(self, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
        """Look at the answers of a set before they are judged. Canonical order."""
        self._states_of(tuple(prompt_ids), tuple(tuple(ids) for ids in answers))

    def learn(self, lesson: Lesson) -> Fitted:
        """Take a new judgement (or one that was redone) and fit."""
        self._waiting.pop(lesson.seq, None)
        samples = self._take(lesson)
        foreseen = self._examine(lesson)
        head = self.fit()
        return Fitted(head, foreseen, "" if samples else self._refused.get(lesson.seq) or _why_nothing(lesson))

    def replay(self, lessons: Sequence[Lesson]) -> None:
        """Take judgements of the log; `advance` looks at them."""
        self._waiting |= {lesson.seq: lesson for lesson in lessons}

    def advance(self) -> bool:
        """Look at one judgement that waits; False where none does."""
        if not self._waiting:
            return False
        self._take(self._waiting.pop(next(iter(self._waiting))))
        return True

    def retract(self, seq: int) -> Fitted:
        """Forget a judgement that was undone and fit without it."""
        waited = self._waiting.pop(seq, None) is not None
        known = self._book.remove(seq) or waited
        return Fitted(self.fit(), None, "" if known else "it was not known")

    def fit(self) -> RewardHead:
        """The head of all live judgements: a pure function of them, whatever was learned and undone before."""
        self.lessons = self._book.snapshot()
        self._epoch += 1
        self.head = self._solved() or self._begun_anew()
        return self.head

    def _solved(self) -> RewardHead | None:
        """None where the numbers are none."""
        try:
            head = self._human_reward.fit(evidence_of(self.lessons), self._epoch)
        except torch.linalg.LinAlgError:
            return None
        return head if bool(head.weights.isfinite().all()) else None

    def _begun_anew(self) -> RewardHead:
        """Forget what was computed, look at the log again, and know nothing where that does not help."""
        self.resets += 1
        self._human_reward = HumanReward(self._human_reward.features, self._human_reward.likeness)
        for sample in self.lessons.samples.values():
            self._look_at(sample, self._states_before(sample.prompt_ids, [sample.token_ids])[0])
        return self._solved() or RewardHead.empty(self._human_reward.features, self._epoch)

    def _take(self, lesson: Lesson) -> tuple[Sample, ...]:
        self._refused.pop(lesson.seq, None)
        try:
            samples = self._book.add(lesson)
        except PromptError as error:
            self._refused[lesson.seq] = str(error)
            return ()
        if any(len(s.prompt_ids) + len(s.token_ids) > self._book.context for s in samples):
            self._book.remove(lesson.seq)
            self._refused[lesson.seq] = f"an answer is longer than the model's context of {self._book.context:,} tokens"
            return ()
        in_set = {answer.uid for answer in lesson.answers} if not isinstance(lesson.judgement, Tap | Arm) else set()
        whole = tuple(sorted({s.token_ids for s in samples if s.name in in_set} | {a.token_ids for a in lesson.beside if a.token_ids}))
        unseen = [sample for sample in samples if sample.name not in self._human_reward]
        for (prompt_ids, token_ids), same in groupby(unseen, key=lambda sample: (sample.prompt_ids, sample.token_ids)):
            together = whole if token_ids in whole else (token_ids,)
            seen = self._states_of(prompt_ids, together)[together.index(token_ids)]
            for sample in same:
                self._look_at(sample, seen)
        return samples

    def _states_of(self, prompt_ids: tuple[int, ...], answers: tuple[tuple[int, ...], ...]) -> list[Seen]:
        found = self._prepared.get((prompt_ids, answers))
        if found is None:
            found = self._prepared[prompt_ids, answers] = self._states_before(prompt_ids, answers)
            while len(self._prepared) > 4:
                self._prepared.popitem(last=False)
        return found

    def _look_at(self, sample: Sample, seen: Seen) -> None:
        if sample.word and sample.span:
            self._human_reward.add_word(sample.name, sample.token_ids, seen, sample.span)
        else:
            self._human_reward.add_answer(sample.name, sample.token_ids, seen, sample.span)

    def _examine(self, lesson: Lesson) -> Score | None:
        """How well Ĥ foresaw a ranking."""
        if not isinstance(lesson.judgement, Ranking):
            return None
        pairs = _pairs(lesson, self._book.snapshot())
        if pairs is None:
            return None
        self.record, score = self.record.add(lesson.seq, self._human_reward.margins(self.head, pairs))
        return score


def evidence_of(lessons: Feedback) -> list[Evidence]:
    """Rankings and corrections as pairs, ratings as centred levels, taps and silence as a level for each word, in the order of the log."""
    levels = {seq: Level(name, score) for seq, name, score in lessons.levels()}
    found: list[Evidence] = []
    for lesson in lessons.lessons:
        if isinstance(tap := lesson.judgement, Tap):
            found += [Level(sample.name, TAP_REWARD * tap.value * trust, TAP_WEIGHT * share) for sample, share, trust in lessons.tapped(lesson)]
        elif isinstance(lesson.judgement, Arm):
            found += [Level(sample.name, 0.0, SILENCE_WEIGHT) for sample in lessons.silent(lesson)]
        elif (item := _pairs(lesson, lessons) or levels.get(lesson.seq)) is not None:
            found.append(item)
    return found


def _why_nothing(lesson: Lesson) -> str:
    if isinstance(lesson.judgement, Tap):
        return "the tap came before the words that it could be about"
    if isinstance(lesson.judgement, Arm):
        return "no word was there long enough for silence to mean anything"
    return "none of its answers has any words"


def _pairs(lesson: Lesson, lessons: Feedback) -> Pairs | None:
    judgement = lesson.judgement
    if isinstance(judgement, Ranking):
        known = [answer.uid for answer in lesson.answers if answer.uid in lessons.samples]
        ranks = {uid: judgement.ranks[uid] for uid in known if uid in judgement.ranks}
        pairs = Pairs.of_ranks(ranks, [uid for uid in known if uid not in ranks])
        return pairs if pairs.first else None
    if isinstance(judgement, Correction) and original_name(lesson.seq) in lessons.samples:
        return Pairs.of_ranks({written_name(lesson.seq): 1, original_name(lesson.seq): 2})
    return None
