"""How long each stage trains and on what. `due()` says whether there is something to learn; `work()` does it in small steps.

The trainers themselves (rlhf/) know nothing of budgets, prompts or judgements; the curriculum chooses between stages. PPO's is in ppo_stage.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from learners.curriculum.inputs import CurrentInputs, LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.runs import ALL_THOUGHT, RunRecorder
from learners.curriculum.scorers import margins_of
from learners.curriculum.teacher import DistillationTeacher
from learners.curriculum.weights import NO_SEQS, PolicyWeights
from learners.feedback.critiques import Critiques
from learners.feedback.samples import Comparison, Scored, Target
from learners.human_reward.kl_budget import pooled_nats
from learners.human_reward.prequential import PrequentialScores
from learners.model.device import working_seconds
from learners.protocol import Answer, Appraised, Foreseen
from learners.rlhf.distillation import Distill
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import Trace, nats_on, spoken
from learners.rlhf.sft import SFT
from learners.rlhf.token_rewards import appraise
from learners.versions.snapshot import Distilled, VersionState

Saved = dict[str, Any]
"""Of plain values and tensors: what a stage goes on with after a restart."""


class TrainingStage(Protocol):
    """What the curriculum chooses between."""

    def due(self) -> bool:
        """Whether there is something to learn."""

    def work(self) -> Iterator[None]:
        """Learn it, in small steps."""


@dataclass(frozen=True)
class SFTPlan:
    """Steps are optimizer steps."""

    steps: int = 40  # at most, for one round of new demonstrations
    batch: int = 8
    budget: float = 0.5  # share of the nats budget at which imitation stops
    probe_every: int = 2  # steps


class SFTStage:
    """Imitates what the operator wrote, then freezes the result as the reference of the other stages."""

    def __init__(self, weights: PolicyWeights, practice: Practice, inputs: CurrentInputs, runs: RunRecorder, plan: SFTPlan | None = None) -> None:
        self._weights, self._practice, self._inputs, self._runs = weights, practice, inputs, runs
        self._plan = plan or SFTPlan()
        self._under_way: _Imitation | None = None

    def due(self) -> bool:
        """Whether something was written, or taken back, since. Of an old version's reference it is only known what was live then."""
        feedback, imitated = self._inputs().feedback, self._weights.reference_seqs
        return any(seq not in imitated for seq, _ in feedback.targets()) or not imitated <= set(feedback.seqs)

    def work(self) -> Iterator[None]:
        """Start again from the base: what was taken back leaves no trace."""
        inputs = self._inputs()
        targets = inputs.feedback.targets()
        seqs = sorted({seq for seq, _ in targets})
        if self._under_way is None:
            self._weights.start_from_base()
            if targets:
                self._weights.begin("sft", seqs, inputs.head)
            self._under_way = _Imitation(self._trainer())
        try:
            if targets:
                with self._runs.run("sft", seqs, self._plan, self._weights.trained, self._under_way.step) as steps:
                    yield from self._imitate([target for _, target in targets], self._under_way, steps)
            self._weights.freeze_reference(imitates=bool(targets))
        finally:
            self._under_way = None

    def checkpoint(self) -> Saved | None:
        """How far it has come; None where nothing is under way."""
        own = self._under_way
        return None if own is None else {"step": own.step, "enough": own.enough, "optimizer": own.trainer.optimizer.state()}

    def restore(self, saved: Saved | None) -> None:
        """`work` goes on from there."""
        if saved is not None:
            self._under_way = _Imitation(self._trainer(), saved["step"], saved["enough"])
            self._under_way.trainer.optimizer.load_state(saved["optimizer"])

    def _trainer(self) -> SFT:
        practice = self._practice
        return SFT(self._weights.policy, practice.backbone.width, pause=practice.pause, memory=practice.backbone.memory_budget)

    def _imitate(self, targets: Sequence[Target], own: _Imitation, steps: list[int]) -> Iterator[None]:
        plan, practice, started = self._plan, self._practice, time.monotonic()
        while own.step < plan.steps and not own.enough:
            stats = own.trainer.step(practice.random.sample(targets, min(plan.batch, len(targets))))
            own.step += 1
            steps[0] = own.step
            kl = self._nats() if own.step % plan.probe_every == 0 else None
            own.enough = kl is not None and kl > plan.budget * self._inputs().nats
            self._runs.progress("sft", own.step, plan.steps, started, loss=stats.loss, kl=kl, grad_norm=stats.grad_norm)
            yield

    def _nats(self) -> float:
        practice, temperature = self._practice, self._practice.sampling.temperature
        states = [trace.visited(temperature) for trace in practice.base_answers()]
        return nats_on(practice.backbone, self._weights.policy, states, temperature)


