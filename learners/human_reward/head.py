"""The reward head: Ĥ as of one fit, one row of weights for each token that was said or likely in judged answers.

Heads are fitted, kept and restored on the CPU. What is asked about states that lie elsewhere is answered there: `RewardHead.on` is where a head
crosses to another device, beside the fixed tensors that it is copied into for captured steps (fixed_bias.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from learners.human_reward.features import Features, Seen


class Shared(NamedTuple):
    """What tokens that are alike have in common."""

    similarity: Tensor  # (S, e), the rows of L of the head's tokens
    weights: Tensor  # (e, f + 1) float32


@dataclass(frozen=True)
class RewardHead:
    """Ĥ as of one epoch: immutable, so that any thread may read it. Weights exist for judged tokens only.

    They are kept as the fit finds them, w = rows + L · shared: what is said of each token alone, and what tokens that are alike have in common.
    """

    epoch: int
    tokens: Tensor  # (S,) int64, sorted
    rows: Tensor  # (S, f + 1) float32
    features: Features
    sureness: float = 0.0  # u
    shared: Shared | None = None
    _elsewhere: dict[torch.device, RewardHead] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def empty(features: Features, epoch: int = 0) -> RewardHead:
        return RewardHead(epoch, torch.zeros(0, dtype=torch.int64), torch.zeros(0, features.width), features)

    @property
    def blank(self) -> bool:
        """Whether it knows nothing."""
        return len(self.tokens) == 0

    @cached_property
    def weights(self) -> Tensor:
        """(S, f + 1) float32, computed when they are first asked for: a log that is read asks for none but the last."""
        return self.rows if self.shared is None else torch.addmm(self.rows, self.shared.similarity, self.shared.weights)

    def settled(self) -> RewardHead:
        """The same weights as rows of their own: nothing is shared any more."""
        return self if self.shared is None else replace(self, rows=self.weights, shared=None)

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers."""
        parts = [self.rows] if self.shared is None else [self.rows, self.shared.weights]
        return all(bool(part.sum().isfinite()) for part in parts)

    def on(self, device: torch.device) -> RewardHead:
        """The same head on a device; copied there once."""
        if device == self.rows.device:
            return self
        if device not in self._elsewhere:
            moved = replace(self, tokens=self.tokens.to(device), rows=self.weights.to(device), features=self.features.to(device), shared=None)
            self._elsewhere[device] = moved
        return self._elsewhere[device]

    def rewards(self, hidden: Tensor) -> Tensor:
        """w · x(s) of the S known tokens in each state, on its device: (…, d) -> (…, S)."""
        head = self.on(hidden.device)
        return head.features(hidden) @ head.weights.T

    def token_rewards(self, seen: Seen, token_ids: Tensor) -> Tensor:
        """A(s_t, a_t) of taken tokens (…), in the states `seen` before each: their rewards beside what the base would have said there.

        All on one device.
        """
        if self.blank:
            return torch.zeros(token_ids.shape, device=seen.hidden.device)
        head = self.on(seen.hidden.device)
        slots, known = lookup(head.tokens, torch.cat([token_ids[..., None], seen.likely], -1))
        rewards = (head.weights[slots] @ head.features(seen.hidden)[..., None])[..., 0] * known
        beside = rewards[..., 0] - (seen.probabilities * rewards[..., 1:]).sum(-1)
        return beside + self.sureness * sureness_advantage(token_ids, seen)

    def state(self) -> dict[str, Tensor]:
        """For safetensors: rows, tokens and the features they belong to."""
        return {
            "tokens": self.tokens.cpu(),
            "weights": self.weights.cpu().contiguous(),
            "mean": self.features.mean.cpu(),
            "basis": self.features.basis.cpu().contiguous(),
            "constant": torch.tensor(self.features.constant, dtype=torch.float64),
            "sureness": torch.tensor(self.sureness, dtype=torch.float64),
            "epoch": torch.tensor(self.epoch),
        }

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> RewardHead:
        features = Features(state["mean"], state["basis"], float(state.get("constant", torch.tensor(1.0))))
        sureness = float(state.get("sureness", torch.tensor(0.0)))
        return RewardHead(int(state["epoch"]), state["tokens"], state["weights"], features, sureness)


def lookup(known: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of `tokens` stands in the sorted `known`, and whether it does."""
    if len(known) == 0:
        return torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    slots = torch.searchsorted(known, tokens.contiguous()).clamp_max(len(known) - 1)
    return slots, known[slots] == tokens


def sureness_advantage(token_ids: Tensor, seen: Seen) -> Tensor:
    """How much surer the base was of these tokens (…) than of what it would have said there."""
    sureness = seen.sureness
    return (((token_ids[..., None] == seen.likely).float() - seen.probabilities) * sureness).sum(-1)
