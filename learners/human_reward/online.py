"""Ĥ kept fitted to the live judgements: reads lessons, computes the base's states of their answers, and fits the head anew each time.

States are the dear part: one forward for the answers of a set. They are computed while the operator reads (`prepare`), at the commit where that was
not done (`learn`), and one judgement at a time for those that come from the log (`replay`, `advance`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learners.feedback.dataset import FeedbackDataset
from learners.feedback.samples import Sample
from learners.feedback.snapshot import Feedback
from learners.human_reward.evidence import EvidenceBlocks, pairs_of
from learners.human_reward.features import Features, Seen
from learners.human_reward.fit import Block, HumanRewardSettings
from learners.human_reward.head import RewardHead
from learners.human_reward.human_reward import HumanReward
from learners.human_reward.prequential import PrequentialScores, Score
from learners.model.batches import TokenIds
from learners.model.memory import MAY_MEAN_MEMORY, free_memory, out_of_memory, within_memory
from learners.protocol import Lesson
from storage.records import Arm, Critique, Ranking, Tap

StatesBefore = Callable[[Sequence[int], Sequence[Sequence[int]]], list[Seen]]
"""Prompt ids and the ids of some answers to it -> of each answer the T states of the base in which its tokens were chosen, on the CPU."""
PREPARED_ANSWERS = 64
PREPARED_BYTES = 64e6
"""Of states that are kept until they are judged."""
TOO_LARGE = "out of memory: its answers are too long to be looked at on this device"
KEPT_BLOCKS = 2
"""Blocks whose answers' statistics are kept: the newest, and the one before, for undoing across its end."""


@dataclass(frozen=True)
class Fitted:
    """What one judgement did to Ĥ."""

    head: RewardHead
    foreseen: Score | None = None  # this judgement, before learning from it
    dropped: str = ""  # what could not be used, in words


