"""Ĥ, TAMER's model of the human's reward: one linear head that learns from every judgement at once and steers the next word.

Every possible next token a has a reward in a state s,

    r(s, a) = w_a · x(s) + u · sureness(a | s)

where x(s) are the standardised last hidden state of the frozen base (projected on wide models) and a constant. Only tokens that were said in judged
answers, or were likely there, have rows; all others are zero. The one number u says what it is worth that the base itself is sure of a token
(features.py): what it says most often is true more often than what it says seldom, and judgements that reward the truth teach that first.
A token is judged beside what the base would have said in its place,

    A(s, a) = r(s, a) - Σ_b π_base(b | s) r(s, b)

so a word that had to come earns nothing, and the credit goes to where the answer could have gone another way. An answer's score is the mean of A
over its tokens. Words that the base takes for alike share what is learned: the prior over the rows is Gaussian with covariance I + L Lᵀ, where L are
the tokens' `likeness` vectors. The score is linear in the weights, so the penalised likelihood of all judgements is convex and solved exactly
by Newton's method in the span of the judged answers (representer theorem): n unknowns for n answers, whatever the vocabulary.

After Knox and Stone 2009 (TAMER: regress human reward, act on it myopically) and Bradley and Terry 1952 (rankings). What differs: the
action set is a vocabulary, rankings and ratings are learned beside taps, and the fit is exact instead of one gradient step per judgement, so
that it is a pure function of the live judgements: undo and restart give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from learners.features import Features, Seen
from learners.preferences import Evidence, Pairs, Problem, mentioned, solve


@dataclass(frozen=True)
class HumanRewardSettings:
    """Constants of the fit; chosen on simulated operators of several tastes."""

    ridge: float = 0.001  # penalty on the squared weights, in units of the log-likelihood of one comparison
    rating_weight: float = 1.0  # of the squared error of one centred rating, beside one comparison
    window: int = 1000  # answers that are solved exactly together; what is older becomes the prior mean


@dataclass(frozen=True)
class Functional:
    """A linear functional of the head's weights, such as an answer's score: rows for its distinct tokens only, sorted by token."""

    tokens: Tensor  # (u,) int64
    rows: Tensor  # (u, f + 1) float64
    sureness: float = 0.0
    state: Tensor | None = None  # (f + 1,) where all rows are multiples of it: of a single token
    coefficients: Tensor | None = None  # (u,) then: how many times it each row is

    @staticmethod
    def mean_over(token_ids: Tensor, seen: Seen, features: Features) -> Functional:
        """An answer's score: the mean of A over token_ids (T,), in the states `seen` before each token."""
        x = features(seen.hidden).double() / max(1, len(token_ids))
        tokens = torch.cat([token_ids[:, None], seen.likely], 1)
        coefficients = torch.cat([torch.ones(len(token_ids), 1, dtype=torch.float64), -seen.probabilities.double()], 1)
        counts = coefficients != 0
        which = torch.arange(len(token_ids))[:, None].expand_as(tokens)[counts]  # state of each
        tokens, where = torch.unique(tokens[counts], sorted=True, return_inverse=True)
        sureness = float(_surer(token_ids, seen).double().sum()) / max(1, len(token_ids))
        if len(x) == 1:
            of_one = torch.zeros(len(tokens), dtype=torch.float64).index_add_(0, where, coefficients[counts])
            return Functional(tokens, of_one[:, None] * x, sureness, x[0], of_one)
        rows = x.new_zeros(len(tokens), x.shape[1]).index_add_(0, where, coefficients[counts][:, None] * x[which])
        return Functional(tokens, rows, sureness)


