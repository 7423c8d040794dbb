"""The likelihood of judgements given answers' scores, and the exact fit: penalised maximum likelihood by Newton's method, in the span of the judged
answers (representer theorem).

Bradley and Terry 1952 for comparisons, squares for centred ratings. Pure functions of scores and a Gram matrix: no model, no tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def blocks_of(answers: Iterable[Iterable[str]], window: int) -> list[int]:
    """Where to cut a sequence of judgements, each given by its answers' names, so that no block but one of a single judgement is about more than
    `window` answers: the starts of the blocks, 0 first.
    """
    starts, names = [0], set[str]()
    for i, some in enumerate(answers):
        names |= {*some}
        if len(names) > window and i > starts[-1]:
            starts.append(i)
            names = {*some}
    return starts


@dataclass(frozen=True)
class Contrasts:
    """Coordinates of which every judgement has its own: a rating its answer's score, a ranking of K answers K - 1 scores less that of its first one.

    The likelihood depends on scores through them alone, its Hessian is block-diagonal in them, and the solution's coefficients lie in their span.
    Coordinates of judgements with as many of them stand together, see `shapes`.
    """

    answer: Tensor  # (r,) index of the answer of each
    beside: Tensor  # (r,) index of the answer that its score is taken from, or -1
    shapes: tuple[tuple[int, int], ...]  # (m, k): m judgements of k coordinates each, in this order; m · k sum to r
    first: Tensor  # (p,) coordinate of each pair's first answer, r where that is the judgement's first one
    second: Tensor  # (p,)
    target: Tensor  # (p,)
    pair_weight: Tensor  # (p,)
    rated: Tensor  # (l,) coordinates of ratings
    level: Tensor  # (l,)
    level_weight: Tensor  # (l,)

    @staticmethod
    def of(evidence: Sequence[Evidence], index: Mapping[str, int], rating_weight: float) -> Contrasts:
        """`index` gives each answer's place among the scores."""
        answers = {i: sorted(mentioned(item)) for i, item in enumerate(evidence)}
        size = {i: 1 if isinstance(evidence[i], Level) else len(uids) - 1 for i, uids in answers.items()}
        order = sorted((i for i in size if size[i]), key=lambda i: (size[i], i))
        shapes = tuple((sum(size[i] == k for i in order), k) for k in sorted({size[i] for i in order}))
        total = sum(size.values())
        answer, beside, pairs, levels, n = [], [], [], [], 0
        for i in order:
            item, uids = evidence[i], answers[i]
            if isinstance(item, Level):
                answer.append(index[item.uid])
                beside.append(-1)
                levels.append((n, item.score, rating_weight * item.weight))
            else:
                place = {uids[0]: total} | {uid: n + j for j, uid in enumerate(uids[1:])}
                answer += [index[uid] for uid in uids[1:]]
                beside += [index[uids[0]]] * size[i]
                pairs += [(place[a], place[b], t, item.weight) for a, b, t in zip(item.first, item.second, item.target, strict=True)]
            n += size[i]
        return Contrasts(_ids(answer), _ids(beside), shapes, *_columns(pairs, 2, 2), *_columns(levels, 1, 2))

    def of_scores(self, scores: Tensor) -> Tensor:
        """(n,) scores -> (r,), Bᵀ f."""
        return scores[self.answer] - torch.where(self.beside >= 0, scores[self.beside], 0.0)

    def of_gram(self, gram: Tensor) -> Tensor:
        """(n, n) -> (r, r), Bᵀ K B."""
        rows = gram[self.answer] - torch.where(self.beside[:, None] >= 0, gram[self.beside], 0.0)
        return rows[:, self.answer] - torch.where(self.beside >= 0, rows[:, self.beside], 0.0)

    def of_answers(self, coefficients: Tensor, n: int) -> Tensor:
        """(r,) -> (n,), B c: what the coordinates' coefficients are of the answers'."""
        known = self.beside >= 0
        found = torch.zeros(n, dtype=torch.float64).index_add_(0, self.answer, coefficients)
        return found.index_add_(0, self.beside[known], -coefficients[known])

    def loss(self, u: Tensor) -> float:
        """Negative log-likelihood in nats of coordinates u (r,); the squared errors halved."""
        margins = self._margins(u)
        compared = (self.pair_weight * (softplus(margins) - self.target * margins)).sum()
        return float(compared + 0.5 * (self.level_weight * (u[self.rated] - self.level).square()).sum())

    def gradient(self, u: Tensor) -> Tensor:
        """(r,)."""
        slope = self.pair_weight * (torch.sigmoid(self._margins(u)) - self.target)
        found = torch.zeros(len(u) + 1, dtype=torch.float64)
        found.index_add_(0, self.first, slope).index_add_(0, self.second, -slope)
        return found.index_add_(0, self.rated, self.level_weight * (u[self.rated] - self.level))[:-1]

    def hessian_roots(self, u: Tensor) -> list[Tensor]:
        """M with M Mᵀ the Hessian at u: its blocks (m, k, k), shape by shape."""
        probability = torch.sigmoid(self._margins(u))
        curvature = self.pair_weight * probability * (1 - probability)
        found, first = [], 0
        for m, k in self.shapes:
            block = torch.zeros(m * k * k, dtype=torch.float64)
            for i, j, sign in (
                (self.first, self.first, 1.0),
                (self.second, self.second, 1.0),
                (self.first, self.second, -1.0),
                (self.second, self.first, -1.0),
            ):
                inside = (i >= first) & (i < first + m * k) & (j >= first) & (j < first + m * k)
                block.index_add_(0, (i[inside] - first) * k + (j[inside] - first) % k, sign * curvature[inside])
            inside = (self.rated >= first) & (self.rated < first + m * k)
            block.index_add_(0, (self.rated[inside] - first) * k, self.level_weight[inside])  # only where k is 1
            values, vectors = torch.linalg.eigh(block.view(m, k, k))
            found.append(vectors * values.clamp_min(0).sqrt()[:, None])
            first += m * k
        return found

    def _margins(self, u: Tensor) -> Tensor:
        """(p,) score differences of the pairs."""
        padded = torch.cat([u, u.new_zeros(1)])
        return padded[self.first] - padded[self.second]


