"""A policy as an immutable value: its adapter, what of Ĥ it has absorbed, and all that training goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias
from storage.records import BASE_VERSION


@dataclass(frozen=True)
class PolicySnapshot:
    """An adapter, and what of Ĥ it has absorbed. `lora` None is the base."""

    version: str = BASE_VERSION
    lora: Mapping[str, Tensor] | None = None
    absorbed: RewardHead | None = None
    absorbed_beta: float = 0.0

    def steering(self, head: RewardHead, beta: float = 0.0) -> LogitBias:
        """How this policy is steered by a head."""
        return LogitBias(head, beta, self.absorbed, self.absorbed_beta)


@dataclass(frozen=True)
class VersionState:
    """A version as it was when it was published."""

    policy: PolicySnapshot
    head: RewardHead | None  # None for the base: nothing was known
    reward_state: Mapping[str, Tensor] | None = None
    value_state: Mapping[str, Tensor] | None = None
    reference: Mapping[str, Tensor] | None = None  # the SFT adapter that it was trained against
    seqs: tuple[int, ...] = ()
