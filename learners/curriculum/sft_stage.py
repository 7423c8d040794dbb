"""SFT as the curriculum runs it: from the base again when something was written or taken back, until its share of the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learners.curriculum.inputs import CurrentInputs
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.weights import PolicyWeights
from learners.feedback.samples import Target
from learners.rlhf.rollouts import nats_on
from learners.rlhf.sft import SFT


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

    def checkpoint(self) -> dict[str, Any] | None:
        """How far it has come; None where nothing is under way."""
        own = self._under_way
        return None if own is None else {"step": own.step, "enough": own.enough, "optimizer": own.trainer.optimizer.state()}

    def restore(self, saved: Mapping[str, Any] | None) -> None:
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