@dataclass
class _Imitation:
    """How far one has come."""

    trainer: SFT
    step: int = 0
    enough: bool = False  # of the budget is spent


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


WHOLE_LOG = "learns from the whole log"


_REWARD_PLAIN = ("seconds", "runs", "_steps", "_under_way", "_of_version", "_sampled")
"""Of a reward stage, plain values that a checkpoint holds."""


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

    def checkpoint(self) -> Saved:
        """The model and how far it has come."""
        plain = {name: getattr(self, name) for name in _REWARD_PLAIN}
        seqs = {name: sorted(getattr(self, name)) for name in ("seqs", "_learned")}
        return {**plain, **seqs, "model": self.model.checkpoint(), "scores": _scores_saved(self.scores)}

    def restore(self, saved: Saved) -> None:
        """Go on from there."""
        self.model.restore(saved["model"])
        for name in _REWARD_PLAIN:
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


def _scores_saved(scores: PrequentialScores) -> Saved:
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in vars(scores).items()}


def _items(inputs: LearnerInputs) -> list[Comparison | Scored]:
    return [*inputs.feedback.comparisons(), *inputs.feedback.scores()]


@dataclass(frozen=True)
class DistillPlan:
    steps: int = 60  # the first time
    again: int = 30  # when Ĥ has changed since
    batch: int = 16  # answers in one step
    pool: int = 48  # answers of the teacher kept to learn from
    redraw: int = 10  # steps between fresh draws of `batch` answers
    share: float = 0.95  # of the nats budget that the adapter is to absorb, at first …
    least_share: float = 0.5  # … and at least, however often it went over the budget