@dataclass(frozen=True)
class RewardHead:
    """Ĥ as of one epoch: immutable, so that any thread may read it. Rows exist for judged tokens only."""

    epoch: int
    tokens: Tensor  # (S,) int64, sorted
    weights: Tensor  # (S, f + 1) float32
    features: Features
    sureness: float = 0.0  # u

    @staticmethod
    def empty(features: Features, epoch: int = 0) -> RewardHead:
        none = torch.zeros(0, dtype=torch.int64, device=features.mean.device)
        return RewardHead(epoch, none, torch.zeros(0, features.width, device=features.mean.device), features)

    @property
    def blank(self) -> bool:
        """Whether it knows nothing."""
        return len(self.tokens) == 0

    def rewards(self, hidden: Tensor) -> Tensor:
        """w · x(s) of the S known tokens in each state: (…, d) -> (…, S)."""
        rows, constant = self._of_hidden
        return hidden.float() @ rows + constant

    @cached_property
    def _of_hidden(self) -> tuple[Tensor, Tensor]:
        """w · x as a function of the hidden state itself: (d, S) and (S,)."""
        rows = self.features.basis @ self.weights[:, :-1].T
        return rows, self.features.constant * self.weights[:, -1] - self.features.mean @ rows

    def token_rewards(self, seen: Seen, token_ids: Tensor) -> Tensor:
        """A(s_t, a_t) of taken tokens (…), in the states `seen` before each: their rewards beside what the base would have said there."""
        if self.blank:
            return torch.zeros(token_ids.shape, device=seen.hidden.device)
        asked = torch.cat([token_ids[..., None], seen.likely], -1)
        slots, known = lookup(self.tokens, asked)
        rewards = (self.weights[slots] @ self.features(seen.hidden)[..., None])[..., 0] * known
        beside = rewards[..., 0] - (seen.probabilities * rewards[..., 1:]).sum(-1)
        return beside + self.sureness * _surer(token_ids, seen)

    def to(self, device: torch.device) -> RewardHead:
        return replace(self, tokens=self.tokens.to(device), weights=self.weights.to(device), features=self.features.to(device))

    def state(self) -> dict[str, Tensor]:
        """For safetensors: rows, tokens and the features they belong to."""
        return {
            "tokens": self.tokens.cpu(),
            "weights": self.weights.cpu().contiguous(),
            "mean": self.features.mean.cpu(),
            "basis": self.features.basis.cpu().contiguous(),
            "constant": torch.tensor(self.features.constant, dtype=torch.float64),
            "sureness": torch.tensor(self.sureness, dtype=torch.float64),
            "epoch": torch.tensor(self.epoch),
        }

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> RewardHead:
        features = Features(state["mean"], state["basis"], float(state.get("constant", torch.tensor(1.0))))
        sureness = float(state.get("sureness", torch.tensor(0.0)))
        return RewardHead(int(state["epoch"]), state["tokens"], state["weights"], features, sureness)


class _Gram:
    """Inner products of functionals under the prior I + L Lᵀ, kept per name. Each entry is computed alone and in token order, so its bits do not
    depend on history.

    What a functional says of tokens that are alike, Lᵀ rows, is (e, f + 1) numbers. Of a single token, which is what taps are about, these are the
    outer product of two vectors, and only those are kept.
    """

    def __init__(self, width: int, likeness: Tensor) -> None:
        self._likeness = likeness
        self._slots: dict[str, int] = {}
        self._rows = _Stack(width)  # all functionals' rows, one after another
        self._tokens = _Stack(dtype=torch.int64)
        self._owners = _Stack(dtype=torch.int64)  # slot of each row
        self._many, self._one = _Stack(dtype=torch.int64), _Stack(dtype=torch.int64)  # slots of functionals of many tokens, and of one
        self._shared = _Stack(likeness.shape[1] * width, dtype=torch.float32)  # Lᵀ rows, of those of many
        self._alike, self._states = _Stack(likeness.shape[1]), _Stack(width)  # its two factors, of those of one
        self._sureness = _Stack()
        self.products = torch.zeros(0, 0, dtype=torch.float64)

    def of(self, functionals: Mapping[str, Functional], uids: Sequence[str]) -> Tensor:
        """(n, n) for these names."""
        for uid in uids:
            if uid not in self._slots:
                self._append(uid, functionals[uid])
        slots = torch.tensor([self._slots[uid] for uid in uids])
        return self.products[slots][:, slots]

    def _append(self, uid: str, functional: Functional) -> None:
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
            self._share(row, slot, functional)
        self._sureness.push(torch.tensor([functional.sureness], dtype=torch.float64))
        row += self._sureness.all * functional.sureness
        if slot == len(self.products):
            grown = torch.zeros(2 * slot + 64, 2 * slot + 64, dtype=torch.float64)
            grown[:slot, :slot] = self.products
            self.products = grown
        self.products[slot, : slot + 1] = self.products[: slot + 1, slot] = row

    def _share(self, row: Tensor, slot: int, functional: Functional) -> None:
        """Add what L Lᵀ adds to the products with all others."""
        vectors, x = self._likeness[functional.tokens], functional.state
        if x is None or functional.coefficients is None:
            shared = (vectors.T @ functional.rows).flatten().float()
            self._many.push(torch.tensor([slot]))
            self._shared.push(shared[None])
            for slots, alike, states in zip(*(stack.all.split(64) for stack in (self._one, self._alike, self._states)), strict=True):
                row[slots] += ((alike[:, :, None] * states[:, None]).flatten(1).float() * shared).sum(1)
        else:
            z = (vectors * functional.coefficients[:, None]).sum(0)
            self._one.push(torch.tensor([slot]))
            self._alike.push(z[None])
            self._states.push(x[None])
            row[self._one.all] += (self._alike.all * z).sum(1) * (self._states.all * x).sum(1)
            shared = (z[:, None] * x).flatten().float()
        row[self._many.all] += (self._shared.all * shared).sum(1)


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


