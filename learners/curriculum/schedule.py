"""What to learn next, when to publish, when to refuse: the learner's side of the engine, without threads.

`work()` is one endless sequence of small steps; it yields True after a step and False when there is nothing to do. SFT when the operator wrote
something, the reward model when something was judged, distillation when Ĥ has changed, then the gate; and PPO, through the same gate, while the
operator reads on. What passed the gate leaves through `propose`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from learners.curriculum.gate import Contender, Gate, GateVerdict
from learners.curriculum.stages import PPO_SETTINGS, DistillStage, PPOStage, RewardStage, SFTStage, TrainingStage
from learners.curriculum.weights import TokenIds, Workshop
from learners.human_reward.head import RewardHead
from learners.model.lora import load_lora, lora_state
from learners.protocol import Metrics, Stage
from learners.versions.snapshot import PolicySnapshot, VersionState

PATIENCE = 3
"""Gates in a row that PPO passes through without doing better, after which it waits for new judgements."""


@dataclass(frozen=True)
class Proposal:
    """A verdict, with what is needed to make a version of it."""

    verdict: GateVerdict
    state: VersionState
    stage: Stage
    parent: str
    runs: tuple[str, ...]


class Curriculum:
    """See the module. `propose` is told every verdict."""

    def __init__(
        self,
        shop: Workshop,
        reward_tree: nn.Module,
        stages: Sequence[Stage],
        propose: Callable[[Proposal], None],
        frozen_ppo: bool = False,
    ) -> None:
        self.shop = shop
        self.stages = tuple(stages)
        self.gate_seconds = 0.0
        self._propose = propose
        self._gate = Gate(shop.backbone, shop.policy, shop.sampling, pause=shop.pause)
        self._sft = SFTStage(shop)
        self.reward = RewardStage(shop, reward_tree)
        self._distill = DistillStage(shop)
        ppo = replace(PPO_SETTINGS, policy_loss_weight=0.0) if frozen_ppo else PPO_SETTINGS
        self._ppo = PPOStage(shop, self.reward if "reward" in stages else None, settings=ppo)
        self._fruitless = 0
        self._unproposed = False  # whether PPO went on from a candidate that was no better than what acts
        self._ppo_seqs: tuple[int, ...] = ()

    def work(self) -> Iterator[bool]:
        """Never ends; to abandon what is under way, drop the iterator, call `restart` and start another."""
        while True:
            worked = False
            for stage, course in (("sft", self._sft), ("distill", self._distill), ("reward", self.reward)):
                if stage in self.stages and course.due():
                    worked = True
                    yield from self._attend(course)
            if not worked and self._ppo_due():
                worked = True
                yield from self._attend(self._ppo)
            if not worked:
                yield False

    def _attend(self, course: TrainingStage) -> Iterator[bool]:
        for _ in course.work():
            yield True
        if self.shop.candidate.stage is not None:
            self._examine()
            yield True

    def restart(self, restored: VersionState) -> None:
        """Give up what is under way and go on from a version: its adapter, its reference, its reward model and value head."""
        self.shop.restart_from_live()
        self.shop.restore_reference(restored.reference)
        self.reward.restore(restored.reward_state, restored.seqs)
        self._sft.restore(restored.seqs if restored.reference else ())
        if restored.value_state is not None:
            self._ppo.ppo.load_state(restored.value_state)
        self._ppo.restart()
        self._fruitless, self._unproposed = 0, False

    def encourage(self) -> None:
        """Train on, even if PPO had given up for now."""
        self._fruitless = 0

    def flush(self) -> None:
        """Bring what has been trained to the gate now; the iterator of `work` must have been closed."""
        if self._unproposed:
            self.shop.candidate.stage = "ppo"
        if self.shop.candidate.stage is not None:
            self._examine(last=True)

    def _ppo_due(self) -> bool:
        seqs = self.shop.inputs.lessons.seqs
        if seqs != self._ppo_seqs:
            self._ppo_seqs, self._fruitless = seqs, 0
        return "ppo" in self.stages and self._fruitless < PATIENCE and self._ppo.due()

    # --- the gate ----------------------------------------------------------------------------------------------------

    def _examine(self, last: bool = False) -> None:
        """PPO proposes only what is better (or what is left at the end): versions cost disk, and equals change nothing."""
        started = time.monotonic()
        shop, inputs = self.shop, self.shop.inputs
        stage, parent = shop.candidate.stage, shop.candidate.parent
        assert stage is not None
        policy, head = shop.candidate_policy(), inputs.head
        shop.emit(Metrics(stage="gate", step=0, of=1))
        verdict = self._gate.compare(
            self._contender(policy, head, 0.0),
            self._contender(inputs.live, head, inputs.live_beta),
            self._ppo.judge().score,
            self._prompts(),
            inputs.nats,
            shop.new_seed(),
        )
        shop.emit(Metrics(stage="gate", step=1, of=1, kl=verdict.kl, note=verdict.reason))
        self._unproposed = stage == "ppo" and verdict.published and not verdict.better and not last
        if not self._unproposed:
            reference = lora_state(shop.reference) if shop.imitates else None
            state = VersionState(policy, head, self.reward.model.state(), self._ppo.ppo.state(), reference, inputs.lessons.seqs)
            self._propose(Proposal(verdict, state, stage, parent, tuple(shop.candidate.runs)))
            if verdict.published:
                shop.candidate.parent, shop.candidate.runs = inputs.live.version, []
        self._learn_from(verdict, stage)
        self.gate_seconds += time.monotonic() - started

    def _learn_from(self, verdict: GateVerdict, stage: Stage) -> None:
        """After the gate: PPO that is no better yet goes on, for a while; one that did damage is given up; the other stages mend theirs."""
        self.shop.candidate.stage = None
        if verdict.code == "over budget" and stage == "distill" and verdict.kl is not None:
            self._distill.spend_less(verdict.kl)
        self._fruitless = 0 if verdict.better or stage != "ppo" else self._fruitless + 1
        if not verdict.published and stage == "ppo":
            self.shop.restart_from_live()
            self._ppo.restart()

    def _contender(self, policy: PolicySnapshot, head: RewardHead, beta: float) -> Contender:
        steering = policy.steering(head, beta) if self.shop.inputs.bias else None
        return Contender(lambda: load_lora(self.shop.policy, policy.lora), steering)

    def _prompts(self) -> Sequence[TokenIds]:
        """The gate's own prompts; with too few of them, fresh answers to prompts that are trained on."""
        settings = self._gate.settings
        own = self.shop.inputs.gate_prompts
        if len(own) >= settings.fewest_prompts:
            return self.shop.random.sample(list(own), min(settings.prompts, len(own)))
        return self.shop.some_prompts(settings.prompts)
