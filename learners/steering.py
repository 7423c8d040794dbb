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

import torch
from torch import Tensor

from learners.features import Seen
from learners.human_reward import RewardHead, lookup

REFERENCE_TOKENS = 64
"""Budgets are nats per this many tokens."""
TOLERANCE = 5e-4
"""Relative, of the root of the KL at the solution."""
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

    @cached_property
    def divergence(self) -> Tensor:
        """(n,) KL(policy || base), nats."""
        return (self.policy_logprobs.exp() * (self.policy_logprobs - self.base_logprobs)).sum(1)


class NatsBudget:
    """Remembers where acting answers went and solves β for a budget there."""

    def __init__(self, nats: float) -> None:
        self.nats = nats
        self._answers: deque[Visited] = deque(maxlen=REMEMBERED_ANSWERS)
        self._calibration: tuple[Visited, ...] = ()

    def calibrate(self, answers: Sequence[Visited]) -> None:
        """Answers of the base: where β is solved, cautiously, until an acting answer was seen."""
        self._calibration = tuple(answers)

    def visited(self, answer: Visited) -> None:
        """Remember where an acting answer went."""
        self._answers.append(answer)

    def start_over(self, answers: Sequence[Visited]) -> None:
        """Remember these alone."""
        self._answers.clear()
        self._answers.extend(answers)

    @property
    def answers(self) -> tuple[Visited, ...]:
        """Where β is solved."""
        return tuple(self._answers) or self._calibration

    def see_again(self, look: Callable[[Visited], Visited]) -> None:
        """After another adapter was published: the same answers, seen with it."""
        self._calibration = tuple(map(look, self._calibration))
        self._answers = deque(map(look, self._answers), self._answers.maxlen)

    def solve(self, steering: Steering, temperature: float = 1.0) -> Steering:
        """The same steering with β at the budget; 0, the adapter as it is, where no β keeps to it (or there is nothing to steer with)."""
        answers = self.answers
        if not answers or self.nats <= 0 or steering.head.blank:
            return replace(steering, beta=0.0)
        curve = _KLCurve.of(steering, answers, temperature)
        budget = self.nats / REFERENCE_TOKENS
        spent = sum(answer.spent for answer in answers) / len(answers)
        nats = budget * (CAUTION + (1 - CAUTION) * min(1.0, spent / budget))
        return replace(steering, beta=curve.solve(nats, steering.absorbed_beta))


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
    def of(steering: Steering, answers: Sequence[Visited], temperature: float) -> _KLCurve:
        step = -(-sum(len(answer.divergence) for answer in answers) // MOST_STATES)
        tokens = steering.tokens

        def gathered(of: Callable[[Visited, slice], Tensor]) -> Tensor:
            """Each answer from another place on: answers to one prompt are alike, and every third word of all of them may cost nothing."""
            return torch.cat([of(answer, slice(i % step, None, step)) for i, answer in enumerate(answers)])

        def columns(logprobs: Tensor, likely: Tensor) -> Tensor:
            return torch.cat([logprobs[:, tokens], logprobs.gather(1, likely)], 1)

        sureness = gathered(lambda answer, part: answer.seen.sureness[part])
        slots, known = lookup(tokens, gathered(lambda answer, part: answer.seen.likely[part]))  # a likely token without rows has a column of its own
        parts = steering.parts(gathered(lambda answer, part: answer.seen.hidden[part]))
        rewards, offset = (
            torch.cat([of_rows.scatter_add(1, slots, each * sureness * known), each * sureness], 1)
            for of_rows, each in zip(parts, steering.sureness, strict=True)
        )
        policy = gathered(lambda answer, part: columns(answer.policy_logprobs[part], answer.seen.likely[part]))
        base = gathered(lambda answer, part: columns(answer.base_logprobs[part], answer.seen.likely[part]))
        p, gap = policy.exp(), policy - base
        p[:, len(tokens) :] *= ~known
        total = gathered(lambda answer, part: answer.divergence[part])
        return _KLCurve(
            rewards / temperature,
            offset / temperature,
            p,
            gap,
            (1 - p.sum(1)).clamp_min(0),
            total - (p * gap).sum(1),
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
        low = next((beta for beta in starts if self._excess(beta, nats) < 0), None)
        if low is None:
            return 0.0
        at_low = self._excess(low, nats)
        high = max(1.0, 2 * low)
        while (at_high := self._excess(high, nats)) < 0 and high < 1e6:
            low, at_low, high = high, at_high, 2 * high
        return self._root(low, at_low, high, at_high, nats)

    def _excess(self, beta: float, nats: float) -> float:
        """The root of the KL less that of the target: nearly linear in β, as the KL is nearly quadratic."""
        return math.sqrt(max(0.0, self(beta))) - math.sqrt(nats)

    def _root(self, low: float, at_low: float, high: float, at_high: float, nats: float) -> float:
        """False position (the Illinois variant) between a β under the budget and one over it; returns one under it."""
        for _ in range(40):
            beta = high - at_high * (high - low) / (at_high - at_low) if at_high > 0 else high
            excess = self._excess(beta, nats)
            if abs(excess) < TOLERANCE * math.sqrt(nats):
                return beta
            if excess < 0:
                low, at_low, at_high = beta, excess, at_high / 2
            else:
                high, at_high, at_low = beta, excess, at_low / 2
        return low
