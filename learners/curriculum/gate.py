"""The gate: a new version is compared with the live acting policy before the operator meets it.

Both draw fresh answers to the gate's prompts with β solved to the budget, and a judge that never saw those answers scores them. A version is
refused when it is not finite, over budget, worse by more than one standard error, or much worse than the base at what the judge does not look at
(canary.py). The operator's own blind count, not this, says whether
teaching works; the gate only keeps obvious damage away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from learners.curriculum.canary import CanaryGauge
from learners.human_reward.kl_budget import KLBudget, pooled_nats
from learners.human_reward.logit_bias import LogitBias
from learners.model.base import Backbone
from learners.model.batches import TokenIds
from learners.rlhf.rollouts import Trace, draw_answers, spoken
from storage.records import Canary, Sampling

ScoreFunction = Callable[[Sequence[TokenIds], Sequence[TokenIds]], Tensor]
"""Prompts and answers -> scores (B,)."""
SEEDS = 100
"""Between two draws: each answer has a seed of its own, counted on from the draw's."""


@dataclass(frozen=True)
class GateSettings:
    """Constants of the comparison."""

    prompts: int = 12
    answers: int = 4  # to each prompt, from each policy
    fewest_prompts: int = 8  # with fewer gate prompts, train prompts with fresh answers serve
    looks: int = 3  # at what seems worse, before it is refused
    over_budget: float = 1.05  # the adapter alone may spend this much of the budget; the estimate is that rough


@dataclass(frozen=True)
class GateVerdict:
    """What the gate says and why."""

    published: bool
    code: str  # 'published', 'not finite', 'over budget', 'worse', 'worse elsewhere'
    reason: str
    kl: float | None = None  # nats per 64 tokens of the adapter alone against the base
    win_rate: float | None = None
    steering: LogitBias | None = None  # the candidate's, β solved
    better: bool = False  # by more than a standard error
    canary: Canary | None = None  # of what the judge did not refuse


@dataclass(frozen=True)
class Contender:
    """A policy at the gate: what is loaded into the tree, and how it is steered (None for no bias at all)."""

    load: Callable[[], None]
    steering: LogitBias | None


class Gate:
    """Compares two contenders on one tree. `pause` is called between tokens."""

    def __init__(
        self,
        backbone: Backbone,
        tree: nn.Module,
        sampling: Sampling,
        settings: GateSettings | None = None,
        gauge: CanaryGauge | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """Without a `gauge` only the judge decides."""
        self.backbone, self.tree, self.sampling = backbone, tree, sampling
        self.settings = settings or GateSettings()
        self._gauge, self.pause = gauge, pause

    def compare(
        self, candidate: Contender, live: Contender, judge: ScoreFunction, prompts: Sequence[TokenIds], nats: float, seed: int
    ) -> GateVerdict:
        """The candidate's weights are in the tree when this returns."""
        chosen = [p for p in prompts[: self.settings.prompts] for _ in range(self.settings.answers)]
        candidate.load()
        if not all(bool(p.isfinite().all()) for p in self.tree.parameters() if p.requires_grad):
            return GateVerdict(False, "not finite", "its weights are not finite")
        alone = self._draw(chosen, seed, None)
        kl = pooled_nats([trace.kl for trace in alone], [len(trace.ids) for trace in alone])
        if not math.isfinite(kl):
            return GateVerdict(False, "not finite", "its answers have no finite probability")
        if kl > nats * self.settings.over_budget:
            return GateVerdict(False, "over budget", f"{kl:.1f} of {nats:g} nats spent by the adapter alone", kl)
        steering = self._solve(candidate.steering, alone, nats) if candidate.steering is not None else None
        verdict, theirs = GateVerdict(False, "worse", "never compared", kl), alone
        new, old = torch.zeros(0), torch.zeros(0)
        for look in range(self.settings.looks):
            # what looks worse is looked at again: of two equal policies, one in six is worse by a standard error at one look
            seed += 2 * SEEDS
            theirs = alone if look == 0 and (steering is None or not steering.active) else self._draw(chosen, seed, steering)
            live.load()
            ours = self._draw(chosen, seed + SEEDS, live.steering)
            candidate.load()
            new, old = (torch.cat([before, _scores(self.backbone, judge, drawn)]) for before, drawn in ((new, theirs), (old, ours)))
            verdict = self._verdict(new, old, len(chosen) // self.settings.answers, kl, steering)
            if verdict.code != "worse":
                break
        return self._watched(verdict, theirs, nats, seed) if verdict.published else verdict

    def _watched(self, verdict: GateVerdict, answers: Sequence[Trace], nats: float, seed: int) -> GateVerdict:
        """What the judge let pass, beside what it is like otherwise. The candidate's weights are in the tree."""
        if self._gauge is None:
            return verdict
        canary = self._gauge.of(self.tree, verdict.steering, answers, seed + 2 * SEEDS)
        if objection := self._gauge.objection(canary, nats):
            return replace(verdict, published=False, better=False, code="worse elsewhere", reason=f"{verdict.reason}, but {objection}", canary=canary)
        return replace(verdict, canary=canary)

    def _draw(self, prompts: Sequence[TokenIds], seed: int, steering: LogitBias | None) -> list[Trace]:
        return draw_answers(
            self.backbone, self.tree, prompts, self.sampling, seed,
            adapter=True, steering=steering, keep_states=steering is None, pause=self.pause,
        )  # fmt: skip

    def _solve(self, steering: LogitBias, alone: Sequence[Trace], nats: float) -> LogitBias:
        budget = KLBudget(nats)
        for trace in alone:
            budget.visited(trace.visited(self.sampling.temperature))
        return budget.solve(replace(steering, beta=0.0), self.sampling.temperature)

    def _verdict(self, new: Tensor, old: Tensor, prompts: int, kl: float, steering: LogitBias | None) -> GateVerdict:
        """From the scores of all looks, answers to one prompt together: (looks · prompts · answers,) each."""
        if not bool(new.isfinite().all()):
            return GateVerdict(False, "not finite", "the judge has no finite score for it", kl)
        wins = (new > old).float() + 0.5 * (new == old).float()
        by_prompt = (new - old).view(-1, prompts, self.settings.answers).mean((0, 2))
        error = float(by_prompt.std(correction=1)) / math.sqrt(prompts) if prompts > 1 else 0.0
        rate, on = float(wins.mean()), f"on {prompts} prompts ({float(wins.mean()):.0%} won)"
        if float(by_prompt.mean()) < -error:
            return GateVerdict(False, "worse", f"worse {on}", kl, rate, steering)
        better = float(by_prompt.mean()) > error
        return GateVerdict(True, "published", f"{'better' if better else 'no worse'} {on}", kl, rate, steering, better)


def _scores(backbone: Backbone, judge: ScoreFunction, traces: Sequence[Trace]) -> Tensor:
    return torch.tensor(judge(*spoken(backbone, traces)).tolist())
