"""The logit bias (action biasing): the next logits plus β·Ĥ, with β solved so that the acting policy stays within a KL budget (kl_budget.py).

Knox and Stone 2010 name the technique (their number 6): human reward changes which action is selected, not the reward that another learner sees.
What differs: β is not annealed. It is the solution of KL(acting || base) = budget, on the exact KL on states that the last acting
answers really visited; so what they spent corrects the next β by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from learners.human_reward.features import Seen
from learners.human_reward.head import RewardHead


@dataclass(frozen=True)
class LogitBias:
    """What is added to the next logits: β·Ĥ, less what the adapter has absorbed already. Immutable. Tensors are handed in and out on one device."""

    head: RewardHead
    beta: float = 0.0
    absorbed: RewardHead | None = None  # the Ĥ that the acting adapter was distilled from
    absorbed_beta: float = 0.0
    _elsewhere: dict[torch.device, LogitBias] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def active(self) -> bool:
        """Without β the adapter acts as it is; where all that was taught is undone, what it absorbed is taken back."""
        return not self._same and (self._takes_back if self.head.blank else self.beta != 0)

    @property
    def _same(self) -> bool:
        """Whether the adapter has absorbed exactly this."""
        return self.absorbed is not None and self.beta == self.absorbed_beta and self.head is self.absorbed

    def on(self, device: torch.device) -> LogitBias:
        """The same bias with its heads on a device."""
        head, absorbed = self.head.on(device), self.absorbed and self.absorbed.on(device)
        if head is self.head and absorbed is self.absorbed:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = replace(self, head=head, absorbed=absorbed)
        return self._elsewhere[device]

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor | None:
        """What to add to the logits (…, V), for states (…, d) and logits (…, V) of the base. None for nothing."""
        if not self.active:
            return None
        here = self.on(hidden.device)
        rewards, offset = here.parts(hidden)
        surer, already_surer = self.sureness
        seen = Seen.of(hidden, base_logits)
        values = torch.zeros_like(base_logits, dtype=torch.float32).index_add_(-1, here.tokens, self.beta * rewards + offset)
        return values.scatter_add_(-1, seen.likely, (self.beta * surer + already_surer) * seen.sureness)

    def parts(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """w · x of `tokens` in base states (…, d) on the heads' device, and the bias that does not depend on β: (…, S) each.

        The two heads may see different features: one of them may have come with a version.
        """
        rewards = self.head.rewards(hidden)
        if not self._takes_back:
            return rewards, torch.zeros_like(rewards)
        assert self.absorbed is not None
        new, old = rewards.new_zeros(2, *hidden.shape[:-1], len(self.tokens))
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
