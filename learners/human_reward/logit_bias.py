"""The logit bias (action biasing): the next logits plus β·Ĥ, with β solved so that the acting policy stays within a KL budget (kl_budget.py).

Knox and Stone 2010 name the technique (their number 6): human reward changes which action is selected, not the reward that another learner sees.
What differs: β is not annealed. It is the solution of KL(acting || base) = budget, on the exact KL on states that the last acting
answers really visited; so what they spent corrects the next β by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from learners.human_reward.features import Seen
from learners.human_reward.head import RewardHead

if TYPE_CHECKING:
    from learners.model.rows import FixedBias


class _Tokens(NamedTuple):
    """Tokens that are biased, and where among them those of each head are."""

    biased: Tensor  # (S,) sorted
    of_head: Tensor
    of_absorbed: Tensor


@dataclass(frozen=True)
class LogitBias:
    """What is added to the next logits: β·Ĥ, less what the adapter has absorbed already. Immutable.

    Heads are on the CPU, states and logits anywhere.
    """

    head: RewardHead
    beta: float = 0.0
    absorbed: RewardHead | None = None  # the Ĥ that the acting adapter was distilled from
    absorbed_beta: float = 0.0
    _placed: dict[torch.device, _Tokens] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def active(self) -> bool:
        """Without β the adapter acts as it is; where all that was taught is undone, what it absorbed is taken back."""
        return self.active_at(self.beta)

    def active_at(self, beta: float) -> bool:
        """The same of another β."""
        same = self.absorbed is not None and beta == self.absorbed_beta and self.head is self.absorbed  # the adapter has absorbed exactly this
        return not same and (self._takes_back if self.head.blank else beta != 0)

    def bias(self, hidden: Tensor, base_logits: Tensor, share: float = 1.0) -> Tensor | None:
        """What to add to the logits (…, V), for states (…, d) and logits (…, V) of the base, with so much of β. None for nothing."""
        beta = share * self.beta
        if not self.active_at(beta):
            return None
        rewards, offset = self.parts(hidden)
        surer, already_surer = self.sureness
        seen = Seen.of(hidden, base_logits)
        values = torch.zeros_like(base_logits, dtype=torch.float32).index_add_(-1, self.tokens(hidden.device), beta * rewards + offset)
        return values.scatter_add_(-1, seen.likely, (beta * surer + already_surer) * seen.sureness)

    def fixed(self, before: FixedBias | None, device: torch.device) -> FixedBias:
        """The same bias in tensors that stay where they are; `before` where it has room for this."""
        from learners.human_reward.fixed_bias import FixedHeads

        return FixedHeads.of(self, None, before, device)

    def parts(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """w · x of `tokens` in base states (…, d), and the bias that does not depend on β: (…, S) each, where the states are.

        The two heads may see different features: one of them may have come with a version.
        """
        rewards = self.head.rewards(hidden)
        if not self._takes_back:
            return rewards, torch.zeros_like(rewards)
        assert self.absorbed is not None
        tokens, of_head, of_absorbed = self._tokens(hidden.device)
        new, old = rewards.new_zeros(2, *hidden.shape[:-1], len(tokens))
        new[..., of_head] = rewards
        old[..., of_absorbed] = -self.absorbed_beta * self.absorbed.rewards(hidden)
        return new, old

    @property
    def sureness(self) -> tuple[float, float]:
        """Of each unit of it: the reward, and the bias that does not depend on β."""
        return self.head.sureness, -self.absorbed_beta * self.absorbed.sureness if self.absorbed else 0.0

    def tokens(self, device: torch.device) -> Tensor:
        """(S,) that are biased, sorted; on a device."""
        return self._tokens(device).biased

    def _tokens(self, device: torch.device) -> _Tokens:
        if device not in self._placed:
            self._placed[device] = _Tokens(*(each.to(device) for each in self._tokens_of_heads))
        return self._placed[device]

    @cached_property
    def _tokens_of_heads(self) -> _Tokens:
        """On the CPU, where the heads are."""
        mine = self.head.tokens
        if not self._takes_back:
            return _Tokens(mine, torch.arange(len(mine)), mine.new_zeros(0))
        assert self.absorbed is not None
        both = torch.unique(torch.cat([mine, self.absorbed.tokens]), sorted=True)
        return _Tokens(both, torch.searchsorted(both, mine), torch.searchsorted(both, self.absorbed.tokens))

    @property
    def _takes_back(self) -> bool:
        return self.absorbed is not None and self.absorbed_beta != 0 and not self.absorbed.blank