@dataclass(frozen=True)
class _Sums:
    """n sums of p functionals."""

    parts: tuple[str, ...]  # p names
    places: Tensor  # (m, n) of each sum's parts; p where it has fewer than m

    @staticmethod
    def of(sums: Sequence[tuple[str, ...]]) -> _Sums:
        parts = {name: i for i, name in enumerate(dict.fromkeys(part for names in sums for part in names))}
        most = max(map(len, sums))
        places = [[parts[part] for part in names] + [len(parts)] * (most - len(names)) for names in sums]
        return _Sums(tuple(parts), torch.tensor(places).T.contiguous())

    def products(self, gram: Tensor) -> Tensor:
        """Inner products of the sums (n, n), from those of the parts (p, p)."""
        if len(self.places) == 1:
            return gram  # each is its own part
        return self._added(self._added(gram).T)

    def shared_out(self, alpha: Tensor) -> Tensor:
        """Coefficients of the sums (n,) as ones of the parts (p,)."""
        everywhere = alpha.expand(self.places.shape).flatten()
        return alpha.new_zeros(len(self.parts) + 1).index_add_(0, self.places.flatten(), everywhere)[:-1]

    def _added(self, rows: Tensor) -> Tensor:
        """(p, k) -> (n, k)."""
        padded = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        return sum((padded[places] for places in self.places[1:]), padded[self.places[0]])


