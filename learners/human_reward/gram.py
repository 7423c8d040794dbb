"""What judgements speak of, as Ĥ sees it: linear functionals of its weights, and their inner products under the prior.

An answer's score is the mean of A(s, a) over its tokens, a word's reward the sum over the tokens that make it up (human_reward.py). Both are linear
in the weights, so all that the fit needs of them is a Gram matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from learners.human_reward.features import Features, Seen
from learners.human_reward.head import lookup, surer_than_likely

UNIT = 2.0**-40
"""Sums of several terms are taken in whole multiples of this: their order then changes no bit."""


@dataclass(frozen=True)
class LinearFunctional:
    """A linear functional of the head's weights: rows for its distinct tokens only, sorted by token."""

    tokens: Tensor  # (u,) int64
    rows: Tensor  # (u, f + 1) float64
    sureness: float = 0.0
    coefficients: Tensor | None = None  # of a word of m tokens: (m, u) what each of them says of the distinct tokens …
    states: Tensor | None = None  # … and x(s) of each (m, f + 1): rows = coefficientsᵀ states

    @staticmethod
    def of_answer(token_ids: Tensor, seen: Seen, features: Features) -> LinearFunctional:
        """The mean of A over token_ids (T,), in the states `seen` before each token."""
        length = max(1, len(token_ids))
        said = _Said.of(token_ids, seen)
        x = features(seen.hidden).double() / length
        rows = x.new_zeros(len(said.tokens), x.shape[1]).index_add_(0, said.where, said.coefficients[:, None] * x[said.step])
        return LinearFunctional(said.tokens, rows, float(surer_than_likely(token_ids, seen).double().sum()) / length)

    @staticmethod
    def of_word(token_ids: Tensor, seen: Seen, features: Features) -> LinearFunctional:
        """The sum of A over the few token_ids (m,) of a word, without what sureness is worth: of what a person points at the base is never sure."""
        said = _Said.of(token_ids, seen)
        places = said.step * len(said.tokens) + said.where
        flat = torch.zeros(len(token_ids) * len(said.tokens), dtype=torch.float64).index_add_(0, places, said.coefficients)
        coefficients, x = flat.view(len(token_ids), -1), features(seen.hidden).double()
        return LinearFunctional(said.tokens, coefficients.T @ x, 0.0, coefficients, x)


class _Said(NamedTuple):
    """A(s, a) of several steps, as coefficients of rewards: 1 of the token that was taken, -π_base of those that were likely beside it."""

    tokens: Tensor  # (u,) distinct, sorted
    where: Tensor  # (c,) of each coefficient: its token's place among them
    step: Tensor  # (c,) and its step
    coefficients: Tensor  # (c,) float64

    @staticmethod
    def of(token_ids: Tensor, seen: Seen) -> _Said:
        tokens = torch.cat([token_ids[:, None], seen.likely], 1)
        coefficients = torch.cat([torch.ones(len(token_ids), 1, dtype=torch.float64), -seen.probabilities.double()], 1)
        counts = coefficients != 0
        step = torch.arange(len(token_ids))[:, None].expand_as(tokens)[counts]
        distinct, where = torch.unique(tokens[counts], sorted=True, return_inverse=True)
        return _Said(distinct, where, step, coefficients[counts])


