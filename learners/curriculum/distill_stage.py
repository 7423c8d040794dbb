"""Distillation as the curriculum runs it: how long, on which answers of the teacher, and what becomes of it where Ĥ changes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from learners.curriculum.inputs import CurrentInputs, LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.runs import ALL_THOUGHT, RunRecorder
from learners.curriculum.teacher import DistillationTeacher
from learners.curriculum.weights import PolicyWeights
from learners.feedback.critiques import Critiques
from learners.human_reward.kl_budget import pooled_nats
from learners.rlhf.distillation import Distill
from learners.rlhf.rollouts import Trace
from learners.versions.snapshot import Distilled


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

    def checkpoint(self) -> dict[str, Any]:
        """The teacher, and how far its pupil has come."""
        own = self._under_way
        progress = own and {name: getattr(own, name) for name in ("of", "step", "in_run", "drawn", "nats")}
        pool = [(t.prompt_ids, t.ids, t.kls) for t in own.pool] if own else []
        return {"teacher": self._teacher.checkpoint(), "progress": progress, "pool": pool, "optimizer": own and own.trainer.optimizer.state()}

    def restore(self, saved: Mapping[str, Any]) -> None:
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