class HumanReward:
    """Keeps the judged answers' features and fits the head. `fit` depends on the evidence and on token ids alone."""

    def __init__(self, features: Features, likeness: Tensor | None = None, settings: HumanRewardSettings | None = None) -> None:
        """`likeness` are the tokens' vectors (V, e); without them every token is on its own."""
        self.features = features.to(torch.device("cpu"))
        self.likeness = torch.zeros(0, 0, dtype=torch.float64) if likeness is None else likeness.cpu().double()
        self.settings = settings or HumanRewardSettings()
        self._answers: dict[str, Functional] = {}
        self._sums: dict[str, tuple[str, ...]] = {}
        self._gram = _Gram(features.width, self.likeness)

    def __contains__(self, uid: str) -> bool:
        return uid in self._answers or uid in self._sums

    def add_answer(self, uid: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int] | None = None) -> None:
        """Remember an answer, or a span of one, by its canonical prefill: the base's states before each of its T tokens.

        A span says nothing of what sureness is worth: it is a word that was tapped, or one that a person wrote, of which the base is never sure.
        """
        start, stop = span or (0, len(token_ids))
        ids = torch.tensor(token_ids[start:stop], dtype=torch.int64)
        functional = Functional.mean_over(ids, seen.span(start, stop), self.features)
        self.add(uid, replace(functional, sureness=0.0) if span else functional)

    def add(self, uid: str, functional: Functional) -> None:
        """Remember any functional under a name, for evidence to speak of."""
        self._answers[uid] = functional

    def add_sum(self, uid: str, parts: Sequence[str]) -> None:
        """Remember the sum of functionals that are known by name; each counts once, however many sums it is in."""
        self._sums[uid] = tuple(parts)

    def fit(self, evidence: Sequence[Evidence], epoch: int) -> RewardHead:
        """The penalised maximum-likelihood head of this evidence, which may only speak of known answers.

        Evidence about more than `window` answers is taken in turns, in order: what came before is the prior mean of what comes after.
        """
        prior = RewardHead.empty(self.features, epoch)
        for block in self._blocks(evidence):
            prior = self._fit_block(block, prior, epoch)
        return prior

    def score(self, head: RewardHead, uid: str) -> float:
        """An answer's score under a head."""
        return sum(float(_apply(head, self._answers[part])) for part in self._parts(uid))

    def margins(self, head: RewardHead, pairs: Pairs) -> list[float]:
        """Score differences of the untied pairs, the preferred answer's first."""
        scores = {uid: self.score(head, uid) for uid in {*pairs.first, *pairs.second}}
        compared = zip(pairs.first, pairs.second, pairs.target, strict=True)
        return [scores[a] - scores[b] for a, b, target in compared if target != 0.5]

    def _blocks(self, evidence: Sequence[Evidence]) -> list[list[Evidence]]:
        blocks: list[list[Evidence]] = [[]]
        uids: set[str] = set()
        for item in evidence:
            uids |= mentioned(item)
            if len(uids) > self.settings.window and blocks[-1]:
                blocks.append([])
                uids = mentioned(item)
            blocks[-1].append(item)
        return blocks

    def _fit_block(self, evidence: Sequence[Evidence], prior: RewardHead, epoch: int) -> RewardHead:
        uids = list(dict.fromkeys(uid for item in evidence for uid in sorted(mentioned(item))))
        if not uids:
            return prior
        index = {uid: i for i, uid in enumerate(uids)}
        found = [0.0 if prior.blank else self.score(prior, uid) for uid in uids]
        offset = torch.tensor(found, dtype=torch.float64)
        problem = Problem.of(evidence, index, self.settings.rating_weight)
        sums = _Sums.of([self._parts(uid) for uid in uids])
        alpha = solve(problem, sums.products(self._gram.of(self._answers, sums.parts)), offset, self.settings.ridge)
        return _combine(prior, [self._answers[part] for part in sums.parts], sums.shared_out(alpha), self.likeness, epoch)

    def _parts(self, uid: str) -> tuple[str, ...]:
        return self._sums.get(uid, (uid,))


def lookup(known: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of `tokens` stands in the sorted `known`, and whether it does."""
    if len(known) == 0:
        return torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    slots = torch.searchsorted(known, tokens.contiguous()).clamp_max(len(known) - 1)
    return slots, known[slots] == tokens


def _apply(head: RewardHead, functional: Functional) -> Tensor:
    """The functional's value at the head's weights."""
    if head.blank:
        return torch.zeros((), dtype=torch.float64)
    slots, known = lookup(head.tokens, functional.tokens)
    return ((functional.rows * head.weights[slots].double()).sum(1) * known).sum() + head.sureness * functional.sureness


def _surer(token_ids: Tensor, seen: Seen) -> Tensor:
    """How much surer the base was of these tokens (…) than of what it would have said there, in nats."""
    sureness = seen.sureness
    return (((token_ids[..., None] == seen.likely).float() - seen.probabilities) * sureness).sum(-1)


def _combine(prior: RewardHead, functionals: Sequence[Functional], alpha: Tensor, likeness: Tensor, epoch: int) -> RewardHead:
    """The prior's weights plus the weighted sum of the functionals' rows, of which tokens that are alike have a share: (I + L Lᵀ) Σ α f."""
    tokens, where = torch.unique(torch.cat([prior.tokens, *(f.tokens for f in functionals)]), sorted=True, return_inverse=True)
    weights = torch.zeros(len(tokens), prior.features.width, dtype=torch.float64)
    owners = torch.repeat_interleave(torch.tensor([len(f.tokens) for f in functionals]))
    weights.index_add_(0, where[len(prior.tokens) :], torch.cat([f.rows for f in functionals]) * alpha[owners, None])
    if likeness.shape[1]:
        vectors = likeness[tokens]
        weights += vectors @ (vectors.T @ weights)
    weights.index_add_(0, where[: len(prior.tokens)], prior.weights.double())
    sureness = prior.sureness + float((alpha * torch.tensor([f.sureness for f in functionals], dtype=torch.float64)).sum())
    return RewardHead(epoch, tokens, weights.float(), prior.features, sureness)
