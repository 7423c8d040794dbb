"""Action biasing: the next logits plus β·Ĥ, with β solved so that the acting policy stays within a budget of nats.

Knox and Stone 2010 name the technique (their number 6): human reward changes which action is selected, not the reward that another learner sees.
What differs: β is not annealed. It is the solution of KL(acting || base) = budget, on the exact KL on states that the last acting
answers really visited; so what they spent corrects the next β by itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from learners.features import Seen
from learners.functionals import lookup
from learners.human_reward import RewardHead

REFERENCE_TOKENS = 64
"""Budgets are nats per this many tokens."""
TOLERANCE = 5e-4
"""Relative, of the root of the KL at the solution."""
MOST_BETA = 1e6
REMEMBERED_ANSWERS = 12
CAUTION = 0.5
"""Share of the budget that is solved for on states of the base: steering leads where it costs more, by about this much. On states of answers that
spent some of the budget it is more, up to all of it where they spent as much."""
MOST_STATES = 512
"""On which β is solved; neighbours within an answer tell much the same."""
STATE_BYTES = 128e6
"""Memory for the distributions of remembered answers; at large vocabularies states are stepped over to keep to it."""


def state_stride(tokens: int, vocabulary: int) -> int:
    """Of an answer's `tokens` states, every which one to keep: two float32 distributions each."""
    states = max(1, int(STATE_BYTES / (8 * vocabulary * REMEMBERED_ANSWERS)))
    return max(1, -(-tokens // states))


@dataclass(frozen=True)
class Steering:
    """What is added to the next logits: β·Ĥ, less what the adapter has absorbed already. Immutable."""

    head: RewardHead
    beta: float = 0.0
    absorbed: RewardHead | None = None  # the Ĥ that the acting adapter was distilled from
    absorbed_beta: float = 0.0

    @property
    def active(self) -> bool:
        """Without β the adapter acts as it is; where all that was taught is undone, what it absorbed is taken back."""
        return not self._same and (self._takes_back if self.head.blank else self.beta != 0)

    @property
    def _same(self) -> bool:
        """Whether the adapter has absorbed exactly this."""
        return self.absorbed is not None and self.beta == self.absorbed_beta and self.head is self.absorbed

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor | None:
        """What to add to the logits (…, V), for states (…, d) and logits (…, V) of the base. None for nothing."""
        if not self.active:
            return None
        rewards, offset = self.parts(hidden)
        surer, already_surer = self.sureness
        seen = Seen.of(hidden, base_logits)
        values = torch.zeros_like(base_logits, dtype=torch.float32).index_add_(-1, self.tokens, self.beta * rewards + offset)
        return values.scatter_add_(-1, seen.likely, (self.beta * surer + already_surer) * seen.sureness)

    def parts(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """w · x of `tokens` in base states (…, d), and the bias that does not depend on β: (…, S) each.

        The two heads may see different features: one of them may have come with a version.
        """
        rewards = self.head.rewards(hidden)
        if not self._takes_back:
            return rewards, torch.zeros_like(rewards)
        assert self.absorbed is not None
        new, old = hidden.new_zeros(2, *hidden.shape[:-1], len(self.tokens))
        new[..., self._slots[0]] = rewards
        old[..., self._slots[1]] = -self.absorbed_beta * self.absorbed.rewards(hidden)
        return new, old

    @property
    def sureness(self) -> tuple[float, float]:
        """Of each unit of it: the reward, and the bias that does not depend on β."""
        return self.head.sureness, -self.absorbed_beta * self.absorbed.sureness if self.absorbed else 0.0

    @cached_property
    def tokens(self) -> Tensor:
        """(S,) that are biased, sorted."""
        if not self._takes_back:
            return self.head.tokens
        assert self.absorbed is not None
        return torch.unique(torch.cat([self.head.tokens, self.absorbed.tokens]), sorted=True)

    @cached_property
    def _slots(self) -> tuple[Tensor, Tensor]:
        """Of both heads' tokens among all."""
        assert self.absorbed is not None
        return torch.searchsorted(self.tokens, self.head.tokens), torch.searchsorted(self.tokens, self.absorbed.tokens)

    @property
    def _takes_back(self) -> bool:
        return self.absorbed is not None and self.absorbed_beta != 0 and not self.absorbed.blank


@dataclass(frozen=True)
class Visited:
    """States of one acting answer, with both next-token distributions there (temperature applied, Ĥ left out)."""

    seen: Seen  # n of the base
    base_logprobs: Tensor  # (n, V)
    policy_logprobs: Tensor  # (n, V)
    sequence: tuple[int, ...] = ()  # prompt and answer ids, to look again with another adapter
    positions: tuple[int, ...] = ()  # where in the sequence these states are: the token read last
    spent: float = 0.0  # nats per token of the policy that drew it, Ĥ included, against the base


class NatsBudget:
    """Remembers where acting answers went and solves β for a budget there."""

    def __init__(self, nats: float) -> None:
        self.nats = nats
        self._answers: deque[Visited] = deque(maxlen=REMEMBERED_ANSWERS)
        self._calibration: tuple[Visited, ...] = ()
        self._states: _States | None = None  # of `answers`: taps come oftener than answers

    def calibrate(self, answers: Sequence[Visited]) -> None:
        """Answers of the base: where β is solved, cautiously, until an acting answer was seen."""
        self._calibration, self._states = tuple(answers), None

    def visited(self, answer: Visited) -> None:
        """Remember where an acting answer went."""
        self._answers.append(answer)
        self._states = None

    def start_over(self, answers: Sequence[Visited]) -> None:
        """Remember these alone."""
        self._answers.clear()
        self._answers.extend(answers)
        self._states = None

    @property
    def answers(self) -> tuple[Visited, ...]:
        """Where β is solved."""
        return tuple(self._answers) or self._calibration

    def see_again(self, look: Callable[[Visited], Visited]) -> None:
        """After another adapter was published: the same answers, seen with it."""
        self._calibration = tuple(map(look, self._calibration))
        self._answers = deque(map(look, self._answers), self._answers.maxlen)
        self._states = None

    def solve(self, steering: Steering, temperature: float = 1.0) -> Steering:
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
    """Some states of all answers, n of them; see Visited."""

    hidden: Tensor  # (n, d)
    likely: Tensor  # (n, m)
    sureness: Tensor  # (n, m)
    base: Tensor  # (n, V) log-probabilities
    policy: Tensor  # (n, V)
    divergence: Tensor  # (n,)

    @staticmethod
    def of(answers: Sequence[Visited]) -> _States:
        step = -(-sum(len(answer.policy_logprobs) for answer in answers) // MOST_STATES)

        def gathered(of: Callable[[Visited], Tensor]) -> Tensor:
            """Each answer from another place on: answers to one prompt are alike, and every third word of all of them may cost nothing."""
            return torch.cat([of(answer)[i % step :: step] for i, answer in enumerate(answers)])

        base, policy = gathered(lambda answer: answer.base_logprobs), gathered(lambda answer: answer.policy_logprobs)
        return _States(
            gathered(lambda answer: answer.seen.hidden),
            gathered(lambda answer: answer.seen.likely),
            gathered(lambda answer: answer.seen.sureness),
            base,
            policy,
            (policy.exp() * (policy - base)).sum(1),
        )


@dataclass(frozen=True)
class _KLCurve:
    """Mean KL(acting || base) over n states as a function of β, from the probabilities of the biased tokens only."""

    rewards: Tensor  # (n, S) per unit of β
    offset: Tensor  # (n, S) bias that does not depend on β
    policy: Tensor  # (n, S) probabilities
    gap: Tensor  # (n, S) log policy - log base
    rest: Tensor  # (n,) probability of all other tokens
    rest_gap: Tensor  # (n,) their part of KL(policy || base)

    @staticmethod
    def of(steering: Steering, states: _States, temperature: float) -> _KLCurve:
        tokens = steering.tokens
        slots, known = lookup(tokens, states.likely)  # a likely token without rows has a column of its own
        rewards, offset = (
            torch.cat([of_rows.scatter_add(1, slots, each * states.sureness * known), each * states.sureness], 1)
            for of_rows, each in zip(steering.parts(states.hidden), steering.sureness, strict=True)
        )
        policy, base = (torch.cat([logprobs[:, tokens], logprobs.gather(1, states.likely)], 1) for logprobs in (states.policy, states.base))
        p, gap = policy.exp(), policy - base
        p[:, len(tokens) :] *= ~known
        return _KLCurve(
            rewards / temperature,
            offset / temperature,
            p,
            gap,
            (1 - p.sum(1)).clamp_min(0),
            states.divergence - (p * gap).sum(1),
        )

    def __call__(self, beta: float) -> float:
        """Nats per token."""
        bias = beta * self.rewards + self.offset
        shift = bias.amax(1, keepdim=True).clamp_min(0)  # the largest exponent is 0: nothing overflows
        weights = self.policy * (bias - shift).exp()
        scale = (-shift[:, 0]).exp()
        mass = self.rest * scale + weights.sum(1)
        moved = (weights * (bias + self.gap)).sum(1) + self.rest_gap * scale
        return float((moved / mass - mass.log() - shift[:, 0]).mean())

    def solve(self, nats: float, absorbed_beta: float) -> float:
        """The largest β whose KL is `nats`; 0 if the policy is over with any.

        Without an absorbed Ĥ the KL grows from β = 0 on. With one it falls first: near 0 all of that is taken back, which from an adapter that
        went on by itself leads to the opposite of what was taught; so a β under the budget is looked for from twice the absorbed one downwards.
        """
        starts = [absorbed_beta * quarters / 4 for quarters in range(8, 0, -1)] if absorbed_beta else [0.0]
        for low in starts:
            if (excess := self._excess(low, nats)) < 0:
                return self._root(low, excess, nats)
        return 0.0

    def _excess(self, beta: float, nats: float) -> float:
        """The root of the KL less that of the target: nearly linear in β, as the KL is nearly quadratic."""
        return math.sqrt(max(0.0, self(beta))) - math.sqrt(nats)

    def _root(self, low: float, at_low: float, nats: float) -> float:
        """From a β under the budget on: secants, kept between the nearest β known to be under the budget and the nearest over it."""
        before, at_before, beta, high = low, at_low, max(0.5, 1.25 * low), math.inf
        for _ in range(60):
            excess = self._excess(beta, nats)
            if abs(excess) < TOLERANCE * math.sqrt(nats) or (excess < 0 and beta >= MOST_BETA):
                return beta
            low, high = (beta, high) if excess < 0 else (low, beta)
            secant = beta - excess * (beta - before) / (excess - at_before) if excess != at_before else math.inf
            middle = (low + high) / 2 if high < math.inf else 2 * beta
            before, at_before = beta, excess
            beta = min(secant if low < secant < high and secant <= 4 * beta else middle, MOST_BETA)
        return low
