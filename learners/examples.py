"""What the stages learn from and what they report: small frozen structs without torch."""

from __future__ import annotations

from msgspec import Struct


class Target(Struct, frozen=True):
    """An answer to imitate (SFT): the loss is taken on `token_ids` only."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    weights: tuple[float, ...] = ()  # of each token in the mean loss; empty for 1 everywhere


class Comparison(Struct, frozen=True):
    """K answers to one prompt in an order: one batch element, all C(K,2) pairs of compared answers together."""

    prompt_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]  # token ids
    ranks: tuple[int | None, ...]  # 1 is best, equal is a tie, None is unmentioned: beaten by all mentioned, else not compared
    seq: int = 0


class Scored(Struct, frozen=True):
    """One answer with a centred score, about -1 to 1 (a rating of 4 is 0)."""

    prompt_ids: tuple[int, ...]
    answer: tuple[int, ...]
    score: float
    seq: int = 0


class Stats(Struct, frozen=True):
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
