"""What judgements say of answers' scores, and the exact fit: penalised maximum likelihood by Newton's method, in the span of the judged answers.

Bradley and Terry 1952 for comparisons, squares for centred ratings. Pure functions of scores and a Gram matrix: no model, no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Pairs:
    """Comparisons of one judgement: P(first beats second) = target. All pairs of a ranking are one element."""

    first: tuple[str, ...]  # answer uids
    second: tuple[str, ...]
    target: tuple[float, ...]  # 1, or 0.5 for a tie

    @staticmethod
    def of_ranks(ranks: Mapping[str, int], unranked: Sequence[str] = ()) -> Pairs:
        """All C(K,2) pairs, best first; ranked beat unranked, which are not compared with each other."""
        ordered = sorted(ranks, key=lambda uid: (ranks[uid], uid))
        pairs = [(a, b, 1.0 if ranks[a] < ranks[b] else 0.5) for i, a in enumerate(ordered) for b in ordered[i + 1 :]]
        pairs += [(a, b, 1.0) for a in ordered for b in unranked]
        first, second, target = zip(*pairs, strict=True) if pairs else ((), (), ())
        return Pairs(first, second, target)

    @property
    def weight(self) -> float:
        """Of each pair: K answers are worth K - 1 comparisons, however many pairs they make."""
        return (len({*self.first, *self.second}) - 1) / max(1, len(self.first))


@dataclass(frozen=True)
class Level:
    """A centred score of one answer, or of one of its words: the rating scale's middle is 0, its ends are -1 and 1; a tap is 1 or -1."""

    uid: str
    score: float
    weight: float = 1.0  # of its squared error: the share of a tap that is a word's credit


Evidence = Pairs | Level


def mentioned(item: Evidence) -> set[str]:
    """Uids of the answers that it speaks of."""
    return {item.uid} if isinstance(item, Level) else {*item.first, *item.second}


@dataclass(frozen=True)
class Problem:
    """The negative log-likelihood of all evidence as a function of the answers' scores (n,)."""

    first: Tensor  # (p,) indices of compared answers
    second: Tensor
    target: Tensor  # (p,)
    pair_weight: Tensor  # (p,)
    rated: Tensor  # (r,) indices of rated answers
    level: Tensor  # (r,)
    level_weight: Tensor  # (r,)

    @staticmethod
    def of(evidence: Sequence[Evidence], index: Mapping[str, int], rating_weight: float) -> Problem:
        pairs = [item for item in evidence if isinstance(item, Pairs)]
        levels = [item for item in evidence if isinstance(item, Level)]
        return Problem(
            torch.tensor([index[uid] for item in pairs for uid in item.first], dtype=torch.int64),
            torch.tensor([index[uid] for item in pairs for uid in item.second], dtype=torch.int64),
            torch.tensor([t for item in pairs for t in item.target], dtype=torch.float64),
            torch.tensor([item.weight for item in pairs for _ in item.first], dtype=torch.float64),
            torch.tensor([index[item.uid] for item in levels], dtype=torch.int64),
            torch.tensor([item.score for item in levels], dtype=torch.float64),
            rating_weight * torch.tensor([item.weight for item in levels], dtype=torch.float64),
        )

    def loss(self, scores: Tensor) -> float:
        """In nats; the squared errors halved."""
        margins = scores[self.first] - scores[self.second]
        compared = (self.pair_weight * (softplus(margins) - self.target * margins)).sum()
        return float(compared + 0.5 * (self.level_weight * (scores[self.rated] - self.level).square()).sum())

    def derivatives(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (n,) and Hessian (n, n)."""
        n = len(scores)
        gradient = torch.zeros(n, dtype=torch.float64)
        hessian = torch.zeros(n * n, dtype=torch.float64)
        probability = torch.sigmoid(scores[self.first] - scores[self.second])
        slope = self.pair_weight * (probability - self.target)
        gradient.index_add_(0, self.first, slope).index_add_(0, self.second, -slope)
        curvature = self.pair_weight * probability * (1 - probability)
        for i, j, sign in (
            (self.first, self.first, 1.0),
            (self.second, self.second, 1.0),
            (self.first, self.second, -1.0),
            (self.second, self.first, -1.0),
        ):
            hessian.index_add_(0, i * n + j, sign * curvature)
        gradient.index_add_(0, self.rated, self.level_weight * (scores[self.rated] - self.level))
        hessian.index_add_(0, self.rated * (n + 1), self.level_weight)
        return gradient, hessian.view(n, n)


def solve(problem: Problem, gram: Tensor, offset: Tensor, ridge: float, iterations: int = 25, tolerance: float = 1e-10) -> Tensor:
    """Coefficients α of the answers' functionals, scores f = offset + K α: each Newton step solves (H K + λ I) α = H (f - offset) - g, halved until
    the objective falls; it stops when that is by less than `tolerance` nats.
    """
    identity = torch.eye(len(offset), dtype=torch.float64)
    if not len(problem.first):
        return _least_squares(problem, gram, offset, ridge * identity)
    alpha = torch.zeros(len(offset), dtype=torch.float64)
    value = problem.loss(offset)
    for _ in range(iterations):
        scores = offset + gram @ alpha
        gradient, hessian = problem.derivatives(scores)
        target = torch.linalg.solve(hessian @ gram + ridge * identity, hessian @ (scores - offset) - gradient)
        step, before = target - alpha, value
        for halving in range(30):
            trial = alpha + step * 0.5**halving
            pull = gram @ trial
            better = problem.loss(offset + pull) + 0.5 * ridge * float(trial @ pull)
            if better < value:
                alpha, value = trial, better
                break
        if not before - value > tolerance:
            break
    return alpha


def _least_squares(problem: Problem, gram: Tensor, offset: Tensor, ridge: Tensor) -> Tensor:
    """Without comparisons H is diagonal and one step is all: α = √H β, where (√H K √H + λ I) β = -g / √H."""
    nothing = torch.zeros_like(offset)
    root = nothing.index_add(0, problem.rated, problem.level_weight).sqrt()
    slope = nothing.index_add(0, problem.rated, problem.level_weight * (offset[problem.rated] - problem.level))
    target = torch.where(root > 0, -slope / root, 0.0)
    factor = torch.linalg.cholesky(root[:, None] * gram * root + ridge)
    return root * torch.cholesky_solve(target[:, None], factor)[:, 0]
