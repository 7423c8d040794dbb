"""Steering by critiques: γ·Σ strength·(l_critique − l_plain) on the next logits, where l_critique is the base's with the critique in its context.

Classifier-free guidance on text (Sanchez et al. 2023) and contrastive decoding. What differs: γ is no constant. It is solved so that the acting
policy stays within the KL budget that β is solved for, on states that answers with these critiques really visited; and where both steer, critiques
and Ĥ are each solved for the whole budget alone, and then weakened by one share until both together keep to it. Where what the base says with and
without a critique have little in common, their product leaves most to tokens that are likely in neither; so these keep the share that they had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from learners.human_reward.kl_budget import REFERENCE_TOKENS, STATE_BYTES, strength_within
from learners.human_reward.logit_bias import LogitBias

if TYPE_CHECKING:
    from learners.model.rows import FixedBias

FIRST_GAMMA = 0.5
"""Until states were visited: what the trials of guidance on small models leave well within the budget."""
MOST_GAMMA = 3.0
"""A critique that hardly moves the base is not made louder than this: what is then left is noise."""
REMEMBERED_ANSWERS = 8
MOST_STATES = 64
"""On which γ is solved."""


class CriticisedStates(NamedTuple):
    """States of an answer that was drawn with critiques: n of them, temperature not applied."""

    hidden: Tensor  # (n, d) of the base
    base: Tensor  # (n, V) logits
    wish: Tensor  # (n, V) Σ strength·(l_critique − l_plain), -inf for tokens that are not plausible
    policy: Tensor | None = None  # (n, V) logits without any bias; None where the base drew it

    @staticmethod
    def pooled(answers: Iterable[CriticisedStates]) -> CriticisedStates:
        """Some states of all, evenly."""
        answers = list(answers)
        adapted = any(each.policy is not None for each in answers)
        most = max(1, min(MOST_STATES, int(STATE_BYTES / (12 * answers[0].wish.shape[1]))))
        step = -(-sum(len(each.wish) for each in answers) // most)

        def some(of: Callable[[CriticisedStates], Tensor]) -> Tensor:
            return torch.cat([of(each) for each in answers])[::step]

        policy = some(lambda each: each.base if each.policy is None else each.policy) if adapted else None
        return CriticisedStates(some(lambda each: each.hidden), some(lambda each: each.base), some(lambda each: each.wish), policy)


@dataclass(frozen=True)
class CritiqueBias:
    """How strongly critiques steer, and what share of its strength Ĥ keeps beside them."""

    gamma: float = FIRST_GAMMA
    share: float = 1.0

    def bias(self, steering: LogitBias, hidden: Tensor, base_logits: Tensor, wish: Tensor) -> Tensor:
        """What to add to the logits (…, V) in states where critiques hold; shapes as in LogitBias.bias."""
        shared = steering.bias(hidden, base_logits, self.share)
        asked = asked_for(self.share * self.gamma, base_logits, wish)
        return asked if shared is None else asked + shared


@dataclass(frozen=True)
class BiasWithCritiques:
    """A SteeringBias: Ĥ everywhere, and critiques in the rows that have contexts."""

    steering: LogitBias
    critique: CritiqueBias

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor | None:
        """See LogitBias.bias."""
        return self.steering.bias(hidden, base_logits)

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor:
        """See SteeringBias.criticised."""
        plain, asked = self.bias(hidden, base_logits), self.critique.bias(self.steering, hidden, base_logits, wish)
        return torch.where(rows, asked, torch.zeros_like(asked) if plain is None else plain)

    def fixed(self, before: FixedBias | None, device: torch.device) -> FixedBias:
        """See LogitBias.fixed."""
        from learners.human_reward.fixed_bias import FixedHeads

        return FixedHeads.of(self.steering, self.critique, before, device)


class CritiqueBudget:
    """Remembers where answers with the present critiques went, and solves γ there."""

    def __init__(self) -> None:
        self._answers: deque[CriticisedStates] = deque(maxlen=REMEMBERED_ANSWERS)

    def forget(self) -> None:
        """Other critiques hold, or another policy acts."""
        self._answers.clear()

    def visited(self, states: CriticisedStates) -> None:
        """Remember where an answer went."""
        self._answers.append(states)

    def checkpoint(self) -> list[tuple[Tensor | None, ...]]:
        """Where answers went; for `restore`."""
        return [tuple(states) for states in self._answers]

    def restore(self, saved: Iterable[tuple[Tensor | None, ...]]) -> None:
        """Remember these alone."""
        self._answers = deque((CriticisedStates(*states) for states in saved), self._answers.maxlen)  # type: ignore[arg-type]

    def solve(self, steering: LogitBias, nats: float, temperature: float, drawn: Iterable[CriticisedStates] = ()) -> CritiqueBias | None:
        """At `nats` per REFERENCE_TOKENS tokens; `drawn` are answers that have not ended. None where no state is known yet."""
        answers = [*self._answers, *drawn]
        if not answers:
            return None
        if nats <= 0:
            return CritiqueBias(0.0, 0.0)
        states, budget = CriticisedStates.pooled(answers), nats / REFERENCE_TOKENS
        base = (states.base / temperature).log_softmax(1)

        def asked(gamma: float) -> float:
            return float(_nats(states.base + asked_for(gamma, states.base, states.wish), base, temperature))

        alone = CritiqueBias(strength_within(asked, budget, most=MOST_GAMMA))
        policy = states.policy if states.policy is not None else states.base
        if policy is states.base and not steering.active:
            return alone

        def together(share: float) -> float:
            both = replace(alone, share=share).bias(steering, states.hidden, states.base, states.wish)
            return float(_nats(policy + both, base, temperature))

        return replace(alone, share=strength_within(together, budget, absorbed=0.5, most=1.0))  # from all of it downwards


def asked_for(gamma: float | Tensor, base: Tensor, wish: Tensor) -> Tensor:
    """γ times the wish, and for tokens that are not plausible what leaves all of them together as likely as they are in the base: (…, V)."""
    plausible = wish.isfinite()
    asked = gamma * wish.masked_fill(~plausible, 0.0)
    before, after = (each.masked_fill(~plausible, -torch.inf).logsumexp(-1, keepdim=True) for each in (base, base + asked))
    return torch.where(plausible, asked, after - before)


def _nats(logits: Tensor, base: Tensor, temperature: float) -> Tensor:
    """Mean KL per state of softmax(logits / temperature) against base log-probabilities, (n, V) both: ()."""
    acting = (logits / temperature).log_softmax(1)
    return torch.where(acting.exp() == 0, 0.0, acting.exp() * (acting - base)).sum(1).mean()
