"""The likelihood of judgements given answers' scores, and the exact fit: penalised maximum likelihood by Newton's method, in the span of the judged
answers (representer theorem).

Bradley and Terry 1952 for comparisons, squares for centred ratings. Pure functions of scores and a Gram matrix: no model, no tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Pairs:
    """Comparisons of one judgement: P(first beats second) = target. All pairs of a ranking are one element."""

    first: tuple[str, ...]  # answer uids
    second: tuple[str, ...]
    target: tuple[float, ...]  # 1, or 0.5 for a tie
    worth: float | None = None  # comparisons that all are worth together; None: K - 1
    sure: bool = False  # no slip, as what somebody wrote is none
    meant: float = 1.0  # probability that this was meant and not the opposite

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
        """Of each pair: K answers are worth K - 1 comparisons, however many pairs they make, where nothing else is said."""
        worth = len({*self.first, *self.second}) - 1 if self.worth is None else self.worth
        return worth / max(1, len(self.first))


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


LEAST_CURVATURE = 1e-7
"""Nats by the square of a score, in the steps of the fit: far less than the prior has, and enough for no step to drown in rounding."""


SCALES = torch.linspace(0.0, 4.0, 41, dtype=torch.float64)
"""Of margins, by their mean size: among these the best one is looked for."""
NOTHING = 1e-6
"""Of the size of the margins of what was learned from."""


@dataclass(frozen=True)
class Foreseen:
    """Comparisons under scores that do not know them, at the multiple of these from 0 on that predicts best: how sure of itself a fit of few
    judgements is says nothing."""

    loss: float  # log-loss in nats of all of them
    meant: Tensor  # (m,) probability that each judgement says what was meant; 1 where nothing is compared


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
    judgement: Tensor  # (p,) the element of the evidence that each pair is of
    doubtful: Tensor  # (m,) of each element of the evidence: 0 where it is no slip
    rated: Tensor  # (l,) coordinates of ratings
    level: Tensor  # (l,)
    level_weight: Tensor  # (l,)

    @staticmethod
    def of(evidence: Sequence[Evidence], index: Mapping[str, int], rating_weight: float = 1.0) -> Contrasts:
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
                weight = item.weight
                targets = (item.meant * t + (1 - item.meant) * (1 - t) for t in item.target)
                pairs += [(place[a], place[b], i, t, weight) for a, b, t in zip(item.first, item.second, targets, strict=True)]
            n += size[i]
        first, second, judgement, target, pair_weight = _columns(pairs, 3, 2)
        doubtful = torch.tensor([float(isinstance(item, Pairs) and not item.sure) for item in evidence], dtype=torch.float64)
        return Contrasts(_ids(answer), _ids(beside), shapes, first, second, target, pair_weight, judgement, doubtful, *_columns(levels, 1, 2))

    def of_scores(self, scores: Tensor) -> Tensor:
        """(n,) scores -> (r,), Bᵀ f."""
        return scores[self.answer] - torch.where(self.beside >= 0, scores[self.beside], 0.0)

    def of_gram(self, gram: Tensor) -> Tensor:
        """(n, n) -> (r, r), Bᵀ K B."""
        known = (self.beside >= 0).double()
        beside = self.beside.clamp_min(0)
        rows = gram.index_select(0, self.answer).addcmul_(gram.index_select(0, beside), known[:, None], value=-1)
        return rows.index_select(1, self.answer).addcmul_(rows.index_select(1, beside), known, value=-1)

    def of_answers(self, coefficients: Tensor, n: int) -> Tensor:
        """(r,) -> (n,), B c: what the coordinates' coefficients are of the answers'."""
        known = self.beside >= 0
        found = torch.zeros(n, dtype=torch.float64).index_add_(0, self.answer, coefficients)
        return found.index_add_(0, self.beside[known], -coefficients[known])

    def gradient(self, u: Tensor) -> Tensor:
        """(r,)."""
        slope = self.pair_weight * (torch.sigmoid(self.margins(u)) - self.target)
        found = torch.zeros(len(u) + 1, dtype=torch.float64)
        found.index_add_(0, self.first, slope).index_add_(0, self.second, -slope)
        return found.index_add_(0, self.rated, self.level_weight * (u[self.rated] - self.level))[:-1]

    def curvature(self, u: Tensor, direction: Tensor) -> float:
        """Of the negative log-likelihood at u along a direction (r,)."""
        probability = torch.sigmoid(self.margins(u))
        compared = (self.pair_weight * probability * (1 - probability) * self.margins(direction).square()).sum()
        return float(compared + (self.level_weight * direction[self.rated].square()).sum())

    def inverse_hessian(self, u: Tensor) -> list[Tensor]:
        """At u, shape by shape: (m, k, k) each. Where there is next to no curvature, it counts as LEAST_CURVATURE."""
        probability = torch.sigmoid(self.margins(u))
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
            found.append((vectors / values.clamp_min(LEAST_CURVATURE)[:, None]) @ vectors.mT)
            first += m * k
        return found

    def foreseen(self, u: Tensor, nothing: float, lapse: float) -> Foreseen:
        """The comparisons by scores u (r,) that do not know them, where each doubtful one says the opposite of what was meant with probability
        `lapse`. Margins far below `nothing` in the mean count as 0."""
        margins = self.margins(u)
        scaled = SCALES[:, None] * margins / margins.abs().mean().clamp_min(max(nothing, 1e-30))
        each = scaled.new_zeros(len(SCALES), len(self.doubtful))
        said, opposite = (
            each.index_add(1, self.judgement, self.pair_weight * (target * scaled - softplus(scaled))) for target in (self.target, 1 - self.target)
        )
        rate = lapse * self.doubtful
        likelihood = torch.logaddexp((1 - rate).log() + said, rate.log() + opposite).sum(1)
        best = int(likelihood.argmax())
        return Foreseen(-float(likelihood[best]), torch.sigmoid(torch.logit(1 - rate) + said[best] - opposite[best]))

    def meant(self, probability: Tensor) -> Contrasts:
        """Each judgement (m,) the other way around with the rest of this probability."""
        of_pairs = probability[self.judgement]
        return replace(self, target=of_pairs * self.target + (1 - of_pairs) * (1 - self.target))

    def margins(self, u: Tensor) -> Tensor:
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
CLOSE = 1e-2
"""Nats that a step promised, below which the next one takes its Hessian, as long as each promises a tenth of the one before: a new one costs as much
as ten steps."""
LEAST_SLOPE = 0.02
"""Of the slope that a line search starts with: at less it ends."""


@dataclass(frozen=True)
class Solution:
    """What `solve` finds."""

    contrasts: Contrasts
    inner: Tensor  # (r, r), the Gram matrix in the coordinates of `contrasts`
    ridge: float
    c: Tensor  # (r,) coefficients
    u: Tensor  # (r,) scores

    @cached_property
    def newton(self) -> _Newton:
        """Steps from here. What was meant by the comparisons changes nothing about them but where they lead."""
        return _Newton.of(self.contrasts.inverse_hessian(self.u), self.inner, self.ridge)

    def coefficients(self, n: int) -> Tensor:
        """α (n,) of the n answers' functionals."""
        return self.contrasts.of_answers(self.c, n)

    def left_out(self) -> Tensor:
        """(r,) scores of each judgement as a fit to all others gives them, in Laplace's approximation, for the price of one Newton step.

        With M = G + λ H⁻¹ and Q a judgement's block of M⁻¹ they are u + λ H⁻¹ c - Q⁻¹ c (Rasmussen and Williams 2006, 5.4.2).
        """
        within = torch.cholesky_inverse(self.newton.factor)
        found, first = self.u.clone(), 0
        for block in self.newton.inverse:
            m, k, _ = block.shape
            inside = slice(first, first + m * k)
            taken = self.ridge * block - torch.linalg.inv(_blocks(within[inside, inside], m, k).permute(2, 0, 1))
            found[inside] += (taken @ self.c[inside].view(m, k, 1)).flatten()
            first += m * k
        return found

    def foresees(self, said: Contrasts, lapse: float = 0.0) -> Foreseen:
        """All comparisons as they were said, each foreseen from the other judgements. Where the others say nothing, what rounding leaves says nothing
        either."""
        if not len(said.target):
            return Foreseen(0.0, torch.ones_like(said.doubtful))
        return said.foreseen(self.left_out(), NOTHING * float(self.contrasts.margins(self.u).abs().mean()), lapse)


