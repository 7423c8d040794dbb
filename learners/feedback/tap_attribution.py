"""Which of the words near a tap it was about: expectation maximisation over all taps and over the words that passed untapped.

The window of delays leaves several words to a tap (tap_credit.py), of which it was about one. Words that cause taps are tapped nearly each time that
they appear, the others only where they stand beside one of those. So taps are taken as the points of a process to which each token of a word adds
with a rate of its kind, delayed as the window says; the rates and the shares of every tap are estimated together by expectation maximisation
(Dempster, Laird and Rubin 1977; for point processes Veen and Schoenberg 2008):

    share of a token i in tap j    r_ij ∝ rate(a_i), for i in a word within the window of j      sums to 1 for each tap, and over a word to its share
    rate of a kind of token        rate(a) = (Σ r_ij over a + p·mean) / (times shown + p)

Tokens have the rates, not words, so that "friend", "friends" and "friendly" tell of each other. Within the window all delays are taken to be alike.

Praise and blame have rates of their own. The rate, beside the highest one, also says how much a word is to be believed (`trust`): it is what the word
earned on average when it was shown, where a tap's value alone would credit in full a word that only stood near. Words that pass untapped count in
these two only: silence is never evidence that a word is worth nothing. A pure function of the live taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PRIOR = 0.5
"""Showings that each kind of token has in advance, tapped as often as all are in the mean."""
ROUNDS = 20


class Near(NamedTuple):
    """A tap and the words that may have caused it, each by its tokens."""

    praise: bool
    words: tuple[tuple[int, ...], ...]


class Attributed(NamedTuple):
    """Of each word near one tap."""

    shares: tuple[float, ...]  # sum to 1
    trust: tuple[float, ...]  # 0 to 1


def attribute(taps: Sequence[Near], shown: Mapping[int, int]) -> list[Attributed]:
    """`shown` tells how often each token appeared in all answers that were tapped."""
    near = [tap for tap in taps if tap.words]
    if not near:
        return [Attributed((), ())] * len(taps)
    lengths = [len(tap.words) for tap in near]
    words = [word for tap in near for word in tap.words]
    word = torch.repeat_interleave(torch.tensor([len(tokens) for tokens in words]))  # of each token
    which = torch.repeat_interleave(torch.tensor(lengths))[word]  # its tap
    praise = torch.tensor([tap.praise for tap in near], dtype=torch.int64)
    tokens = torch.tensor([token for tokens in words for token in tokens])
    kinds, kind = torch.unique(2 * tokens + praise[which], return_inverse=True)  # a token that is praised, or one that is blamed
    side = kinds % 2
    showings = torch.tensor([shown.get(token, 0) for token in (kinds // 2).tolist()], dtype=torch.float64) + PRIOR
    advance = (PRIOR * torch.bincount(praise, minlength=2).double() / max(1, sum(shown.values())))[side]
    shares = _normalised(torch.ones(len(kind), dtype=torch.float64), which, len(near))
    for _ in range(ROUNDS):
        rates = (torch.zeros(len(side), dtype=torch.float64).index_add_(0, kind, shares) + advance) / showings
        shares = _normalised(rates[kind], which, len(near))
    highest = torch.stack([torch.where(side == each, rates, 0.0).amax() for each in (0, 1)])
    nothing = torch.zeros(len(words), dtype=torch.float64)
    of_words = nothing.index_add(0, word, shares), nothing.scatter_reduce(0, word, (rates / highest[side])[kind], "amax")
    found = (Attributed(tuple(a.tolist()), tuple(b.tolist())) for a, b in zip(*(each.split(lengths) for each in of_words), strict=True))
    return [next(found) if tap.words else Attributed((), ()) for tap in taps]


def _normalised(values: Tensor, which: Tensor, taps: int) -> Tensor:
    """Each tap's values, summing to 1."""
    return values / torch.zeros(taps, dtype=torch.float64).index_add_(0, which, values)[which]
