"""The KL budget: β, the strength of the logit bias, solved on the exact KL so that the acting policy stays within a number of nats."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from learners.human_reward.features import Seen
from learners.human_reward.head import lookup
from learners.human_reward.logit_bias import LogitBias

REFERENCE_TOKENS = 64
"""Budgets are nats per this many tokens."""
TOLERANCE = 5e-4
"""Relative, of the root of the KL at the solution."""
MOST_BETA = 1e6
REMEMBERED_ANSWERS = 12
CAUTION = 0.5
"""Share of the budget that is solved for on states of the base: steering leads where it costs more, by about this much. On states of answers that
spent some of the budget it is more, up to all of it where they spent as much."""
NOTHING = -1e4
"""Log-probability of a token that never comes: a finite one, since no probability times its logarithm is to be 0."""
SCARCELY = -30.0
"""Least log-probability of all tokens together that are not biased."""
MOST_STATES = 512
"""On which β is solved; neighbours within an answer tell much the same."""
STATES_AT_A_TIME = 8
"""On a CPU, where the KL is computed: what is computed on the way stays in the processor's cache."""
STATE_BYTES = 128e6
"""Memory for the distributions of remembered answers; at large vocabularies states are stepped over to keep to it."""


def pooled_nats(kl: Sequence[float], tokens: Sequence[int]) -> float:
    """Nats per REFERENCE_TOKENS tokens of several answers together: the sum of their KL over the sum of their tokens, not a mean of ratios.

    kl: of each answer, summed over its tokens. tokens: how many it has. 0 where there are none.
    """
    return REFERENCE_TOKENS * math.fsum(kl) / max(1, sum(tokens))


