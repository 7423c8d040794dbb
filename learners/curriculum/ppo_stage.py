"""PPO as the curriculum runs it: against which scorer, how dear the KL is, and what is taken back when it goes over the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from learners.curriculum.inputs import CurrentInputs, LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.reward_stage import RewardStage
from learners.curriculum.runs import ALL_THOUGHT, TOO_SHORT, RunRecorder
from learners.curriculum.scorers import HumanRewardScorer, Scorer, reward_model_leads
from learners.curriculum.sft_stage import SFTPlan
from learners.curriculum.teacher import DistillationTeacher
from learners.curriculum.weights import PolicyWeights
from learners.feedback.critiques import Critiques
from learners.feedback.tap_advantages import tapped_of
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import REFERENCE_TOKENS
from learners.model.lora import lora_state
from learners.rlhf.ppo import LEAST_TOKENS, PPO, PPOSettings
from learners.rlhf.rollouts import Rollouts, spoken
from learners.rlhf.stats import StepStats

PPO_SETTINGS = PPOSettings(learning_rate=3e-5, step_kl=0.01, kl_horizon=60.0)
"""Gentler than PPO's own: the budgets here are a few nats an answer, and the coefficient has to find its place within a minute."""


@dataclass(frozen=True)
class PPOPlan:
    prompts: int = 8
    answers: int = 4  # to each prompt
    iterations: int = 6  # between gates
    share: float = 0.85  # of the nats budget that the policy may spend: what is published is what did best, and that spent more than it seemed
    tolerance: float = 1.1  # of that share; beyond it an update is taken back …
    raise_coefficient: float = 1.1  # … and the KL coefficient is multiplied by this


@dataclass
class KLLimit:
    """Decides which update is taken back: keeps the last weights whose KL was within a limit or, until there are any, coming down to it.

    The KL of weights is only estimated, on rollouts: those that were put back are looked at anew and never put back twice in a row.
    """

    kept: Mapping[str, Tensor] | None = None
    kl: float = math.inf  # of `kept`, nats per answer
    over: bool = False  # whether the weights looked at last were over the limit for the first time, or were put back
    put_back: bool = False

    def look(self, weights: Mapping[str, Tensor], kl: float, limit: float) -> Mapping[str, Tensor] | None:
        """At the weights before an update, and their KL; returns what to put in place of the weights after it, None to go on with those."""
        exceeded = kl > limit
        self.put_back = exceeded and self.kept is not None and not self.put_back and kl >= self.kl
        self.over = self.put_back or (exceeded and self.kept is None)
        if self.put_back:
            return self.kept
        self.kept, self.kl = weights, kl
        return None


@dataclass
class _Generation:
    """What belongs to one generation of the weights."""

    number: int
    ppo: PPO
    limit: KLLimit = field(default_factory=KLLimit)


@dataclass
class _Round:
    """Between two gates: how far it has come."""

    step: int = 0  # iterations
    rollouts: Rollouts | None = None  # that the next update is to be made from


