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
    critiques: frozenset[int] = frozenset()  # judgements in words that it was distilled from, among others

    def steering(self, head: RewardHead, beta: float = 0.0) -> LogitBias:
        """How this policy is steered by a head."""
        return LogitBias(head, beta, self.absorbed, self.absorbed_beta)


@dataclass(frozen=True)
class Distilled:
    """What a distillation absorbed: the Ĥ of these judgements, within this budget."""

    seqs: frozenset[int]
    nats: float  # per 64 tokens


@dataclass(frozen=True)
class VersionState:
    """A version as it was when it was published. Judgements are named by seq; those of an old version are a superset of what was learned."""

    policy: PolicySnapshot
    head: RewardHead | None  # None for the base: nothing was known
    reward_state: Mapping[str, Tensor] | None = None  # None before it has learned anything
    value_state: Mapping[str, Tensor] | None = None  # PPO's value head, KL coefficient and target; None unless PPO trained last
    reference: Mapping[str, Tensor] | None = None  # the SFT adapter that it was trained against
    seqs: tuple[int, ...] = ()  # that influenced the policy's weights
    reference_seqs: tuple[int, ...] = ()  # that the reference imitates
    reward_seqs: tuple[int, ...] = ()  # that influenced the reward model
    reward_steps: int | None = None  # its optimizer steps; None where that was not recorded
    distilled: Distilled | None = None


BASE = VersionState(PolicySnapshot(), None)
"""The base without an adapter."""
