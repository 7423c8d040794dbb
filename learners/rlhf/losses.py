"""What the stages minimise, as pure functions of scores, log-probabilities and values.

From Bradley and Terry 1952 and Ouyang et al. 2022 (InstructGPT: all C(K,2) pairs of a ranking are one batch element), Schulman et al. 2017
(PPO: clipped policy and value losses). What differs: rankings may have ties, which pull two scores together, and may be partial: answers left out
lose to those mentioned and are not compared with each other.

Notation as in `ops`: B answers, R answer tokens. `count` is the number of tokens of the whole minibatch when a loss is summed over several forwards;
without it a loss is the mean over its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from learners.rlhf.ops import masked_mean

# --- reward models ---------------------------------------------------------------------------------------------------


def compared_pairs(ranks: Sequence[int | None]) -> list[tuple[int, int, float]]:
    """Index pairs of a ranking with P(first beats second): 1, 0.5 for a tie, 0. Two unmentioned answers (None) make no pair."""
    pairs = []
    for i, j in combinations(range(len(ranks)), 2):
        a, b = ranks[i], ranks[j]
        if a is None and b is None:
            continue
        first, second = (float("inf") if rank is None else rank for rank in (a, b))
        pairs.append((i, j, 1.0 if first < second else 0.5 if first == second else 0.0))
    return pairs


class Pairs(NamedTuple):
    """All pairs of several rankings, whose answers' scores stand one after the other, on the device of the scores."""

    answers: Tensor  # (2, P) int64, places of the first and of the second
    target: Tensor  # (P,) P(first beats second)
    among: Tensor  # (P,) how many pairs the ranking has

    @staticmethod
    def of(rankings: Sequence[Sequence[int | None]], device: torch.device | str = "cpu") -> Pairs:
        """Ranks as in `compared_pairs`."""
        rows: list[tuple[float, ...]] = []
        start = 0
        for ranks in rankings:
            pairs = compared_pairs(ranks)
            rows += [(start + i, start + j, target, len(pairs)) for i, j, target in pairs]
            start += len(ranks)
        columns = torch.tensor(rows, dtype=torch.float32, device=device).view(-1, 4).T
        return Pairs(columns[:2].long(), *columns[2:])


def bradley_terry(scores: Tensor, pairs: Pairs) -> Tensor:
    """Negative log-likelihood of rankings, of each the mean over its pairs, summed over rankings: scores (N,) -> (). 0 without a pair."""
    first, second = scores.take(pairs.answers)
    return (binary_cross_entropy_with_logits(first - second, pairs.target, reduction="none") / pairs.among).sum()


def right_order(scores: Tensor | Sequence[float], ranks: Sequence[int | None]) -> tuple[int, int]:
    """How many of the untied pairs the scores order as the ranking does, and of how many. Equal scores are wrong."""
    pairs = [(i, j) if target == 1.0 else (j, i) for i, j, target in compared_pairs(ranks) if target != 0.5]
    return sum(bool(scores[winner] > scores[loser]) for winner, loser in pairs), len(pairs)


def squared_error(scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared errors of scores, all (N,), summed -> (): against centred ratings; or against 0, which pins the level that comparisons leave
    open. Source of the latter: Eisenstein et al. 2023 (the mean over a ranking's answers, with weight 0.01)."""
    return (weights * (scores - targets).square()).sum()


# --- policies --------------------------------------------------------------------------------------------------------


class PolicyLoss(NamedTuple):
    """The clipped surrogate and what became of the probability ratios."""

    loss: Tensor  # ()
    ratio: Tensor  # (B, R), 1 outside the mask
    clip_fraction: Tensor  # () share of tokens whose ratio left the clip range


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: float, count: float | None = None
) -> PolicyLoss:
    """PPO's pessimistic surrogate, per token: all (B, R). Log-ratios are cut off at 20 so that one token cannot overflow.

    Source: Schulman et al. 2017, equation 7.
    """
    ratio = ((logprobs - old_logprobs) * mask).clamp(-20.0, 20.0).exp()
    losses = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1.0 - clip, 1.0 + clip))
    outside = ((ratio - 1.0).abs() > clip).float()
    return PolicyLoss(masked_mean(losses, mask, count), ratio, masked_mean(outside, mask, count))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float, count: float | None = None) -> Tensor:
    """Half the squared error of values that may move at most `clip` from where they were, the worse of the two: all (B, R) -> ().

    Source: Schulman et al. 2017's reference code; `clip` presumes rewards of unit size.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns).square(), (near - returns).square()), mask, count)