def state_stride(tokens: int, vocabulary: int) -> int:
    """Of an answer's `tokens` states, every which one to keep: two float32 distributions each."""
    states = max(1, int(STATE_BYTES / (8 * vocabulary * REMEMBERED_ANSWERS)))
    return max(1, -(-tokens // states))


@dataclass(frozen=True)
class VisitedStates:
    """States of one acting answer, with both next-token distributions there (temperature applied, Ĥ left out)."""

    seen: Seen  # n of the base
    base_logprobs: Tensor  # (n, V)
    policy_logprobs: Tensor  # (n, V)
    sequence: tuple[int, ...] = ()  # prompt and answer ids, to look again with another adapter
    positions: tuple[int, ...] = ()  # where in the sequence these states are: the token read last
    spent: float = 0.0  # nats per token of the policy that drew it, Ĥ included, against the base
    divergence: Tensor | None = None  # (n,) KL of the two; None where it is to be computed from them

    def halved(self) -> VisitedStates:
        """To be kept: distributions in half precision, what they say of each other computed before. One tensor where the base is the policy."""
        same = self.policy_logprobs is self.base_logprobs
        base = self.base_logprobs.half()
        return replace(self, base_logprobs=base, policy_logprobs=base if same else self.policy_logprobs.half(), divergence=self.kl)

    @property
    def kl(self) -> Tensor:
        """(n,) nats of the policy against the base in each state."""
        if self.divergence is not None:
            return self.divergence
        if self.policy_logprobs is self.base_logprobs:
            return self.base_logprobs.new_zeros(len(self.base_logprobs), dtype=torch.float32)
        policy, base = (logprobs.float().clamp_min(NOTHING) for logprobs in (self.policy_logprobs, self.base_logprobs))
        return (policy.exp() * (policy - base)).sum(1)


class KLBudget:
    """Remembers where acting answers went and solves β for a budget there."""

    def __init__(self, nats: float) -> None:
        self.nats = nats
        self._answers: deque[VisitedStates] = deque(maxlen=REMEMBERED_ANSWERS)
        self._calibration: tuple[VisitedStates, ...] = ()
        self._states: _States | None = None  # of `answers`: taps come oftener than answers

    def calibrate(self, answers: Sequence[VisitedStates]) -> None:
        """Answers of the base: where β is solved, cautiously, until an acting answer was seen."""
        self._calibration, self._states = tuple(answer.halved() for answer in answers), None

    def visited(self, answer: VisitedStates) -> None:
        """Remember where an acting answer went."""
        self._answers.append(answer.halved())
        self._calibration, self._states = (), None

    def start_over(self, answers: Sequence[VisitedStates]) -> None:
        """Remember these alone."""
        self._answers.clear()
        for answer in answers:
            self.visited(answer)

    @property
    def answers(self) -> tuple[VisitedStates, ...]:
        """Where β is solved."""
        return tuple(self._answers) or self._calibration

    def checkpoint(self) -> list[tuple[Any, ...]]:
        """Where acting answers went; for `restore`. The budget and what it was calibrated on are the caller's."""
        return [(*a.seen, a.base_logprobs, None if a.policy_logprobs is a.base_logprobs else a.policy_logprobs, a.sequence, a.positions, a.spent,
                 a.divergence) for a in self._answers]  # fmt: skip

    def restore(self, saved: Sequence[tuple[Any, ...]]) -> None:
        """Remember these alone."""
        self._answers.clear()
        for hidden, likely, probabilities, base, policy, *rest in saved:
            seen = Seen(hidden, likely, probabilities)
            self._answers.append(VisitedStates(seen, base, base if policy is None else policy, *rest))
        self._states = None

    def see_again(self, look: Callable[[VisitedStates], VisitedStates | None]) -> None:
        """After another adapter was published: the same answers, seen with it; those of which `look` gives None are forgotten."""

        def again(answers: Iterable[VisitedStates]) -> list[VisitedStates]:
            return [replace(seen, divergence=None).halved() for answer in answers if (seen := look(answer)) is not None]

        self._states = None
        self._calibration = tuple(again(self._calibration))
        self._answers = deque(again(self._answers), self._answers.maxlen)

    def solve(self, steering: LogitBias, temperature: float = 1.0) -> LogitBias:
        """The same steering with β at the budget; 0, the adapter as it is, where no β keeps to it (or there is nothing to steer with)."""
        answers = self.answers
        if not answers or self.nats <= 0 or steering.head.blank:
            return replace(steering, beta=0.0)
        self._states = self._states or _States.of(answers)
        curve = _KLCurve.of(steering, self._states, temperature)
        budget = self.nats / REFERENCE_TOKENS
        spent = sum(answer.spent for answer in answers) / len(answers)
        nats = budget * (CAUTION + (1 - CAUTION) * min(1.0, spent / budget))
        return replace(steering, beta=curve.solve(nats, steering.absorbed_beta))


class _States(NamedTuple):
    """Some states of all answers, n of them; see VisitedStates. Distributions stay where they are, answer by answer, since they are so large."""

    hidden: Tensor  # (n, d)
    likely: Tensor  # (n, m)
    sureness: Tensor  # (n, m)
    divergence: Tensor  # (n,)
    distributions: tuple[tuple[Tensor, Tensor], ...]  # of each answer: log-probabilities of the base and of the policy, (…, V); n together

    @staticmethod
    def of(answers: Sequence[VisitedStates]) -> _States:
        step = -(-sum(len(answer.policy_logprobs) for answer in answers) // MOST_STATES)

        def some(of: Callable[[VisitedStates], Tensor]) -> list[Tensor]:
            """Each answer from another place on: answers to one prompt are alike, and every third word of all of them may cost nothing."""
            return [of(answer)[i % step :: step] for i, answer in enumerate(answers)]

        base, policy = some(lambda answer: answer.base_logprobs), some(lambda answer: answer.policy_logprobs)
        same = [answer.policy_logprobs is answer.base_logprobs for answer in answers]
        return _States(
            torch.cat(some(lambda answer: answer.seen.hidden)),
            torch.cat(some(lambda answer: answer.seen.likely)),
            torch.cat(some(lambda answer: answer.seen.sureness)),
            torch.cat(some(lambda answer: answer.kl)),
            tuple((mine, mine if of_base else acting) for mine, acting, of_base in zip(base, policy, same, strict=True)),
        )

    def logprobs(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of these tokens (S,) and of the likely ones, by the policy and by the base: (n, S + m) each, float32; one tensor where the two are."""
        likely = self.likely.split([len(base) for base, _ in self.distributions])
        columns = [torch.cat([tokens.expand(len(some), -1), some], 1) for some in likely]
        policy = torch.cat([each.gather(1, some) for (_, each), some in zip(self.distributions, columns, strict=True)]).float()
        if all(each is base for base, each in self.distributions):
            return policy, policy
        return policy, torch.cat([each.gather(1, some) for (each, _), some in zip(self.distributions, columns, strict=True)]).float()


@dataclass(frozen=True)
class _KLCurve:
    """Mean KL(acting || base) over n states as a function of β: over the biased tokens, and all others together as one more."""

    rewards: Tensor  # (n, S) per unit of β
    start: Tensor  # (n, S) log-probabilities of the policy, and the bias that does not depend on β
    base: Tensor  # (n, S) log-probabilities; of the others together what makes their part of the KL right

    @staticmethod
    def of(steering: LogitBias, states: _States, temperature: float) -> _KLCurve:
        tokens = steering.tokens(states.hidden.device)
        slots, known = lookup(tokens, states.likely)  # a likely token without rows has a column of its own
        none = states.divergence.new_zeros(len(states.divergence), 1)
        rewards, offset = (
            torch.cat([of_rows.scatter_add_(1, slots, each * states.sureness * known), each * states.sureness, none], 1).div_(temperature)
            for of_rows, each in zip(steering.parts(states.hidden), steering.sureness, strict=True)
        )
        policy, base = (torch.cat([logprobs.clamp_min(NOTHING), none], 1) for logprobs in states.logprobs(tokens))
        policy[:, len(tokens) : -1].masked_fill_(known, NOTHING)
        p = policy[:, :-1].exp()
        rest = (1 - p.sum(1)).clamp_min(math.exp(SCARCELY))
        spent = states.divergence - (p.mul_(policy[:, :-1] - base[:, :-1])).sum(1)
        policy[:, -1], base[:, -1] = rest.log(), rest.log() - spent / rest
        return _KLCurve(rewards, policy.add_(offset), base)

    def __call__(self, beta: float) -> float:
        """Nats per token."""
        return float(self.nats(beta))

    def nats(self, beta: float) -> Tensor:
        """Nats per token, ()."""
        size = STATES_AT_A_TIME if self.start.device.type == "cpu" else max(1, len(self.start))
        parts = zip(*(each.split(size) for each in (self.start, self.rewards, self.base)), strict=True)
        return torch.cat([_nats(torch.add(start, rewards, alpha=beta), base) for start, rewards, base in parts]).mean()

    def solve(self, nats: float, absorbed_beta: float) -> float:
        """See `strength_within`."""
        return strength_within(self, nats, absorbed_beta)


def strength_within(kl: Callable[[float], float], nats: float, absorbed: float = 0.0, most: float = MOST_BETA) -> float:
    """The largest strength of a bias whose KL, in nats per token, is `nats`; `most` where that has less, 0 where all have more.

    Without an absorbed bias the KL grows from 0 on. With one it falls first: near 0 all of that is taken back, which from an adapter that
    went on by itself leads to the opposite of what was taught; so a strength under the budget is looked for from twice the absorbed one downwards.
    """

    def excess(strength: float) -> float:
        """The root of the KL less that of the target: nearly linear in the strength, as the KL is nearly quadratic."""
        return math.sqrt(max(0.0, kl(strength))) - math.sqrt(nats)

    for low in [absorbed * quarters / 4 for quarters in range(8, 0, -1)] if absorbed else [0.0]:
        if (at_low := excess(low)) < 0:
            return _root(excess, low, at_low, TOLERANCE * math.sqrt(nats), most)
    return 0.0


def _root(excess: Callable[[float], float], low: float, at_low: float, tolerance: float, most: float) -> float:
    """From a strength under the budget on: secants, kept between the nearest one known to be under the budget and the nearest over it."""
    before, at_before, strength, high = low, at_low, min(max(0.5, 1.25 * low), most), math.inf
    for _ in range(60):
        value = excess(strength)
        if abs(value) < tolerance or (value < 0 and strength >= most):
            return strength
        low, high = (strength, high) if value < 0 else (low, strength)
        secant = strength - value * (strength - before) / (value - at_before) if value != at_before else math.inf
        middle = (low + high) / 2 if high < math.inf else 2 * strength
        before, at_before = strength, value
        strength = min(secant if low < secant < high and secant <= 4 * strength else middle, most)
    return low


def _nats(logits: Tensor, base: Tensor) -> Tensor:
    """KL in each state of the policy with these logits (n, S) against base log-probabilities: (n,)."""
    acting = logits.log_softmax(1)
    weights = acting.exp()
    return weights.mul_(acting.sub_(base)).sum(1)
