"""How long each stage trains and on what: one course a stage. `due()` says whether there is something to learn; `work()` does it in small steps.

The stages themselves (sft.py, reward.py, distill.py, ppo.py) know nothing of budgets, prompts or judgements; the curriculum chooses between courses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from learners.curriculum.scorers import HumanRewardScorer, Scorer, margins_of, reward_model_leads
from learners.curriculum.teacher import DistillationTeacher
from learners.curriculum.weights import Workshop
from learners.feedback.samples import Comparison, Scored, Target
from learners.feedback.tap_advantages import tapped_of
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import REFERENCE_TOKENS
from learners.human_reward.prequential import PrequentialScores
from learners.model.lora import load_lora, lora_state
from learners.protocol import Answer, Appraised, Foreseen
from learners.rlhf.distillation import Distill, DistillBatch
from learners.rlhf.ppo import PPO, PPOSettings
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import Trace, nats_on
from learners.rlhf.sft import SFT
from learners.rlhf.token_rewards import appraise

PPO_SETTINGS = PPOSettings(learning_rate=3e-5, step_kl=0.01, kl_horizon=60.0)
"""Gentler than PPO's own: the budgets here are a few nats an answer, and the coefficient has to find its place within a minute."""
PROBE_ANSWERS = 16
"""Answers of the base on which KL is measured and rewards are scaled."""


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

    def __init__(self, shop: Workshop, plan: SFTPlan | None = None) -> None:
        self._shop, self._plan = shop, plan or SFTPlan()
        self._sft = SFT(shop.policy, shop.backbone.width, pause=shop.pause)
        self._learned: frozenset[int] = frozenset()

    def due(self) -> bool:
        """Whether something was written, or taken back, since."""
        return frozenset(seq for seq, _ in self._shop.inputs.lessons.targets()) != self._learned

    def work(self) -> Iterator[None]:
        """Start again from the base: what was taken back leaves no trace."""
        shop, plan = self._shop, self._plan
        targets = shop.inputs.lessons.targets()
        seqs = frozenset(seq for seq, _ in targets)
        shop.restart_from_base()
        self._sft.reset_optimizer()
        with shop.run("sft", sorted(seqs), plan) as steps:
            started = time.monotonic()
            for step in range(plan.steps if targets else 0):
                stats = self._sft.step(self._some([target for _, target in targets]))
                steps[0] = step + 1
                kl = self._nats() if step % plan.probe_every == plan.probe_every - 1 else None
                shop.progress("sft", step + 1, plan.steps, started, loss=stats.loss, kl=kl, grad_norm=stats.grad_norm)
                yield
                if kl is not None and kl > plan.budget * shop.inputs.nats:
                    break
        shop.freeze_reference(imitates=bool(targets))
        self._learned = seqs

    def restore(self, seqs: Sequence[int]) -> None:
        """The reference already imitates these."""
        self._learned = frozenset(seq for seq, _ in self._shop.inputs.lessons.targets() if seq in set(seqs))

    def _some(self, targets: list[Target]) -> list[Target]:
        return self._shop.random.sample(targets, min(self._plan.batch, len(targets)))

    def _nats(self) -> float:
        shop = self._shop
        temperature = shop.sampling.temperature
        states = [trace.visited(temperature) for trace in shop.probe(PROBE_ANSWERS)]
        return nats_on(shop.backbone, shop.policy, states, temperature)


@dataclass(frozen=True)
class RewardPlan:
    steps: int = 10  # to begin with …
    steps_per_item: int = 2  # … and for each comparison or score
    batch: int = 6  # comparisons or scores
    fewest_items: int = 3