class OnlineHumanReward:
    """Belongs to the generator's thread. `lessons` and the head it returns are immutable and may be handed to others."""

    def __init__(
        self,
        dataset: FeedbackDataset,
        features: Features,
        states_before: StatesBefore,
        similarity: Tensor | None = None,
        settings: HumanRewardSettings | None = None,
    ) -> None:
        """features and similarity: see HumanReward."""
        self._dataset = dataset
        self._states = _States(states_before)
        self._human_reward = HumanReward(features, similarity, settings)
        self._blocks = EvidenceBlocks(self._human_reward.settings.window)
        self._waiting: set[int] = set()
        self._first: deque[int] = deque()  # of those that wait, some that go before the others
        self._unsolved = 0  # judgements whose answers were looked at since the last fit
        self.record = PrequentialScores()
        self.head = RewardHead.empty(features)
        self.lessons = Feedback((), {})
        self._epoch = 0
        self.resets = 0  # times that Ĥ turned non-finite

    @property
    def dropped_tokens(self) -> int:
        """Of prompts that were too long for the context, so far."""
        return self._dataset.dropped_tokens

    @property
    def waiting(self) -> int:
        """Judgements whose answers' states have not been computed: Ĥ does not know them yet."""
        return len(self._waiting)

    def count(self, kind: type) -> int:
        """Judgements of a kind that Ĥ knows: live, and none that waits."""
        return sum(isinstance(lesson.judgement, kind) for lesson in self.lessons.lessons if lesson.seq not in self._waiting)

    @property
    def rewards(self) -> RewardHead | None:
        """Fitted to rewards in place of advantages, with `head`: a score of whole answers. None where words were tapped, of which Ĥ alone knows what
        they are worth in an answer, or where Ĥ knows nothing: of no judgement, or of numbers that are none."""
        return None if self.head.blank or self.count(Tap) or self.count(Arm) else self._human_reward.rewards

    @property
    def refused(self) -> Mapping[int, str]:
        """Judgements, by seq, that cannot be used with this model, and why: left out of everything."""
        return self._dataset.refused

    def prepare(self, prompt_ids: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
        """Compute and remember the states of the answers of a set to one prompt, before they are judged. The order does not matter."""
        self._states.of(tuple(prompt_ids), tuple(sorted({tuple(ids) for ids in answers if ids})))

    def learn(self, lesson: Lesson) -> Fitted:
        """Take a new judgement (or one that was redone) and fit."""
        self._dataset.add(lesson)
        if isinstance(lesson.judgement, Critique):
            self.lessons = self._dataset.snapshot()  # words are no evidence for Ĥ: it stays the same
            return Fitted(self.head, None, self.refused.get(lesson.seq, ""))
        samples = self._look_at(lesson.seq)
        foreseen = self._foreseen(lesson)
        return Fitted(self.fit(), foreseen, self._why_nothing(lesson) if not samples else "")

    def replay(self, lessons: Sequence[Lesson], first: bool = False) -> None:
        """Read judgements of the log; their answers' states are computed by `advance`, of the oldest first or, where it is said, of these, in this
        order. The order changes nothing about the head of all."""
        for lesson in lessons:
            if any(sample.name not in self._human_reward for sample in self._dataset.add(lesson)):
                self._waiting.add(lesson.seq)
        if first:
            self._first.extend(lesson.seq for lesson in lessons)

    def advance(self) -> bool:
        """Compute the states of one judgement that waits; False where none does. `fit` uses them from then on."""
        if not self._waiting:
            return False
        while self._first and self._first[0] not in self._waiting:
            self._first.popleft()
        seq = self._first[0] if self._first else min(self._waiting)
        self._unsolved += len(self._look_at(seq))
        if self._unsolved >= self._human_reward.settings.window:  # a block's worth: solve what is complete, and drop its statistics
            self._solve()
        return True

    def retract(self, seq: int) -> Fitted:
        """Forget a judgement that was undone and fit without it."""
        wordy = any(each.seq == seq and isinstance(each.judgement, Critique) for each in self.lessons.lessons)
        known = self._dataset.remove(seq)
        self._waiting.discard(seq)
        if wordy:
            self.lessons = self._dataset.snapshot()
            return Fitted(self.head)
        return Fitted(self.fit(), None, "" if known else "it was not known")

    def fit(self) -> RewardHead:
        """The head of all live judgements that do not wait: a pure function of them, whatever was learned and undone before."""
        self._epoch += 1
        self.head = self._finite() or self._begun_anew()
        return self.head

    # --- fitting -------------------------------------------------------------------------------------------------------

    def _finite(self) -> RewardHead | None:
        """None where the numbers are none."""
        try:
            head = self._solve()
        except torch.linalg.LinAlgError:
            return None
        return head if head.finite and self._human_reward.rewards.finite else None

    def _solve(self) -> RewardHead:
        self.lessons = self._dataset.snapshot()
        blocks = self._blocks.of(self.lessons)
        head = self._human_reward.fit_blocks(blocks, self._epoch)
        self._unsolved = 0
        self._drop(blocks)
        return head

    def _drop(self, blocks: Sequence[Block]) -> None:
        """Keep the statistics of the newest blocks alone; what an undo in an older one asks for anew waits, as if it came from the log."""
        solved = self._human_reward.solved(blocks)
        needed = min(solved, len(blocks) - 1) - (KEPT_BLOCKS - 1)
        self._human_reward.keep({name for block in blocks[max(0, needed) :] for group in block.groups for name in group})
        missing = {name for block in blocks[solved:] for group in block.groups for name in group if name not in self._human_reward}
        if missing:
            self._waiting |= {lesson.seq for lesson in self.lessons.lessons if any(s.name in missing for s in self.lessons.read[lesson.seq])}

    def _begun_anew(self) -> RewardHead:
        """Forget all that was computed. The newest block is looked at again at once, the others wait; know nothing where that does not help."""
        self.resets += 1
        self._human_reward = self._human_reward.begun_anew()
        self._states.clear()
        newest = {name for group in self._blocks.of(self.lessons)[-1].groups for name in group}
        for lesson in self.lessons.lessons:
            if any(sample.name in newest for sample in self.lessons.read[lesson.seq]):
                self._look_at(lesson.seq)
        return self._finite() or RewardHead.empty(self._human_reward.features, self._epoch)

    # --- states --------------------------------------------------------------------------------------------------------

    def _look_at(self, seq: int) -> tuple[Sample, ...]:
        """The answers of a judgement, whose statistics are known from here on; none where it is refused, as one that memory does not hold is."""
        self._waiting.discard(seq)
        try:
            within_memory(lambda: self._compute(self._dataset.samples(seq)), lambda: self._compute_alone(seq))
        except MAY_MEAN_MEMORY as error:
            if not out_of_memory(error):
                raise
            self._dataset.refuse(seq, TOO_LARGE)
        return self._dataset.samples(seq)

    def _compute_alone(self, seq: int) -> None:
        self.forget_prepared()
        free_memory()
        self._compute(self._dataset.samples(seq))

    def forget_prepared(self) -> None:
        """Let go of states that nobody has asked for yet."""
        self._states.clear()

    def _compute(self, samples: Sequence[Sample]) -> None:
        """The statistics of those that are not known."""
        for sample in samples:
            if sample.name in self._human_reward:
                continue
            batch = sample.batch or (sample.token_ids,)
            seen = self._states.of(sample.prompt_ids, batch)[batch.index(sample.token_ids)]
            if sample.word and sample.span:
                self._human_reward.add_word(sample.name, sample.token_ids, seen, sample.span)
            else:
                self._human_reward.add_answer(sample.name, sample.token_ids, seen, sample.span)

    def _foreseen(self, lesson: Lesson) -> Score | None:
        """How well Ĥ foresaw a ranking."""
        if not isinstance(lesson.judgement, Ranking) or lesson.seq in self.refused:
            return None
        pairs = pairs_of(lesson, Feedback((lesson,), {lesson.seq: self._dataset.samples(lesson.seq)}))
        if pairs is None:
            return None
        self.record, score = self.record.add(lesson.seq, self._human_reward.margins(self.head, pairs))
        return score

    def _why_nothing(self, lesson: Lesson) -> str:
        if lesson.seq in self.refused:
            return self.refused[lesson.seq]
        if isinstance(lesson.judgement, Tap):
            return "the tap came before the words that it could be about"
        if isinstance(lesson.judgement, Arm):
            return "no word was there long enough for silence to mean anything"
        return "none of its answers has any words"


class _States:
    """States of sets of answers, those asked for last."""

    def __init__(self, states_before: StatesBefore) -> None:
        self._states_before = states_before
        self._kept: OrderedDict[tuple[TokenIds, tuple[TokenIds, ...]], list[Seen]] = OrderedDict()

    def of(self, prompt_ids: TokenIds, answers: tuple[TokenIds, ...]) -> list[Seen]:
        """Of distinct answers in canonical order, computed together: their bits depend on the set."""
        if not answers:
            return []
        key = prompt_ids, answers
        if key not in self._kept:
            self._kept[key] = self._states_before(prompt_ids, answers)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self._too_many():
            self._kept.popitem(last=False)
        return self._kept[key]

    def clear(self) -> None:
        self._kept.clear()

    def _too_many(self) -> bool:
        seen = [each for some in self._kept.values() for each in some]
        return len(seen) > PREPARED_ANSWERS or sum(tensor.nbytes for each in seen for tensor in each) > PREPARED_BYTES