def solve(
    contrasts: Contrasts,
    gram: Tensor,
    offset: Tensor,
    ridge: float,
    iterations: int = 50,
    tolerance: float = 1e-22,
    begin: Tensor | None = None,
    newton: _Newton | None = None,
) -> Solution:
    """The coefficients α (n,) of the answers' functionals that minimise the negative log-likelihood at scores f = offset + K α plus
    ½ ridge αᵀ K α.

    gram: (n, n), K, float64. offset: (n,), the scores under the prior mean.
    begin: coefficients near the solution, as in Solution.c; newton: the steps from there, where they are known. Newton's method with a line search;
    the last step is the one that promises less than `tolerance` nats (half the Newton decrement squared).
    """
    inner, start = contrasts.of_gram(gram), contrasts.of_scores(offset)
    c = torch.zeros_like(start) if begin is None else begin
    u = start + inner @ c
    promised, before = math.inf, math.inf
    for i in range(iterations if len(start) else 0):
        if newton is None or (i and promised > min(CLOSE, before / 10)):
            newton = _Newton.of(contrasts.inverse_hessian(u), inner, ridge)
        gradient = contrasts.gradient(u)
        step = newton(u - start, gradient) - c
        moved = inner @ step
        promised, before = -0.5 * float((gradient + ridge * c) @ moved), promised
        if not promised > tolerance or not len(contrasts.first):  # without comparisons the objective is quadratic
            c, u = c + step, u + moved
            break
        scale = 1.0 if promised < NEARLY else _line_search(contrasts, u, moved, promised, ridge * float(c @ moved), ridge * float(step @ moved))
        c, u = c + scale * step, u + scale * moved
    return Solution(contrasts, inner, ridge, c, u)