class PPOStage:
    """Goes on from the adapter so far, against the scorer that predicts the operator best."""

    trainer: ClassVar[type[PPO]] = PPO

    def __init__(
        self,
        weights: PolicyWeights,
        practice: Practice,
        inputs: CurrentInputs,
        runs: RunRecorder,
        reward: RewardStage | None,
        plan: PPOPlan | None = None,
        settings: PPOSettings = PPO_SETTINGS,
        most_iterations: float = math.inf,
    ) -> None:
        """`reward` is None where the reward model is not trained. `most_iterations`: in all."""
        self._weights, self._practice, self._inputs, self._runs = weights, practice, inputs, runs
        self._reward, self._plan, self._settings = reward, plan or PPOPlan(), settings
        self._scorer: Scorer | None = None
        self._teacher = DistillationTeacher(practice, weights, self._plan.share)
        self._generation: _Generation | None = None
        self._under_way: _Round | None = None
        self.iterations, self._most_iterations = 0, most_iterations  # in all

    @property
    def ppo(self) -> PPO | None:
        """Of the weights that are in the tree; None where it has not trained them."""
        own = self._generation
        return own.ppo if own is not None and own.number == self._weights.generation else None

    @property
    def value_state(self) -> Mapping[str, Tensor] | None:
        """Value head, KL coefficient and target, to go on with from a version; None unless PPO trained last."""
        return self.ppo.state() if self.ppo is not None else self._weights.lineage.value_state

    def due(self) -> bool:
        """Not while a wish holds for every prompt: its reward knows no words, so it would unlearn what was distilled from them."""
        inputs = self._inputs()
        wishes = any(each.judgement.scope == "all" for each in Critiques.of(inputs.feedback.lessons).lessons)  # type: ignore[union-attr]
        return self.iterations < self._most_iterations and not inputs.head.blank and not wishes

    def work(self) -> Iterator[None]:
        inputs, plan = self._inputs(), self._plan
        seqs = inputs.feedback.seqs
        if self._under_way is None:
            self._weights.begin("ppo", seqs, inputs.head)
            self._under_way = _Round()
        own = self._under_way
        self._scorer = self.scorer(inputs)
        generation = self._current(inputs)
        tapped = tapped_of(inputs.feedback)
        try:
            with self._runs.run("ppo", seqs, plan, self._weights.trained, own.step) as steps:
                started = time.monotonic()
                while own.step < plan.iterations and self.iterations < self._most_iterations:
                    if own.rollouts is None:
                        own.rollouts = generation.ppo.rollout(self._practice.prompts(plan.prompts), plan.answers)
                        if sum(map(len, own.rollouts.answers)) < LEAST_TOKENS:
                            note = TOO_SHORT if own.rollouts.answers else ALL_THOUGHT
                            self._runs.progress("ppo", own.step + 1, plan.iterations, started, note=note)
                            break
                        self._aim(generation.ppo, _length(own.rollouts))
                        yield
                    before = lora_state(self._weights.policy)
                    stats = generation.ppo.step(own.rollouts, tapped)
                    self._keep_to_budget(generation, before, stats.kl or 0.0)
                    length, own.rollouts = _length(own.rollouts), None
                    own.step += 1
                    self.iterations += 1
                    steps[0] = own.step
                    self._report(stats, own.step, length, started)
                    yield
        finally:
            self._under_way = None

    def checkpoint(self) -> dict[str, Any]:
        """What belongs to the generation of the weights, and how far it has come."""
        of, own = self._generation, self._under_way
        generation = of and {"number": of.number, "ppo": of.ppo.checkpoint(), "limit": vars(of.limit)}
        rollouts = own and own.rollouts and vars(own.rollouts)
        return {"iterations": self.iterations, "generation": generation, "step": own and own.step, "rollouts": rollouts}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """`work` goes on from there."""
        self.iterations = saved["iterations"]
        if (of := saved["generation"]) is not None:
            self._generation = _Generation(of["number"], self._new_ppo(of["number"]), KLLimit(**of["limit"]))
            self._generation.ppo.restore(of["ppo"])
        if saved["step"] is not None:
            self._under_way = _Round(saved["step"], saved["rollouts"] and Rollouts(**saved["rollouts"]))

    def scorer(self, inputs: LearnerInputs) -> Scorer:
        """The reward model when it has taken over, else Ĥ, fitted to rewards where that can be; scaled to unit deviation on answers of the base."""
        if self._reward is not None and self._reward.trained and reward_model_leads(inputs.head_scores, self._reward.scores):
            return self._reward.model
        return self._head_scorer(inputs) if inputs.rewards is None else self._scaled(inputs.rewards, rewards=True)

    def _current(self, inputs: LearnerInputs) -> _Generation:
        """PPO with an optimizer, a value head and a KL coefficient for the weights that are in the tree."""
        number, practice = self._weights.generation, self._practice
        if self._generation is None or self._generation.number != number:
            ppo = self._new_ppo(number)
            if (state := self._weights.lineage.value_state) is not None:
                ppo.load_state(state)
            else:
                self._aim(ppo, practice.base_length())  # before the coefficient, which a new target rescales
                ppo.kl_coefficient = self.first_coefficient(inputs)
            self._generation = _Generation(number, ppo)
        return self._generation

    def _new_ppo(self, number: int) -> PPO:
        practice = self._practice
        return self.trainer(
            self._weights.policy, self._weights.reference, self._token_shares, self._settings, practice.seed + number,
            backbone=practice.backbone, sampling=practice.sampling, pause=practice.pause,
        )  # fmt: skip

    def first_coefficient(self, inputs: LearnerInputs) -> float:
        """The KL coefficient at which the steered policy is the optimum of a myopic reward, so that PPO starts where distillation ended.

        The optimum of `score - λ·KL` is π ∝ π_base · exp(gain·r / (λ·T)), as a score is the mean of T token rewards r times a gain, with the
        policies as they are drawn from, at the temperature τ; the teacher is softmax((l_base + β·r) / τ) ∝ π_base · exp(β·r / τ); so
        λ = gain·τ / (β·T).
        """
        self._teacher.refresh(inputs)
        gain, beta = self._head_scorer(inputs).gain, self._teacher.steering.beta
        return gain * self._practice.sampling.temperature / max(1e-6, beta * self._practice.base_length())

    def _keep_to_budget(self, generation: _Generation, before: Mapping[str, Tensor], kl: float) -> None:
        """`kl` is of the weights before the update, in nats per answer."""
        kept = generation.limit.look(before, kl, self._plan.tolerance * generation.ppo.kl_target)
        if kept is not None:
            self._weights.take_back(kept)
        if generation.limit.over:
            generation.ppo.kl_coefficient *= self._plan.raise_coefficient

    def _head_scorer(self, inputs: LearnerInputs) -> HumanRewardScorer:
        return self._scaled(inputs.head, rewards=False)

    def _scaled(self, head: RewardHead, rewards: bool) -> HumanRewardScorer:
        practice = self._practice
        scorer = HumanRewardScorer(practice.base, head, practice.backbone.memory_budget, rewards)
        scorer.normalise(*spoken(practice.backbone, practice.base_answers()))
        return scorer

    def _aim(self, ppo: PPO, length: float) -> None:
        """At the KL per answer of this length."""
        spent = SFTPlan().budget if self._weights.imitates else 0.0
        room = self._plan.share * self._inputs().nats * (1 - spent)  # nats per 64 tokens between policy and reference
        ppo.kl_target = max(1e-3, room * length / REFERENCE_TOKENS)

    def _token_shares(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> Tensor:
        assert self._scorer is not None
        return self._scorer.token_shares(prompts, answers)

    def _report(self, stats: StepStats, step: int, length: float, started: float) -> None:
        self._runs.progress(
            "ppo", step, self._plan.iterations, started,
            loss=stats.loss, reward=stats.reward, kl=(stats.kl or 0.0) * REFERENCE_TOKENS / max(1.0, length),
            kl_coefficient=stats.kl_coefficient, entropy=stats.entropy, clip_fraction=stats.clip_fraction,
            explained_variance=stats.explained_variance, grad_norm=stats.grad_norm,
        )  # fmt: skip


def _length(rollouts: Rollouts) -> float:
    """Mean, in tokens."""
    return sum(map(len, rollouts.answers)) / len(rollouts.answers)
