"""What one step of a stage reports."""

from __future__ import annotations

from msgspec import Struct


class StepStats(Struct, frozen=True):
    """What one step of a stage reports; None where it has no meaning for the stage."""

    loss: float
    grad_norm: float
    tokens: int  # answer tokens the step looked at
    accuracy: float | None = None  # share of compared pairs in the right order, ties left out
    reward: float | None = None  # mean score of the answers, before the KL term
    kl: float | None = None  # nats per answer, summed over tokens, against the reference
    kl_coefficient: float | None = None
    approx_kl: float | None = None  # between the policy before and after the step (k3)
    ratio: float | None = None  # mean probability ratio in the first minibatch, before any optimizer step
    clip_fraction: float | None = None
    entropy: float | None = None
    value_loss: float | None = None
    explained_variance: float | None = None
    length: float | None = None  # mean answer tokens
    no_eos: float | None = None  # share of answers that ended at the length limit
    learning_rate: float | None = None