class Gram:
    """Inner products of functionals under the prior I + L Lᵀ, kept per name. The bits of an entry do not depend on history.

    What a functional says of tokens that are alike, Lᵀ rows, is (e, f + 1) numbers. Of a word only the factors of it are kept: taps are about
    words, and there are many of them.
    """

    def __init__(self, width: int, likeness: Tensor) -> None:
        self._likeness = likeness
        self._slots: dict[str, int] = {}
        self._rows = _Stack(width)  # all functionals' rows, one after another
        self._tokens = _Stack(dtype=torch.int64)
        self._owners = _Stack(dtype=torch.int64)  # slot of each row
        self._answers, self._words = _Stack(dtype=torch.int64), _Stack(dtype=torch.int64)  # slots: of each answer, and of each token of a word
        self._shared = _Stack(likeness.shape[1] * width, dtype=torch.float32)  # Lᵀ rows, of answers
        self._alike, self._states = (_Stack(n, dtype=torch.float32) for n in (likeness.shape[1], width))  # its factors, of words
        self._sureness = _Stack()
        self.products = torch.zeros(0, 0, dtype=torch.float64)

    def of(self, functionals: Mapping[str, LinearFunctional], uids: Sequence[str]) -> Tensor:
        """(n, n) for these names."""
        for uid in uids:
            if uid not in self._slots:
                self._append(uid, functionals[uid])
        slots = torch.tensor([self._slots[uid] for uid in uids])
        return self.products[slots][:, slots]

    def _append(self, uid: str, functional: LinearFunctional) -> None:
        slot = len(self._slots)
        self._slots[uid] = slot
        self._rows.push(functional.rows)
        self._tokens.push(functional.tokens)
        self._owners.push(torch.full((len(functional.tokens),), slot))
        partners, known = lookup(functional.tokens, self._tokens.all)
        same = known.nonzero()[:, 0]
        products = (self._rows.all[same] * functional.rows[partners[same]]).sum(1)
        row = torch.zeros(slot + 1, dtype=torch.float64).index_add_(0, self._owners.all[same], products)
        if self._likeness.shape[1]:
            row += UNIT * self._of_alike(slot, functional)
        self._sureness.push(torch.tensor([functional.sureness], dtype=torch.float64))
        row += self._sureness.all * functional.sureness
        if slot == len(self.products):
            grown = torch.zeros(2 * slot + 64, 2 * slot + 64, dtype=torch.float64)
            grown[:slot, :slot] = self.products
            self.products = grown
        self.products[slot, : slot + 1] = self.products[: slot + 1, slot] = row

    def _of_alike(self, slot: int, functional: LinearFunctional) -> Tensor:
        """What L Lᵀ adds to the products with all others: (slot + 1,), in units."""
        units = torch.zeros(slot + 1, dtype=torch.int64)
        vectors = self._likeness[functional.tokens]
        if functional.coefficients is None or functional.states is None:
            self._answers.push(torch.tensor([slot]))
            self._shared.push((vectors.T @ functional.rows).flatten().float()[None])
            shared = self._shared.all[-1]
            for slots, alike, states in zip(*(stack.all.split(64) for stack in (self._words, self._alike, self._states)), strict=True):
                units.index_add_(0, slots, _in_units((_outer(alike, states) * shared).sum(1)))
            return units.index_add_(0, self._answers.all, _in_units((self._shared.all * shared).sum(1)))
        alike, states = (functional.coefficients @ vectors).float(), functional.states.float()
        self._words.push(torch.full((len(states),), slot))
        self._alike.push(alike)
        self._states.push(states)
        for z, x in zip(alike, states, strict=True):
            units.index_add_(0, self._words.all, _in_units((self._alike.all * z).sum(1) * (self._states.all * x).sum(1)))
            units.index_add_(0, self._answers.all, _in_units((self._shared.all * _outer(z[None], x[None])).sum(1)))
        return units


class _Stack:
    """Rows that grow at the end."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        self._room = torch.zeros(64, *shape, dtype=dtype)
        self._n = 0

    @property
    def all(self) -> Tensor:
        return self._room[: self._n]

    def push(self, rows: Tensor) -> None:
        before, self._n = self._n, self._n + len(rows)
        if self._n > len(self._room):
            grown = self._room.new_zeros(2 * self._n, *self._room.shape[1:])
            grown[:before] = self._room[:before]
            self._room = grown
        self._room[before : self._n] = rows


def _outer(alike: Tensor, states: Tensor) -> Tensor:
    """(m, e), (m, f + 1) -> (m, e · (f + 1))."""
    return (alike[:, :, None] * states[:, None]).flatten(1)


def _in_units(values: Tensor) -> Tensor:
    return (values.double() / UNIT).round().long()