class DistillStage:
    """The adapter absorbs Ĥ: it learns the distribution of the steered reference on that one's own answers."""

    def __init__(self, weights: PolicyWeights, practice: Practice, inputs: CurrentInputs, runs: RunRecorder, plan: DistillPlan | None = None) -> None:
        self._weights, self._practice, self._inputs, self._runs, self._plan = weights, practice, inputs, runs, plan or DistillPlan()
        self._teacher = DistillationTeacher(practice, weights, self._plan.share)
        self._under_way: _Distillation | None = None

    def due(self) -> bool:
        """Whether Ĥ, the critiques or the budget have changed since."""
        inputs = self._inputs()
        something = not inputs.head.blank or bool(Critiques.of(inputs.feedback.lessons).lessons)
        return something and self._weights.lineage.distilled != Distilled(frozenset(inputs.feedback.seqs), inputs.nats)

    def lower_share(self, nats: float) -> None:
        """The adapter was found to spend so much, which is over the budget: its own answers lead to where it costs more than the teacher's did.

        Aim as much lower, and learn again.
        """
        lower = max(self._plan.least_share, self._teacher.share * self._inputs().nats / nats)
        if lower < self._teacher.share:
            self._teacher.share = lower
            self._weights.mark_distilled(None)

    def work(self) -> Iterator[None]:
        """A run for each Ĥ: where it changes meanwhile, the teacher follows it at the next redraw. Ends early when what it learned was undone."""
        inputs = self._inputs()
        if self._under_way is None:
            self._under_way = self._begin(inputs)
        progress = self._under_way
        try:
            while progress.step < progress.of or progress.in_run:
                inputs = self._inputs()
                if not self._weights.learned_only_from(inputs.feedback.seqs):
                    return
                self._weights.learn_from(inputs.feedback.seqs, inputs.head)
                with self._runs.run("distill", inputs.feedback.seqs, self._plan, self._weights.trained, progress.in_run) as steps:
                    yield from self._follow(inputs, progress, steps)
                progress.in_run = 0
            self._weights.mark_distilled(Distilled(frozenset(inputs.feedback.seqs), progress.nats))
        finally:
            self._under_way = None

    def checkpoint(self) -> Saved:
        """The teacher, and how far its pupil has come."""
        own = self._under_way
        progress = own and {name: getattr(own, name) for name in ("of", "step", "in_run", "drawn", "nats")}
        pool = [(t.prompt_ids, t.ids, t.kls) for t in own.pool] if own else []
        return {"teacher": self._teacher.checkpoint(), "progress": progress, "pool": pool, "optimizer": own and own.trainer.optimizer.state()}

    def restore(self, saved: Saved) -> None:
        """`work` goes on from there."""
        self._teacher.restore(saved["teacher"], self._inputs())
        if saved["progress"] is not None:
            pool = [Trace(prompt, ids=ids, kls=kls) for prompt, ids, kls in saved["pool"]]
            self._under_way = _Distillation(self._trainer(), started=time.monotonic(), pool=pool, **saved["progress"])
            self._under_way.trainer.optimizer.load_state(saved["optimizer"])

    def _begin(self, inputs: LearnerInputs) -> _Distillation:
        self._weights.begin("distill", inputs.feedback.seqs, inputs.head)
        again = self._weights.lineage.absorbed is not None
        if not again:
            self._teacher.start_over()
        return _Distillation(self._trainer(), self._plan.again if again else self._plan.steps, time.monotonic())

    def _trainer(self) -> Distill:
        backbone = self._practice.backbone
        return Distill(self._weights.policy, self._teacher, backbone.width, pause=self._practice.pause, memory=backbone.memory_budget)

    def _follow(self, inputs: LearnerInputs, progress: _Distillation, steps: list[int]) -> Iterator[None]:
        """Train until all steps are done, or the judgements are others at a redraw."""
        plan, practice, weights, teacher = self._plan, self._practice, self._weights, self._teacher
        while progress.step < progress.of:
            if progress.step % plan.redraw == 0 and progress.drawn != progress.step:
                latest = self._inputs()
                if latest.feedback.seqs != inputs.feedback.seqs:
                    return
                teacher.refresh(latest)
                progress.nats = latest.nats
                drawn = [t.without_states() for t in teacher.draw(practice.prompts(plan.batch)) if practice.backbone.spoken(t.prompt_ids, t.ids)[1]]
                progress.pool, progress.drawn = (progress.pool + drawn)[-plan.pool :], progress.step
                yield
            if not progress.pool:
                progress.step = progress.of
                self._runs.progress("distill", progress.of, progress.of, progress.started, note=ALL_THOUGHT)
                return
            chosen = practice.random.sample(progress.pool, min(plan.batch, len(progress.pool)))
            batch, said = teacher.batch(chosen)
            stats = progress.trainer.step(batch)
            progress.step, steps[0] = progress.step + 1, steps[0] + 1
            progress.in_run = steps[0]
            weights.absorb(teacher.head, teacher.beta, (weights.lineage.critiques | said) & teacher.critiques.seqs)
            spent = pooled_nats([t.kl for t in chosen], [len(t.ids) for t in chosen])
            self._runs.progress("distill", progress.step, progress.of, progress.started, loss=stats.loss, kl=spent, grad_norm=stats.grad_norm)
            yield


@dataclass
class _Distillation:
    """How far one has come, over all its runs."""

    trainer: Distill
    of: int  # steps
    started: float  # monotonic seconds
    step: int = 0
    in_run: int = 0  # steps of the run that is recorded
    drawn: int = -1  # the step before which answers were drawn last
    nats: float = 0.0  # budget at the last redraw
    pool: list[Trace] = field(default_factory=list)  # answers of the teacher
