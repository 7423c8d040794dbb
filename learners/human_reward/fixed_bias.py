"""The logit bias in tensors that stay where they are, for a step of decoding that is captured once: another Ĥ, β or version is copied in."""

from __future__ import annotations

import torch
from torch import Tensor

from learners.human_reward.features import Seen
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias

LEAST_ROWS = 1024


class FixedHeads:
    """Room for two heads, what steers and what the adapter has absorbed, of up to S rows each; rows that are not used add nothing to token 0."""

    def __init__(self, steering: LogitBias, device: torch.device) -> None:
        self._heads = [_FixedHead(head, device) for head in _heads(steering)]
        self._sureness = torch.zeros((), device=device)
        self._holds: LogitBias | None = None

    def take(self, steering: LogitBias | None) -> bool:
        """Steer with this from here on; None, or what is not active, with nothing. False where it does not fit: then other tensors are needed."""
        if steering is self._holds:
            return True
        if steering is None or not steering.active:
            for fixed in self._heads:
                fixed.weights.zero_()
            self._sureness.zero_()
        elif all(fixed.fits(head) for fixed, head in zip(self._heads, _heads(steering), strict=True)):
            strengths = (steering.beta, -steering.absorbed_beta if steering.absorbed is not None else 0.0)
            for fixed, head, strength in zip(self._heads, _heads(steering), strengths, strict=True):
                fixed.take(head, strength)
            surer, already = steering.sureness
            self._sureness.fill_(steering.beta * surer + already)
        else:
            return False
        self._holds = steering
        return True

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor:
        """As LogitBias.bias, up to rounding, without a wait for the device."""
        seen = Seen.of(hidden, base_logits)
        values = torch.zeros_like(base_logits, dtype=torch.float32)
        for head in self._heads:
            values.index_add_(-1, head.tokens, head.rewards(hidden))
        return values.scatter_add_(-1, seen.likely, self._sureness * seen.sureness)


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
