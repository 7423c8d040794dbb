"""The logit bias in tensors that stay where they are, for a step of decoding that is captured once: another Ĥ, β, γ or version is copied in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from learners.human_reward.critique_bias import CritiqueBias, asked_for
from learners.human_reward.features import Seen
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias

if TYPE_CHECKING:
    from learners.model.rows import FixedBias

LEAST_ROWS = 1024


class FixedHeads:
    """Room for two heads, what steers and what the adapter has absorbed, of up to S rows each; rows that are not used add nothing to token 0."""

    def __init__(self, steering: LogitBias, device: torch.device) -> None:
        self._heads = [_FixedHead(head, device) for head in _heads(steering)]
        self._surer, self._already_surer, self._share, self._absorbed_share, self._asked = torch.zeros(5, device=device)
        self._holds: tuple[LogitBias, CritiqueBias | None] | None = None

    @staticmethod
    def of(steering: LogitBias, critique: CritiqueBias | None, before: FixedBias | None, device: torch.device) -> FixedHeads:
        """What steers so; `before` where it has room for this."""
        if isinstance(before, FixedHeads) and before.take(steering, critique):
            return before
        made = FixedHeads(steering, device)
        made.take(steering, critique)
        return made

    def take(self, steering: LogitBias, critique: CritiqueBias | None = None) -> bool:
        """Steer with this from here on; with nothing where it is not active, and without critiques (None) alike in all rows. False where it does not
        fit: then other tensors are needed."""
        if self._holds is not None and self._holds[0] is steering and self._holds[1] == critique:
            return True
        share, gamma = (critique.share, critique.gamma) if critique is not None else (1.0, 0.0)
        beside = steering.active_at(share * steering.beta)  # critiques; else the adapter acts there as it is
        if not (steering.active or beside):
            for fixed in self._heads:
                fixed.weights.zero_()
            self._surer.zero_()
            self._already_surer.zero_()
        elif all(fixed.fits(head) for fixed, head in zip(self._heads, _heads(steering), strict=True)):
            strengths = (steering.beta, -steering.absorbed_beta if steering.absorbed is not None else 0.0)
            for fixed, head, strength in zip(self._heads, _heads(steering), strengths, strict=True):
                fixed.take(head, strength)
            surer, already = steering.sureness
            self._surer.fill_(steering.beta * surer)
            self._already_surer.fill_(already)
        else:
            return False
        self._share.fill_(share * beside)
        self._absorbed_share.fill_(beside)
        self._asked.fill_(share * gamma)
        self._holds = steering, critique
        return True

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor:
        """As LogitBias.bias, up to rounding, without a wait for the device."""
        return self._bias(hidden, base_logits)

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor:
        """As BiasWithCritiques.criticised."""
        shared = self._bias(hidden, base_logits, *(torch.where(rows, share, 1.0) for share in (self._share, self._absorbed_share)))
        return shared + torch.where(rows, asked_for(self._asked, base_logits, wish), 0.0)

    def _bias(self, hidden: Tensor, base_logits: Tensor, share: Tensor | float = 1.0, absorbed_share: Tensor | float = 1.0) -> Tensor:
        """Shares of β and of what is taken back for what the adapter absorbed: (K, 1), or one for all."""
        seen = Seen.of(hidden, base_logits)
        values = torch.zeros_like(base_logits, dtype=torch.float32)
        steers, absorbed = self._heads
        values.index_add_(-1, steers.tokens, share * steers.rewards(hidden))
        values.index_add_(-1, absorbed.tokens, absorbed_share * absorbed.rewards(hidden))
        return values.scatter_add_(-1, seen.likely, (share * self._surer + absorbed_share * self._already_surer) * seen.sureness)


class _FixedHead:
    def __init__(self, head: RewardHead, device: torch.device) -> None:
        rows = max(LEAST_ROWS, 1 << (2 * max(1, len(head.tokens)) - 1).bit_length())
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self.weights = torch.zeros(rows, head.features.width, device=device)  # times the strength
        self._mean, self._basis = (torch.zeros_like(each, device=device) for each in (head.features.mean, head.features.basis))
        self._constant = torch.zeros(1, device=device)

    def fits(self, head: RewardHead) -> bool:
        return len(head.tokens) <= len(self.tokens) and head.features.basis.shape == self._basis.shape

    def take(self, head: RewardHead, strength: float) -> None:
        n = len(head.tokens)
        self.weights.zero_()
        self.weights[:n].copy_(head.weights).mul_(strength)
        self.tokens.zero_()
        self.tokens[:n].copy_(head.tokens)
        self._mean.copy_(head.features.mean)
        self._basis.copy_(head.features.basis)
        self._constant.fill_(head.features.constant)

    def rewards(self, hidden: Tensor) -> Tensor:
        """(K, d) -> (K, S) times the strength; see Features."""
        projected = (hidden.float() - self._mean) @ self._basis
        return torch.cat([projected, self._constant.expand(len(projected), 1)], -1) @ self.weights.T


def _heads(steering: LogitBias) -> tuple[RewardHead, RewardHead]:
    """Always two, so that one form holds both; without an absorbed one, an empty one of the same features."""
    return steering.head, steering.absorbed if steering.absorbed is not None else RewardHead.empty(steering.head.features)
