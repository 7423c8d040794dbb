"""The reward model as the curriculum trains it: tested on each ranking before it learns from it, and begun anew when that was undone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from learners.curriculum.inputs import CurrentInputs, LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.scorers import margins_of
from learners.curriculum.weights import NO_SEQS
from learners.feedback.samples import Comparison, Scored
from learners.human_reward.prequential import PrequentialScores
from learners.model.device import working_seconds
from learners.protocol import Answer, Appraised, Foreseen
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import spoken
from learners.rlhf.token_rewards import appraise
from learners.versions.snapshot import VersionState

WHOLE_LOG = "learns from the whole log"
_PLAIN = ("seconds", "runs", "_steps", "_under_way", "_of_version", "_sampled")
"""Of a stage, plain values that a checkpoint holds."""


@dataclass(frozen=True)
class RewardPlan:
    steps: int = 10  # to begin with …
    steps_per_item: int = 2  # … and for each comparison or score
    batch: int = 6  # comparisons or scores
    fewest_items: int = 3
    tested: int = 64  # of many new rankings at once, the newest, on which it is tested first
    uninterrupted: int = 200  # steps, after which a run gives way to other stages that are due

    def enough(self, items: int) -> int:
        """Optimizer steps for so many comparisons and scores."""
        return self.steps + self.steps_per_item * items


class RewardStage:
    """Keeps the reward model up with the live rankings and ratings; scores it on each before it learns from it."""

    def __init__(
        self,
        tree: nn.Module,
        practice: Practice,
        inputs: CurrentInputs,
        runs: RunRecorder,
        plan: RewardPlan | None = None,
        others_due: Callable[[], bool] = lambda: False,
    ) -> None:
        """others_due: whether something is to be learned that goes before the rest of a long run."""
        self._practice, self._inputs, self._runs, self._plan, self._others_due = practice, inputs, runs, plan or RewardPlan(), others_due
        self.model = RewardModel(tree, practice.backbone.width, seed=practice.seed, pause=practice.pause, memory=practice.backbone.memory_budget)
        self.scores = PrequentialScores()
        self.seconds = 0.0
        self.runs: tuple[str, ...] = ()  # since the last version
        self.seqs: frozenset[int] = NO_SEQS  # judgements that influenced it
        self._learned: frozenset[int] = NO_SEQS  # those that it has learned as long as it should
        self._of_version = False  # whether it goes on from a version's
        self._sampled = False  # whether it began with a sample of the log
        self._fresh = self.model.state()
        self._under_way: tuple[int, int] | None = None  # steps before this round, and in it
        self._steps: int | None = 0  # None where an old version does not say: as many as its judgements needed

    @property
    def trained(self) -> bool:
        """Whether it has learned anything."""
        return self._steps != 0

    @property
    def steps(self) -> int | None:
        """Optimizer steps so far; None where an old version does not say."""
        return self._steps

    @property
    def waits(self) -> bool:
        """Whether only the whole log can tell if what it learned from is live."""
        return self._of_version and self._inputs().partial

    def due(self) -> bool:
        if self.waits:
            return False
        feedback = self._inputs().feedback
        items = _items(self._inputs())
        enough = len(items) >= self._plan.fewest_items
        return enough and (self._steps_on(items) < self._plan.enough(len(items)) or not self.seqs <= set(feedback.seqs))

    def work(self) -> Iterator[None]:
        plan, started, inputs = self._plan, time.monotonic(), self._inputs()
        worked = working_seconds(self._practice.backbone.device)
        items = _items(inputs)
        seqs = frozenset(item.seq for item in items)
        self.drop_undone(inputs.feedback.seqs)
        new = [item for item in items if item.seq not in self._learned]
        if self._under_way is None:
            self._score_before(new)
            self._under_way = self._steps_on(items), 0
            self.seqs |= seqs
        began, first = self._under_way
        of = plan.enough(len(items)) - began
        self._sampled |= inputs.partial
        note = f"learns from {len(items):,} of {inputs.sampled:,} judgements" if inputs.partial else WHOLE_LOG if self._sampled else ""
        asked: LearnerInputs | None = None
        try:
            with self._runs.run("reward", sorted(seqs), plan, self._ended, first) as steps:
                for step in range(first, of):
                    now = self._inputs()
                    if inputs.partial and not now.partial:
                        break
                    if step >= plan.uninterrupted and now is not asked:  # whether others are due takes a look at every judgement
                        asked = now
                        if self._others_due():
                            break
                    stats = self.model.step(self._batch(items, new))
                    self._steps, steps[0] = began + step + 1, step + 1
                    self._under_way = began, step + 1
                    figures = {"loss": stats.loss, "accuracy": self.scores.accuracy, "grad_norm": stats.grad_norm, "note": note}
                    self._runs.progress("reward", step + 1, of, started, **figures)
                    yield
        finally:
            self._under_way = None
        probe = self._practice.base_answers()
        self.model.normalise(*spoken(self._practice.backbone, probe))
        self._learned = seqs
        self.seconds += working_seconds(self._practice.backbone.device) - worked

    def checkpoint(self) -> dict[str, Any]:
        """The model and how far it has come."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        seqs = {name: sorted(getattr(self, name)) for name in ("seqs", "_learned")}
        return {**plain, **seqs, "model": self.model.checkpoint(), "scores": _scores_saved(self.scores)}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.model.restore(saved["model"])
        for name in _PLAIN:
            setattr(self, name, saved[name])
        self.seqs, self._learned = frozenset(saved["seqs"]), frozenset(saved["_learned"])
        self.scores = PrequentialScores(**saved["scores"] | {"seen": frozenset(saved["scores"]["seen"])})

    def appraise(self, answers: Sequence[Answer]) -> Appraised:
        """What the reward model thinks of each token; nothing before it has learned something."""

        def rewards(prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> list[float]:
            return self.model.token_rewards([prompt_ids], [token_ids])[0].tolist()

        found = appraise(self._practice.backbone, answers, rewards) if self.trained else ()
        return Appraised(h_epoch=self._inputs().head.epoch, appraisals=found, by="reward")

    def drop_undone(self, live: Iterable[int]) -> None:
        """Begin with a fresh model when this one learned from judgements that are not `live` any more."""
        if not self.seqs <= frozenset(live):
            self._start(None, NO_SEQS, 0)

    def go_on_from(self, state: VersionState) -> None:
        """Go on with the reward model of a version, or with a fresh one."""
        self._start(state.reward_state, frozenset(state.reward_seqs), state.reward_steps if state.reward_state is not None else 0)

    def _start(self, state: Mapping[str, Tensor] | None, seqs: frozenset[int], steps: int | None) -> None:
        self.model.load_state(state if state is not None else self._fresh)
        self.seqs = self._learned = seqs
        self._of_version = state is not None
        self._steps, self.runs = steps, ()

    def _ended(self, run: str) -> None:
        self.runs = (*self.runs, run)

    def _steps_on(self, items: Sequence[Comparison | Scored]) -> int:
        """Optimizer steps so far."""
        if self._steps is None:
            known = sum(item.seq in self.seqs for item in items)
            self._steps = self._plan.enough(known) if known else 0
        return self._steps

    def _batch(self, items: Sequence[Comparison | Scored], new: Sequence[Comparison | Scored]) -> list[Comparison | Scored]:
        """Half of what is new, so that one more ranking among many is learned at once."""
        random, size = self._practice.random, self._plan.batch
        fresh = random.sample(new, min(size // 2, len(new)))
        return fresh + random.sample(items, min(size - len(fresh), len(items)))

    def _score_before(self, new: Sequence[Comparison | Scored]) -> None:
        """Score the model on rankings that it has not learned from."""
        if not self._learned:
            return  # nothing learned yet: it would be scored on a random head
        for item in [each for each in new if isinstance(each, Comparison) and not each.derived][-self._plan.tested :]:
            scores = self.model.score(item.prompts, item.answers)
            self.scores, foreseen = self.scores.add(item.seq, margins_of(item, scores.tolist()))
            if foreseen:
                self._runs.emit(Foreseen(seq=item.seq, judge="reward", **foreseen._asdict()))


def _scores_saved(scores: PrequentialScores) -> dict[str, Any]:
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in vars(scores).items()}


def _items(inputs: LearnerInputs) -> list[Comparison | Scored]:
    return [*inputs.feedback.comparisons(), *inputs.feedback.scores()]
