"""Sufficient statistics of the fit: scores as linear functionals of the head's weights, and their Gram matrix under the prior covariance I + L Lᵀ.

An answer's score is the mean of A(s, a) over its tokens, a word's reward the sum over the tokens that make it up (fit.py). Both are linear in the
weights: all that the fit needs of them is a Gram matrix, and the head a weighted sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from learners.human_reward.features import Features, Seen
from learners.human_reward.head import RewardHead, lookup, sureness_advantage

MERGED = 4
"""Terms of one token in an answer from which on they become a single one: it takes as much memory as a state and saves the others' time."""


TERMS_AT_A_TIME = 4096
"""Whose rows are looked up together: they stay in the processor's cache."""


@dataclass(frozen=True)
class LinearFunctional:
    """A linear functional of the head's weights w, by its factors: Σ_k c_k w[token_k] · x[step_k], and a multiple of the weight of sureness."""

    states: Tensor  # (T, f + 1) float32, x(s) of each step; then sums of them, of tokens that come often
    steps: Tensor  # (c,) int32, ascending
    tokens: Tensor  # (c,) int32
    coefficients: Tensor  # (c,) float32: of the token that was taken, less π_base of those that were likely; 1 of a sum
    sureness: float = 0.0

    @staticmethod
    def of_answer(token_ids: Tensor, seen: Seen, features: Features) -> LinearFunctional:
        """The mean of A over token_ids (T,), in the states `seen` before each token."""
        length = max(1, len(token_ids))
        sureness = float(sureness_advantage(token_ids, seen).double().sum()) / length
        return LinearFunctional(features(seen.hidden), *_coefficients(token_ids, seen, 1 / length), sureness).merged()

    @staticmethod
    def of_word(token_ids: Tensor, seen: Seen, features: Features) -> LinearFunctional:
        """The sum of A over the few token_ids (m,) of a word, without what sureness is worth: of what a person points at the base is never sure."""
        return LinearFunctional(features(seen.hidden), *_coefficients(token_ids, seen, 1.0))

    def of_rewards(self, token_ids: Tensor) -> LinearFunctional:
        """Of the same answer of token_ids (T,) the mean of r: one term a token, without what else the base would have said, and the same states."""
        length = len(token_ids)
        coefficients = torch.full((length,), 1 / max(1, length))
        return LinearFunctional(self.states[:length], torch.arange(length, dtype=torch.int32), token_ids.int(), coefficients)

    def value(self, head: RewardHead) -> float:
        """At the head's weights."""
        if head.blank:
            return 0.0
        slots, known = lookup(head.tokens, self.tokens.long())
        products = head.weights[slots].double().mul_(self.states[self.steps]).sum(1)
        return float((products * self.coefficients * known).sum()) + head.sureness * self.sureness

    def merged(self) -> LinearFunctional:
        """The same with one term for each token that has MERGED of them or more."""
        distinct, where, counts = torch.unique(self.tokens, return_inverse=True, return_counts=True)
        often = counts >= MERGED
        single, place = ~often[where], often.cumsum(0) - 1
        terms = self.states[self.steps[~single]].double() * self.coefficients[~single, None]
        sums = terms.new_zeros(int(often.sum()), terms.shape[1]).index_add_(0, place[where[~single]], terms)
        return LinearFunctional(
            torch.cat([self.states, sums.float()]),
            torch.cat([self.steps[single], len(self.states) + torch.arange(len(sums), dtype=torch.int32)]),
            torch.cat([self.tokens[single], distinct[often]]),
            torch.cat([self.coefficients[single], torch.ones(len(sums))]),
            self.sureness,
        )

    def rows(self) -> tuple[Tensor, Tensor]:
        """Its distinct tokens (u,), sorted, and as coefficients of their weights (u, f + 1) float64."""
        tokens, where = torch.unique(self.tokens, sorted=True, return_inverse=True)
        terms = self.states[self.steps].double() * self.coefficients[:, None]
        return tokens.long(), terms.new_zeros(len(tokens), terms.shape[1]).index_add_(0, where, terms)


