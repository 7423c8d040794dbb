"""What to learn next, when to publish, when to refuse: the learner's side of the engine, without threads.

`work()` is one endless sequence of small steps; it yields True after a step and False when there is nothing to do. SFT when the operator wrote
something, distillation when Ĥ has changed, the reward model when something was judged, then the gate; and PPO, through the same gate, while the
operator reads on. What passed the gate leaves through `propose`. What was undone is dropped before anything else trains, and ends what trains on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from learners.curriculum.canary import CanaryGauge
from learners.curriculum.distill_stage import DistillStage
from learners.curriculum.gate import Contender, Gate, GateVerdict
from learners.curriculum.inputs import CurrentInputs, LearnerInputs
from learners.curriculum.ppo_stage import PPO_SETTINGS, PPOStage
from learners.curriculum.practice import Practice
from learners.curriculum.reward_stage import RewardStage
from learners.curriculum.runs import RunRecorder
from learners.curriculum.sft_stage import SFTStage
from learners.curriculum.weights import PolicyWeights
from learners.model.batches import TokenIds
from learners.model.device import working_seconds
from learners.model.lora import lora_state
from learners.protocol import Metrics, Stage
from learners.rlhf.ppo import PPOSettings
from learners.versions.snapshot import PolicySnapshot, VersionState

GATES_WITHOUT_GAIN = 3
"""In a row that PPO passes through without doing better, after which it waits for new judgements."""


@dataclass(frozen=True)
class Proposal:
    """A verdict, with what is needed to make a version of it."""

    verdict: GateVerdict
    state: VersionState
    stage: Stage
    parent: str
    runs: tuple[str, ...]


IN_TURN: tuple[Stage, ...] = ("sft", "distill", "reward")
"""Of a round; PPO follows one in which none of these was due."""
_OWN = ("_gates_without_gain", "_unproposed", "_ppo_seqs")


class TrainingStage(Protocol):
    """How long a trainer trains and on what: the trainers themselves (rlhf/) know nothing of budgets, prompts or judgements."""

    def due(self) -> bool:
        """Whether there is something to learn."""

    def work(self) -> Iterator[None]:
        """Learn it, in small steps."""


@dataclass
class _Round:
    turn: int = 0  # of the stage that is looked at next
    worked: bool = False  # whether one was due
    under_way: Stage | None = None  # from its first step on, until the gate is about to see what came of it


class Curriculum:
    """See the module. `propose` is told every verdict."""

    def __init__(
        self,
        weights: PolicyWeights,
        practice: Practice,
        inputs: CurrentInputs,
        runs: RunRecorder,
        reward_tree: nn.Module,
        stages: Sequence[Stage],
        propose: Callable[[Proposal], None],
        ppo_settings: PPOSettings = PPO_SETTINGS,
        ppo_iterations: float = math.inf,
    ) -> None:
        """`ppo_iterations`: in all; without a number PPO goes on for as long as it gains."""
        self._weights, self._practice, self._inputs, self._runs = weights, practice, inputs, runs
        self.stages = tuple(stages)
        self.gate_seconds = 0.0
        self._propose = propose
        self._gauge = gauge = CanaryGauge(practice.backbone, practice.base, practice.base_answers, practice.sampling, pause=practice.pause)
        self._gate = Gate(practice.backbone, weights.policy, practice.sampling, gauge=gauge, pause=practice.pause)
        self._sft = SFTStage(weights, practice, inputs, runs)
        self._distill = DistillStage(weights, practice, inputs, runs)
        self.reward = RewardStage(reward_tree, practice, inputs, runs, others_due=self._others_due)
        self._ppo = PPOStage(
            weights, practice, inputs, runs, self.reward if "reward" in stages else None, settings=ppo_settings, most_iterations=ppo_iterations,
        )  # fmt: skip
        self._gates_without_gain = 0
        self._unproposed = False  # whether PPO went on from a candidate that was no better than what acts
        self._ppo_seqs: tuple[int, ...] = ()
        self._round = _Round()

    def work(self, resumed: bool = False) -> Iterator[bool]:
        """Never ends; to abandon what is under way, drop the iterator, call `restart` and start another. `resumed`: go on from a checkpoint."""
        if not resumed:
            self._round = _Round()
        while True:
            own = self._round
            if own.under_way is not None:
                yield from self._train(own.under_way)
            elif own.turn < len(IN_TURN):
                name, own.turn = IN_TURN[own.turn], own.turn + 1
                self._drop_undone()
                if self._may(name) and self._stage(name).due():
                    own.under_way, own.worked = name, True
            else:
                self._round = _Round()
                if own.worked:
                    continue
                if self._inputs().partial:  # what else there is to learn, only the whole log tells
                    yield False
                elif self._weights.lineage.to_gate is not None:  # a gate that was broken off
                    self._pass_gate()
                    yield True
                elif self._ppo_due():
                    self._round = _Round(len(IN_TURN), True, "ppo")
                else:
                    yield False

    @property
    def ppo_iterations(self) -> int:
        """Of PPO so far: a rollout and the updates from it each."""
        return self._ppo.iterations

    def checkpoint(self) -> dict[str, Any]:
        """All that comes next depends on, beside the inputs: between two steps of `work`, for `restore`."""
        parts = {name: getattr(self, f"_{name}").checkpoint() for name in ("weights", "practice", "sft", "distill", "ppo")}
        own = {name: getattr(self, name) for name in _OWN}
        more = {"round": vars(self._round), "gate_seconds": self.gate_seconds, "neutral_loss": self._gauge.neutral_loss}
        return {**parts, "reward": self.reward.checkpoint(), "own": own, **more}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Into a curriculum that is as new, with the same inputs; then `work(resumed=True)` goes on as if nothing had happened."""
        self._weights.restore(saved["weights"], self._inputs().head)
        self._practice.restore(saved["practice"])
        for name in ("sft", "distill", "ppo"):
            getattr(self, f"_{name}").restore(saved[name])
        self.reward.restore(saved["reward"])
        for name, value in saved["own"].items():
            setattr(self, name, value)
        self._gauge.neutral_loss = saved["neutral_loss"]
        self._round, self.gate_seconds = _Round(**saved["round"]), saved["gate_seconds"]
        self._practice.restore(saved["practice"])  # once more: what a stage looks up to go on may have drawn

    def restart(self, restored: VersionState) -> None:
        """Give up what is under way and go on from a version: its adapter, its reference, its reward model and value head.

        What is due then is decided later: the log may not have been read yet.
        """
        self._weights.replace(restored)
        self.reward.go_on_from(restored)
        self._gates_without_gain, self._unproposed = 0, False

    def try_again(self) -> None:
        """Let PPO train on, even if it had given up for now."""
        self._gates_without_gain = 0

    def flush(self) -> None:
        """Bring what has been trained to the gate now; the iterator of `work` must have been closed."""
        self._drop_undone()
        if self._unproposed:
            self._weights.ask_gate("ppo")
        if self._weights.lineage.to_gate is not None:
            self._pass_gate(last=True)

    def _stage(self, name: Stage) -> TrainingStage:
        return {"sft": self._sft, "distill": self._distill, "reward": self.reward, "ppo": self._ppo}[name]  # type: ignore[return-value]

    def _may(self, name: Stage) -> bool:
        """Of a long log of which a sample has been read, the reward model alone is trained."""
        return name in self.stages and (name == "reward" or not self._inputs().partial)

    def _others_due(self) -> bool:
        return any(self._may(name) and self._stage(name).due() for name in IN_TURN if name != "reward")

    def _train(self, name: Stage) -> Iterator[bool]:
        try:
            with closing(self._stage(name).work()) as steps:  # type: ignore[type-var]
                for _ in steps:
                    yield True
                    if self._undone():
                        return
        finally:
            self._round.under_way = None
        if self._weights.lineage.to_gate is not None:
            self._pass_gate()
            yield True

    def _undone(self) -> bool:
        """Whether anything that was learned is not live any more."""
        inputs = self._inputs()
        live = inputs.feedback.seqs
        stands = inputs.partial or self._weights.learned_only_from(live)  # a part of the log does not tell
        return not (stands and self.reward.seqs <= frozenset(live))

    def _drop_undone(self) -> None:
        inputs = self._inputs()
        live = inputs.feedback.seqs
        if not inputs.partial and not self._weights.learned_only_from(live):
            self._weights.drop_undone(live)
            self._unproposed = False
        if not self.reward.waits:
            self.reward.drop_undone(live)

    def _ppo_due(self) -> bool:
        seqs = self._inputs().feedback.seqs
        if seqs != self._ppo_seqs:
            self._ppo_seqs, self._gates_without_gain = seqs, 0
        return "ppo" in self.stages and self._gates_without_gain < GATES_WITHOUT_GAIN and self._ppo.due()

    # --- the gate ----------------------------------------------------------------------------------------------------

    def _pass_gate(self, last: bool = False) -> None:
        """PPO proposes only what is better (or what is left at the end): versions cost disk, and equals change nothing."""
        started = working_seconds(self._practice.backbone.device)
        stage, inputs = self._weights.lineage.to_gate, self._inputs()
        assert stage is not None
        state = self._state(inputs)
        verdict = self._compare(state.policy, inputs)
        self.gate_seconds += working_seconds(self._practice.backbone.device) - started
        self._unproposed = stage == "ppo" and verdict.published and not verdict.better and not last
        if not self._unproposed and not self._undone():
            self._offer(verdict, state, stage, inputs)
        self._learn_from(verdict, stage)

    def _compare(self, policy: PolicySnapshot, inputs: LearnerInputs) -> GateVerdict:
        """The candidate in the policy tree with what acts."""
        self._runs.emit(Metrics(stage="gate", step=0, of=1))
        with self._weights.lent() as load:

            def contender(of: PolicySnapshot, beta: float) -> Contender:
                return Contender(lambda: load(of.lora), of.steering(inputs.head, beta) if inputs.bias else None)

            verdict = self._gate.compare(
                contender(policy, 0.0),
                contender(inputs.live.policy, inputs.live_beta),
                self._ppo.scorer(inputs).score,
                self._prompts(inputs),
                inputs.nats,
                self._practice.new_seed(),
            )
        self._runs.emit(Metrics(stage="gate", step=1, of=1, kl=verdict.kl, note=verdict.reason))
        return verdict

    def _offer(self, verdict: GateVerdict, state: VersionState, stage: Stage, inputs: LearnerInputs) -> None:
        """Propose what has been to the gate; where it acts afterwards, it is what training goes on from."""
        self._propose(Proposal(verdict, state, stage, self._weights.lineage.parent, (*self._weights.lineage.runs, *self.reward.runs)))
        live = self._inputs().live
        if verdict.published and live is not inputs.live:
            self._weights.published(live.policy.version)
            self.reward.runs = ()

    def _state(self, inputs: LearnerInputs) -> VersionState:
        """What is trained now as a version: with the judgements that it was trained on, whatever has been judged since."""
        weights, reward = self._weights, self.reward
        return VersionState(
            policy=weights.snapshot(),
            head=weights.lineage.head or inputs.head,
            reward_state=reward.model.state() if reward.trained else None,
            value_state=self._ppo.value_state,
            reference=lora_state(weights.reference) if weights.imitates else None,
            seqs=tuple(sorted(weights.lineage.seqs)),
            reference_seqs=tuple(sorted(weights.reference_seqs)),
            reward_seqs=tuple(sorted(reward.seqs)),
            reward_steps=reward.steps,
            distilled=weights.lineage.distilled,
        )

    def _learn_from(self, verdict: GateVerdict, stage: Stage) -> None:
        """After the gate: PPO that is no better yet goes on, for a while; one that did damage is given up; the other stages mend theirs."""
        self._weights.ask_gate(None)
        if verdict.code == "over budget" and stage == "distill" and verdict.kl is not None:
            self._distill.lower_share(verdict.kl)
        self._gates_without_gain = 0 if verdict.better or stage != "ppo" else self._gates_without_gain + 1
        if not verdict.published and stage == "ppo":
            self._weights.return_to(self._inputs().live)

    def _prompts(self, inputs: LearnerInputs) -> Sequence[TokenIds]:
        """The gate's own prompts; with too few of them, fresh answers to prompts that are trained on."""
        settings, own = self._gate.settings, inputs.gate_prompts
        if len(own) >= settings.fewest_prompts:
            return self._practice.random.sample(list(own), min(settings.prompts, len(own)))
        return self._practice.prompts(settings.prompts)