def _line_search(contrasts: Contrasts, u: Tensor, moved: Tensor, promised: float, pull: float, stiffness: float) -> float:
    """How far along `moved` (r,) the objective falls: its slope at u is twice what the step `promised`, its penalty has slope `pull` and curvature
    `stiffness`. Newton's method in one dimension, kept between the nearest points known to be too short and too far.
    """
    short, far, scale = 0.0, math.inf, 1.0
    for _ in range(30):
        there = u + scale * moved
        slope = float(contrasts.gradient(there) @ moved) + pull + scale * stiffness
        if abs(slope) <= 2 * LEAST_SLOPE * promised:
            break
        short, far = (scale, far) if slope < 0 else (short, scale)
        wanted = scale - slope / (contrasts.curvature(there, moved) + stiffness)
        scale = wanted if short < wanted < far and wanted <= 4 * scale else min(4 * scale, (short + far) / 2)
    return scale


@dataclass(frozen=True)
class _Newton:
    """Full steps for one Hessian H.

    With α = B c and G = Bᵀ K B in the coordinates of `Contrasts`, a step from G c = pull solves H (G c - pull) + gradient + λ c = 0, that is
    (G + λ H⁻¹) c = pull - H⁻¹ gradient: symmetric and positive definite, and H is block-diagonal. Where it leads nowhere, λ c = -gradient holds
    whatever H is.
    """

    inverse: Sequence[Tensor]  # H⁻¹, see Contrasts.inverse_hessian
    factor: Tensor  # (r, r) Cholesky's, of G + λ H⁻¹

    @staticmethod
    def of(inverse: Sequence[Tensor], inner: Tensor, ridge: float) -> _Newton:
        """inner: G."""
        matrix, first = inner.clone(), 0
        for block in inverse:
            m, k, _ = block.shape
            _blocks(matrix[first : first + m * k, first : first + m * k], m, k).add_(block.permute(1, 2, 0), alpha=ridge)
            first += m * k
        return _Newton(inverse, torch.linalg.cholesky(matrix))

    def __call__(self, pull: Tensor, gradient: Tensor) -> Tensor:
        """The coefficients c that it leads to."""
        parts = gradient.split([block.shape[0] * block.shape[1] for block in self.inverse])
        wanted = pull - torch.cat([(block @ part.view(*block.shape[:2], 1)).flatten() for block, part in zip(self.inverse, parts, strict=True)])
        return torch.cholesky_solve(wanted[:, None], self.factor)[:, 0]


def _blocks(matrix: Tensor, m: int, k: int) -> Tensor:
    """The m blocks on the diagonal of a matrix (m k, m k), as a view (k, k, m)."""
    return matrix.unflatten(0, (m, k)).unflatten(2, (m, k)).diagonal(dim1=0, dim2=2)