def _coefficients(token_ids: Tensor, seen: Seen, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """A(s, a) of several steps as (steps, tokens, coefficients): 1 of the token that was taken, -π_base of those that were likely there."""
    taken = seen.likely == token_ids[:, None]
    probabilities = seen.probabilities.double()
    first = 1.0 - (probabilities * taken).sum(1, keepdim=True)
    coefficients = scale * torch.cat([first, -probabilities.masked_fill(taken, 0.0)], 1)
    tokens = torch.cat([token_ids[:, None], seen.likely], 1)
    counts = coefficients != 0
    counts[:, 0] = True
    steps = torch.arange(len(token_ids))[:, None].expand_as(tokens)
    return steps[counts].int(), tokens[counts].int(), coefficients[counts].float()


warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

Groups = Sequence[tuple[str, ...]]
"""Names of the functionals that each judgement brought, judgement by judgement."""


class WeightedSum(NamedTuple):
    """A sum of functionals: f = Σ α f_i."""

    tokens: Tensor  # (S,) int64, the distinct ones, sorted
    rows: Tensor  # (S, f + 1) float32
    shared: Tensor  # (e, f + 1) float32, Lᵀ f
    sureness: float


class GramBlock:
    """Gram matrix of the functionals that are solved together, grown a judgement at a time.

    All of its bits are a function of the groups that it holds, in their order: whatever else it held before. Lᵀ f, what a functional says of similar
    tokens, is e · (f + 1) numbers.
    """

    def __init__(self, width: int, similarity: Tensor) -> None:
        """width: f + 1. similarity: (V, e) float32, L; V may be 0."""
        self._similarity = similarity
        self._groups: list[tuple[str, ...]] = []
        self._sizes: list[_Size] = [_Size()]  # after each group
        self._states = _Stack(width)
        self._steps, self._tokens, self._owners = (_Stack(dtype=torch.int32) for _ in range(3))  # tokens: places among the distinct ones
        self._coefficients, self._sureness = _Stack(), _Stack(dtype=torch.float64)
        self._distinct = _Stack(dtype=torch.int32)  # in the order in which they came
        self._similar = _Stack(similarity.shape[1] * width)
        self._place = torch.full((len(similarity),), -1, dtype=torch.int32)  # of each token among the distinct ones
        self._products = torch.zeros(2, 0, 0, dtype=torch.float64)  # of all features, and of the constant alone
        self._scored_by: RewardHead | None = None
        self._scores = _Stack(dtype=torch.float64)  # under that head

    def hold(self, groups: Groups, functionals: Mapping[str, LinearFunctional]) -> None:
        """Make it hold exactly these groups; what it has of them, from the first on, is not computed again."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._groups, groups, strict=False)))
        self._cut(same)
        for group in groups[same:]:
            self._append([functionals[name] for name in group])
            self._groups.append(group)
            self._sizes.append(
                _Size(len(self._sureness), len(self._states), len(self._coefficients), len(self._distinct)),
            )

    @property
    def products(self) -> Tensor:
        """(n, n) inner products of all functionals, float64."""
        n = len(self._sureness)
        return self._products[0, :n, :n]

    @property
    def constant_products(self) -> Tensor:
        """(n, n), the part of `products` that the constant has in them."""
        n = len(self._sureness)
        return self._products[1, :n, :n]

    def scores(self, head: RewardHead) -> Tensor:
        """(n,) of all functionals at a head's weights, float64; of one head what is known is not computed again."""
        if head is not self._scored_by:
            self._scored_by = head
            self._scores.cut(0)
        first = len(self._scores)
        if first < len(self._sureness):
            self._scores.push(self._new_scores(head, first))
        return self._scores.all

    def _new_scores(self, head: RewardHead, first: int) -> Tensor:
        """Of the functionals from the first one on."""
        found = head.sureness * self._sureness.all[first:]
        if head.blank:
            return found
        slots, known = lookup(head.tokens, self._distinct.all.long())
        rows = head.weights[slots] * known[:, None]
        start = int(torch.searchsorted(self._owners.all, first))
        stacks = (stack.all[start:].split(TERMS_AT_A_TIME) for stack in (self._tokens, self._steps, self._coefficients, self._owners))
        for tokens, steps, coefficients, owners in zip(*stacks, strict=True):
            products = (rows.index_select(0, tokens) * self._states.all.index_select(0, steps)).sum(1)
            found.index_add_(0, owners - first, (products * coefficients).double())
        return found

    def weighted_sum(self, alpha: Tensor, of_constant: Tensor, used: Tensor, known: Tensor) -> WeightedSum:
        """Σ α f for alpha (n,) over the functionals `used` (n,) bool, their constants times those of `of_constant` (n,); of others both are 0. Rows
        are those of their tokens and of those `known` before (…), sorted."""
        owners = self._owners.all
        kept = slice(None) if bool(used.all()) else used[owners]
        distinct, order = torch.sort(self._distinct.all)
        rank = torch.empty_like(distinct).scatter_(0, order, torch.arange(len(order), dtype=torch.int32))
        ranks, order = torch.sort(rank.index_select(0, self._tokens.all[kept]), stable=True)
        counts = torch.bincount(ranks, minlength=len(distinct))
        tokens = _union(known, distinct[counts > 0].long())
        of_tokens = counts.new_zeros(len(tokens)).index_add_(0, torch.searchsorted(tokens, distinct.long())[counts > 0], counts[counts > 0])
        offsets = (of_tokens.cumsum(0) - of_tokens).int()
        steps, owners = (each[kept].index_select(0, order) for each in (self._steps.all, owners))
        coefficients = self._coefficients.all[kept].index_select(0, order)

        def summed(states: Tensor, by: Tensor) -> Tensor:
            return embedding_bag(steps, states, offsets, mode="sum", per_sample_weights=coefficients * by.float().index_select(0, owners))

        rows = summed(self._states.all, alpha)
        rows[:, -1:] = summed(self._states.all[:, -1:].contiguous(), of_constant)
        similar = self._similar.all if self._similarity.shape[1] else rows.new_zeros(len(alpha), 0)
        shared = (alpha.float() @ similar).view(self._similarity.shape[1], rows.shape[1])
        shared[:, -1] = of_constant.float() @ similar[:, rows.shape[1] - 1 :: rows.shape[1]]
        return WeightedSum(tokens, rows, shared, float((alpha * self._sureness.all).sum()))

    # --- growing -------------------------------------------------------------------------------------------------------

    def _cut(self, groups: int) -> None:
        """Keep the first groups."""
        size = self._sizes[groups]
        self._place[self._distinct.all[size.distinct :].long()] = -1
        for stack in (self._sureness, self._similar, self._scores):
            stack.cut(size.functionals)
        for stack in (self._steps, self._tokens, self._owners, self._coefficients):
            stack.cut(size.coefficients)
        self._states.cut(size.states)
        self._distinct.cut(size.distinct)
        del self._groups[groups:], self._sizes[groups + 1 :]

    def _append(self, functionals: Sequence[LinearFunctional]) -> None:
        before = len(self._sureness)
        rows = [each.rows() for each in functionals]
        for i, (functional, (distinct, _)) in enumerate(zip(functionals, rows, strict=True)):
            self._know(distinct)
            self._steps.push(functional.steps + len(self._states))
            self._tokens.push(self._place[functional.tokens.long()])
            self._owners.push(torch.full_like(functional.tokens, before + i))
            self._coefficients.push(functional.coefficients)
            self._states.push(functional.states)
            self._sureness.push(torch.tensor([functional.sureness], dtype=torch.float64))
        new = self._same_tokens(rows)
        new[0] += self._sureness.all[before:, None] * self._sureness.all
        if self._similarity.shape[1]:
            shared = torch.stack([(self._similarity[tokens].double().T @ terms).flatten().float() for tokens, terms in rows])
            self._similar.push(shared)
            constant = slice(self._states.all.shape[1] - 1, None, self._states.all.shape[1])
            new[0] += (self._similar.all @ shared.T).T.double()
            new[1] += (self._similar.all[:, constant] @ shared[:, constant].T).T.double()
        new[..., before:] = (new[..., before:] + new[..., before:].mT) / 2
        self._write(before, new)

    def _know(self, tokens: Tensor) -> None:
        """Give places to tokens that have none."""
        if (most := int(tokens.max()) + 1 if len(tokens) else 0) > len(self._place):
            self._place = torch.cat([self._place, self._place.new_full((most - len(self._place),), -1)])
        unknown = tokens[self._place[tokens] < 0]
        first = len(self._distinct)
        self._place[unknown] = torch.arange(first, first + len(unknown), dtype=torch.int32)
        self._distinct.push(unknown.int())

    def _same_tokens(self, rows: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """What the identity in the prior covariance adds to the products of new functionals with all, and to those of the constant: (2, k, n).

        A product with the rows of the k new ones is taken only where a step says something of one of their tokens (a sampled dense-dense matrix
        product).
        """
        n, steps, k = len(self._sureness), len(self._states), len(rows)
        tokens, where = torch.unique(torch.cat([self._place[tokens] for tokens, _ in rows]), return_inverse=True)
        wanted = torch.zeros(len(tokens), k, self._states.all.shape[1])
        for i, (place, (_, terms)) in enumerate(zip(where.split([len(tokens) for tokens, _ in rows]), rows, strict=True)):
            wanted[place, i] = terms.float()
        column = torch.full((len(self._distinct),), -1, dtype=torch.int32)
        column[tokens.long()] = torch.arange(0, k * len(tokens), k, dtype=torch.int32)
        columns = column.index_select(0, self._tokens.all)
        entry = (columns >= 0).nonzero()[:, 0]
        counts = torch.bincount(self._steps.all.index_select(0, entry), minlength=steps)
        pattern = torch.sparse_csr_tensor(
            torch.cat([counts.new_zeros(1), k * counts.cumsum(0)]).int(),
            (columns.index_select(0, entry)[:, None] + torch.arange(k, dtype=torch.int32)).flatten(),
            torch.zeros(k * len(entry)),
            (steps, k * len(tokens)),
            check_invariants=False,
        )
        products = torch.sparse.sampled_addmm(pattern, self._states.all, wanted.flatten(0, 1).T, beta=0.0).values().view(-1, k)
        of_states = self._states.all[:, -1].index_select(0, self._steps.all.index_select(0, entry))
        constants = wanted[:, :, -1].index_select(0, columns.index_select(0, entry) // k) * of_states[:, None]
        terms = torch.cat([products, constants], 1).mul_(self._coefficients.all.index_select(0, entry)[:, None]).double()
        found = torch.zeros(n, 2 * k, dtype=torch.float64).index_add_(0, self._owners.all.index_select(0, entry), terms)
        return found.T.reshape(2, k, n)

    def _write(self, before: int, new: Tensor) -> None:
        n = new.shape[2]
        if n > self._products.shape[1]:
            grown = torch.zeros(2, n + n // 2 + 64, n + n // 2 + 64, dtype=torch.float64)
            grown[:, :before, :before] = self._products[:, :before, :before]
            self._products = grown
        self._products[:, before:n, :n] = new
        self._products[:, :n, before:n] = new.mT


def _union(known: Tensor, some: Tensor) -> Tensor:
    """Of two sets of tokens, each sorted: sorted."""
    new = some[~lookup(known, some)[1]]
    return torch.cat([known, new]).sort().values if len(new) else known


@dataclass(frozen=True)
class _Size:
    functionals: int = 0
    states: int = 0
    coefficients: int = 0
    distinct: int = 0


class _Stack:
    """Rows that grow and shrink at the end."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        self._room = torch.empty(64, *shape, dtype=dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def all(self) -> Tensor:
        return self._room[: self._n]

    def push(self, rows: Tensor) -> None:
        before, self._n = self._n, self._n + len(rows)
        if self._n > len(self._room):
            grown = self._room.new_empty(self._n + self._n // 2, *self._room.shape[1:])
            grown[:before] = self._room[:before]
            self._room = grown
        self._room[before : self._n] = rows

    def cut(self, n: int) -> None:
        """Keep the first n rows."""
        self._n = min(n, self._n)