def _ids(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _columns(rows: Sequence[tuple[float, ...]], ids: int, numbers: int) -> list[Tensor]:
    """Columns of a table: the first `ids` int64, the others float64."""
    table = torch.tensor(rows, dtype=torch.float64).view(-1, ids + numbers)
    return [*table[:, :ids].long().T, *table[:, ids:].T]


NEARLY = 1e-9
"""Nats that a Newton step promises, below which it is taken whole: the objective is as good as quadratic, and its own fall lost in rounding."""


def solve(
    evidence: Sequence[Evidence],
    index: Mapping[str, int],
    gram: Tensor,
    offset: Tensor,
    ridge: float,
    rating_weight: float = 1.0,
    iterations: int = 25,
    tolerance: float = 1e-14,
) -> Tensor:
    """Coefficients α (n,) of the answers' functionals that minimise the negative log-likelihood at scores f = offset + K α plus ½ ridge αᵀ K α.

    gram: (n, n), K, float64. offset: (n,), the scores under the prior mean. index: each answer's row.
    Newton's method. With α = B c, G = Bᵀ K B and the Hessian M Mᵀ in the coordinates of `Contrasts`, a step solves (M Mᵀ G + λ I) c = b, that is
    (λ I + Mᵀ G M) y = Mᵀ G b and c = (b - M y) / λ: symmetric and positive definite. A step is halved until the objective falls; the last is the one
    that promises less than `tolerance` nats (half the Newton decrement squared).
    """
    contrasts = Contrasts.of(evidence, index, rating_weight)
    if not len(contrasts.answer):
        return torch.zeros_like(offset)
    inner, start = contrasts.of_gram(gram), contrasts.of_scores(offset)
    c, pull, value = torch.zeros_like(start), torch.zeros_like(start), contrasts.loss(start)
    for _ in range(iterations):
        gradient = contrasts.gradient(start + pull)
        step = _newton(contrasts.hessian_roots(start + pull), inner, pull, gradient, ridge) - c
        moved = inner @ step
        decrement = -0.5 * float((gradient + ridge * c) @ moved)
        if not decrement > tolerance or not len(contrasts.first):  # without comparisons the objective is quadratic
            return contrasts.of_answers(c + step, len(offset))
        for halving in range(30):
            scale = 0.5**halving
            better = contrasts.loss(start + pull + scale * moved) + 0.5 * ridge * float((c + scale * step) @ (pull + scale * moved))
            if better < value or decrement < NEARLY:
                break
        c, pull, value = c + scale * step, pull + scale * moved, better
    return contrasts.of_answers(c, len(offset))


def _newton(roots: Sequence[Tensor], inner: Tensor, pull: Tensor, gradient: Tensor, ridge: float) -> Tensor:
    """The coefficients c that a full step leads to from G c = pull: see `solve`."""
    b = _times(roots, _transposed(roots, pull[:, None])) - gradient[:, None]
    half = _transposed(roots, inner)  # Mᵀ G
    matrix = _transposed(roots, half.T.contiguous())  # Mᵀ G M
    matrix.diagonal().add_(ridge)
    y = torch.cholesky_solve(half @ b, torch.linalg.cholesky(matrix))
    return (b - _times(roots, y))[:, 0] / ridge


def _times(roots: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """M (r, r) times (r, q)."""
    parts = matrix.split([root.shape[0] * root.shape[1] for root in roots])
    return torch.cat([(root @ part.view(*root.shape[:2], -1)).flatten(0, 1) for root, part in zip(roots, parts, strict=True)])


def _transposed(roots: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """Mᵀ (r, r) times (r, q)."""
    return _times([root.transpose(1, 2) for root in roots], matrix)