class RewardStage:
    """Keeps the reward model up with the live rankings and ratings; scores it on each before it learns from it."""

    def __init__(self, shop: Workshop, tree: nn.Module, plan: RewardPlan | None = None) -> None:
        self._shop, self._plan = shop, plan or RewardPlan()
        self.model = RewardModel(tree, shop.backbone.width, seed=shop.seed, pause=shop.pause)
        self.record = PrequentialScores()
        self.seconds = 0.0
        self._fresh = self.model.state()
        self._learned: frozenset[int] = frozenset()
        self._steps = 0

    def due(self) -> bool:
        items = self._items()
        return len(items) >= self._plan.fewest_items and frozenset(item.seq for item in items) != self._learned

    def work(self) -> Iterator[None]:
        shop, plan, started = self._shop, self._plan, time.monotonic()
        items = self._items()
        seqs = frozenset(item.seq for item in items)
        if self._learned - seqs:  # something was taken back: it must leave no trace
            self.model.load_state(self._fresh)
            self._steps = 0
        new = [item for item in items if item.seq not in self._learned]
        self._examine(new)
        enough = plan.steps + plan.steps_per_item * len(items)
        with shop.run("reward", sorted(seqs), plan, changes_policy=False) as steps:
            began = self._steps
            while self._steps < enough:
                stats = self.model.step(self._batch(items, new))
                self._steps += 1
                steps[0] = self._steps - began
                shop.progress(
                    "reward", steps[0], enough - began, started,
                    loss=stats.loss, accuracy=self.record.accuracy, grad_norm=stats.grad_norm,
                )  # fmt: skip
                yield
        probe = shop.probe(PROBE_ANSWERS)
        self.model.normalise([t.prompt_ids for t in probe], [tuple(t.ids) for t in probe])
        self._learned = seqs
        self.seconds += time.monotonic() - started

    def appraise(self, answers: Sequence[Answer]) -> Appraised:
        """What the reward model thinks of each token; nothing before it has learned something."""

        def rewards(prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> list[float]:
            return self.model.token_rewards([prompt_ids], [token_ids])[0].tolist()

        found = appraise(self._shop.backbone, answers, rewards) if self._steps else ()
        return Appraised(h_epoch=self._shop.inputs.head.epoch, appraisals=found, by="reward")

    def restore(self, state: Mapping[str, Tensor] | None, seqs: Sequence[int]) -> None:
        """Go on with the reward model of a version, or with a fresh one."""
        self.model.load_state(state if state is not None else self._fresh)
        self._learned = frozenset(item.seq for item in self._items() if item.seq in set(seqs)) if state is not None else frozenset()
        self._steps = self._plan.steps + self._plan.steps_per_item * len(self._learned) if state is not None else 0

    def _items(self) -> list[Comparison | Scored]:
        lessons = self._shop.inputs.lessons
        return [*lessons.comparisons(), *lessons.scores()]

    def _batch(self, items: Sequence[Comparison | Scored], new: Sequence[Comparison | Scored]) -> list[Comparison | Scored]:
        """Half of what is new, so that one more ranking among many is learned at once."""
        random, size = self._shop.random, self._plan.batch
        fresh = random.sample(new, min(size // 2, len(new)))
        return fresh + random.sample(items, min(size - len(fresh), len(items)))

    def _examine(self, new: Sequence[Comparison | Scored]) -> None:
        if not self._learned:
            return  # nothing learned yet: it would be scored on a random head
        for item in new:
            if isinstance(item, Comparison):
                scores = self.model.score([item.prompt_ids] * len(item.answers), item.answers)
                self.record, foreseen = self.record.add(item.seq, margins_of(item, scores.tolist()))
                if foreseen:
                    self._shop.emit(Foreseen(seq=item.seq, judge="reward", **foreseen._asdict()))


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

    def __init__(self, shop: Workshop, plan: DistillPlan | None = None) -> None:
        self._shop, self._plan = shop, plan or DistillPlan()
        self._teacher = DistillationTeacher(shop, self._plan.share)
        self._distill = Distill(shop.policy, self._teacher, shop.backbone.width, pause=shop.pause)
        self._absorbed: tuple[RewardHead, float] | None = None
        self._seqs: frozenset[int] = frozenset()

    def due(self) -> bool:
        inputs = self._shop.inputs
        if inputs.head.blank:
            return False
        return self._absorbed is None or self._absorbed[0] is not inputs.head or self._absorbed[1] != inputs.nats

    def spend_less(self, nats: float) -> None:
        """The adapter was found to spend so much, which is over the budget: its own answers lead to where it costs more than the teacher's did.

        Aim as much lower, and learn again.
        """
        lower = max(self._plan.least_share, self._teacher.share * self._shop.inputs.nats / nats)
        if lower < self._teacher.share:
            self._teacher.share, self._absorbed = lower, None

    def work(self) -> Iterator[None]:
        shop, plan = self._shop, self._plan
        seqs = frozenset(shop.inputs.lessons.seqs)
        if self._seqs - seqs:  # something was taken back: it must leave no trace
            shop.restart_from_reference()
        self._seqs = seqs
        self._distill.reset_optimizer()
        of = plan.again if shop.candidate.absorbed is not None else plan.steps
        pool: list[Trace] = []
        with shop.run("distill", shop.inputs.lessons.seqs, plan) as steps:
            started = time.monotonic()
            for step in range(of):
                if step % plan.redraw == 0:
                    self._teacher.refresh()
                    pool = (pool + self._teacher.draw(shop.some_prompts(plan.batch)))[-plan.pool :]
                    yield
                chosen = shop.random.sample(pool, min(plan.batch, len(pool)))
                stats = self._distill.step(DistillBatch([t.prompt_ids for t in chosen], [tuple(t.ids) for t in chosen]))
                steps[0] = step + 1
                shop.candidate.absorbed, shop.candidate.absorbed_beta = self._teacher.head, self._teacher.steering.beta
                spent = sum(t.nats for t in chosen) / len(chosen)
                shop.progress("distill", step + 1, of, started, loss=stats.loss, kl=spent, grad_norm=stats.grad_norm)
                yield
        self._absorbed = (self._teacher.head, shop.inputs.nats)


@dataclass(frozen=True)
class PPOPlan:
    prompts: int = 8
    answers: int = 4  # to each prompt
    iterations: int = 6  # between gates
    share: float = 0.85  # of the nats budget that the policy may spend: what is published is what did best, and that spent more than it seemed
    tolerance: float = 1.1  # of that share; beyond it an update is taken back …
    dearer: float = 1.5  # … and the KL costs this much more


class PPOStage:
    """Goes on from the adapter so far, against the judge that predicts the operator best."""

    def __init__(self, shop: Workshop, reward: RewardStage | None, plan: PPOPlan | None = None, settings: PPOSettings = PPO_SETTINGS) -> None:
        self._shop, self._reward, self._plan = shop, reward, plan or PPOPlan()
        self.ppo = PPO(
            shop.policy, shop.reference, self._shares, settings, shop.seed,
            backbone=shop.backbone, sampling=shop.sampling, pause=shop.pause,
        )  # fmt: skip
        self._judge: Scorer | None = None
        self._teacher = DistillationTeacher(shop, self._plan.share)
        self._started = False
        self._within: Mapping[str, Tensor] | None = None  # the last weights known to be within the budget

    def restart(self) -> None:
        """Other weights are in the policy tree."""
        self.ppo.reset_optimizer()
        self._within = None

    def due(self) -> bool:
        return not self._shop.inputs.head.blank

    def work(self) -> Iterator[None]:
        shop, plan = self._shop, self._plan
        self._judge = self.judge()
        if not self._started:
            probe = shop.probe(PROBE_ANSWERS)
            self._aim(sum(len(t.ids) for t in probe) / len(probe))  # before the coefficient, which a new target rescales
            self.ppo.kl_coefficient = self._coefficient()
            self._started = True
        with shop.run("ppo", shop.inputs.lessons.seqs, plan) as steps:
            started = time.monotonic()
            for step in range(plan.iterations):
                rollouts = self.ppo.rollout(shop.some_prompts(plan.prompts), plan.answers)
                length = sum(map(len, rollouts.answers)) / len(rollouts.answers)
                self._aim(length)
                yield
                within = lora_state(shop.policy)
                stats = self.ppo.step(rollouts, tapped_of(shop.inputs.lessons))
                if (stats.kl or 0.0) > plan.tolerance * self.ppo.kl_target and self._within is not None:
                    load_lora(shop.policy, self._within)  # the update before this one went over the budget: take both back
                    self.ppo.kl_coefficient *= plan.dearer
                else:
                    self._within = within
                steps[0] = step + 1
                shop.progress(
                    "ppo", step + 1, plan.iterations, started,
                    loss=stats.loss, reward=stats.reward, kl=(stats.kl or 0.0) * REFERENCE_TOKENS / max(1.0, length),
                    kl_coefficient=stats.kl_coefficient, entropy=stats.entropy, clip_fraction=stats.clip_fraction,
                    explained_variance=stats.explained_variance, grad_norm=stats.grad_norm,
                )  # fmt: skip
                yield

    def judge(self) -> Scorer:
        """The reward model when it has taken over, else Ĥ; scaled to unit deviation on answers of the base."""
        inputs = self._shop.inputs
        if self._reward is not None and reward_model_leads(inputs.head_record, self._reward.record):
            return self._reward.model
        return self._head_judge()

    def _head_judge(self) -> HumanRewardScorer:
        judge, probe = HumanRewardScorer(self._shop.base, self._shop.inputs.head), self._shop.probe(PROBE_ANSWERS)
        judge.normalise([t.prompt_ids for t in probe], [tuple(t.ids) for t in probe])
        return judge

    def _coefficient(self) -> float:
        """The KL coefficient at which the steered policy is the optimum of a myopic reward, so that PPO starts where distillation ended.

        The optimum of `score - λ·KL` is π ∝ π_base · exp(gain·r / (λ·T)), as a score is the mean of T token rewards r times a gain; the
        teacher is π ∝ π_base · exp(β·r); so λ = gain / (β·T).
        """
        shop = self._shop
        self._teacher.refresh()
        probe = shop.probe(PROBE_ANSWERS)
        length = sum(len(t.ids) for t in probe) / len(probe)
        gain, beta = self._head_judge().gain, self._teacher.steering.beta
        return gain / max(1e-6, beta * length)

    def _aim(self, length: float) -> None:
        """Of the KL per answer of this length."""
        self.ppo.kl_target = max(1e-3, self._room() * length / REFERENCE_TOKENS)

    def _room(self) -> float:
        """Nats per 64 tokens that the policy may put between itself and the reference."""
        spent = SFTPlan().budget if self._shop.imitates else 0.0
        return self._plan.share * self._shop.inputs.nats * (1 - spent)

    def _shares(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> Tensor:
        assert self._judge is not None
        return self._judge.token_shares(prompts, answers)
