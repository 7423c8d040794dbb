"""Ĥ, TAMER's model of the human's reward: one linear head that learns from every judgement at once and steers the next word.

Every possible next token a has a reward in a state s, `r(s, a) = w_a · x(s)`, where x(s) are the standardised last hidden state of the
frozen base (projected to a few dimensions on wide models) and a constant; only tokens of judged answers have rows, all others are zero. An
answer's score is the mean over its tokens, linear in the weights, so the penalised likelihood of all judgements is convex and solved exactly
by Newton's method in the span of the judged answers (representer theorem): n unknowns for n answers, whatever the vocabulary.

After Knox and Stone 2009 (TAMER: regress human reward, act on it myopically) and Bradley and Terry 1952 (rankings). What differs: the
action set is a vocabulary, rankings and ratings are learned beside taps, and the fit is exact instead of one gradient step per judgement, so
that it is a pure function of the live judgements: undo and restart give the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learners.preferences import Evidence, Pairs, Problem, mentioned, solve


@dataclass(frozen=True)
class HumanRewardSettings:
    """Constants of the fit; chosen on simulated operators of several tastes (benchmarks/human_reward.py)."""

    dimensions: int = 64  # of x(s) without the constant; wider hidden states are projected to this
    ridge: float = 0.001  # penalty on the squared weights, in units of the log-likelihood of one comparison
    rating_weight: float = 1.0  # of the squared error of one centred rating, beside one comparison
    window: int = 1000  # answers that are solved exactly together; what is older becomes the prior mean


@dataclass(frozen=True)
class Features:
    """x(s): how hidden states become features. Fixed once per base from its own samples, so that a score means the same for good."""

    mean: Tensor  # (d,)
    basis: Tensor  # (d, f): standardises, projects and scales so that the mean squared norm of the result is 1

    @staticmethod
    def fit(hidden: Tensor, settings: HumanRewardSettings | None = None) -> Features:
        """From base states (N, d): standardise each dimension; beyond `dimensions`, keep the directions of most variance."""
        settings = settings or HumanRewardSettings()
        states = hidden.double()
        mean = states.mean(0)
        basis = torch.diag(1.0 / states.std(0, correction=0).clamp_min(1e-6))
        if states.shape[1] > settings.dimensions:
            standardised = (states - mean) @ basis
            _, directions = torch.linalg.eigh(standardised.T @ standardised)
            basis = basis @ directions[:, -settings.dimensions :]
        norm = ((states - mean) @ basis).square().sum(1).mean().sqrt().clamp_min(1e-6)
        return Features(mean.float(), (basis / norm).float())

    def __call__(self, hidden: Tensor) -> Tensor:
        """(…, d) -> (…, f + 1), float32, the last of them 1."""
        projected = (hidden.float() - self.mean) @ self.basis
        return torch.cat([projected, projected.new_ones((*projected.shape[:-1], 1))], dim=-1)

    @property
    def width(self) -> int:
        """f + 1."""
        return self.basis.shape[1] + 1

    def to(self, device: torch.device) -> Features:
        return Features(self.mean.to(device), self.basis.to(device))

    def digest(self) -> str:
        """sha256 of the numbers: heads of different features cannot be compared."""
        return hashlib.sha256(self.mean.cpu().numpy().tobytes() + self.basis.cpu().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Functional:
    """A linear functional of the head's weights, such as an answer's score: rows for its distinct tokens only, sorted by token."""

    tokens: Tensor  # (u,) int64
    rows: Tensor  # (u, f + 1) float64

    @staticmethod
    def mean_over(token_ids: Tensor, features: Tensor) -> Functional:
        """An answer's score: token_ids (T,), features (T, f + 1) of the states before each token."""
        weights = torch.full((len(token_ids),), 1.0 / max(1, len(token_ids)), dtype=torch.float64)
        return Functional.weighted(token_ids, features, weights)

    @staticmethod
    def weighted(token_ids: Tensor, features: Tensor, weights: Tensor) -> Functional:
        """The weighted sum of token rewards: weights (T,)."""
        tokens, where = torch.unique(token_ids, sorted=True, return_inverse=True)
        rows = torch.zeros(len(tokens), features.shape[1], dtype=torch.float64)
        return Functional(tokens, rows.index_add_(0, where, features.double() * weights[:, None].double()))


@dataclass(frozen=True)
class RewardHead:
    """Ĥ as of one epoch: immutable, so that any thread may read it. Rows exist for judged tokens only."""

    epoch: int
    tokens: Tensor  # (S,) int64, sorted
    weights: Tensor  # (S, f + 1) float32
    features: Features

    @staticmethod
    def empty(features: Features, epoch: int = 0) -> RewardHead:
        none = torch.zeros(0, dtype=torch.int64, device=features.mean.device)
        return RewardHead(epoch, none, torch.zeros(0, features.width, device=features.mean.device), features)

    @property
    def blank(self) -> bool:
        """Whether it knows nothing."""
        return len(self.tokens) == 0

    def rewards(self, hidden: Tensor) -> Tensor:
        """Rewards of the S known tokens in each state: (…, d) -> (…, S)."""
        return self.features(hidden) @ self.weights.T

    def token_rewards(self, hidden: Tensor, token_ids: Tensor) -> Tensor:
        """r(s_t, a_t) of taken tokens: hidden (…, d) before each token, token_ids (…) -> (…); unknown tokens have 0."""
        if self.blank:
            return torch.zeros(token_ids.shape, device=hidden.device)
        slots, known = _lookup(self.tokens, token_ids)
        return (self.features(hidden) * self.weights[slots]).sum(-1) * known

    def to(self, device: torch.device) -> RewardHead:
        return RewardHead(self.epoch, self.tokens.to(device), self.weights.to(device), self.features.to(device))

    def state(self) -> dict[str, Tensor]:
        """For safetensors: rows, tokens and the features they belong to."""
        return {
            "tokens": self.tokens.cpu(),
            "weights": self.weights.cpu().contiguous(),
            "mean": self.features.mean.cpu(),
            "basis": self.features.basis.cpu().contiguous(),
            "epoch": torch.tensor(self.epoch),
        }

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> RewardHead:
        features = Features(state["mean"], state["basis"])
        return RewardHead(int(state["epoch"]), state["tokens"], state["weights"], features)


class _Gram:
    """Inner products of functionals, kept per name. Each entry is computed alone and in token order, so its bits do not depend on history."""

    def __init__(self, width: int) -> None:
        self._slots: dict[str, int] = {}
        self._rows = torch.zeros(0, width, dtype=torch.float64)  # all functionals' rows, one after another
        self._tokens = torch.zeros(0, dtype=torch.int64)
        self._owners = torch.zeros(0, dtype=torch.int64)  # slot of each row
        self._products = torch.zeros(0, 0, dtype=torch.float64)

    def of(self, functionals: Mapping[str, Functional], uids: Sequence[str]) -> Tensor:
        """(n, n) for these names."""
        for uid in uids:
            if uid not in self._slots:
                self._append(uid, functionals[uid])
        slots = torch.tensor([self._slots[uid] for uid in uids])
        return self._products[slots][:, slots]

    def _append(self, uid: str, functional: Functional) -> None:
        slot = len(self._slots)
        self._slots[uid] = slot
        self._rows = torch.cat([self._rows, functional.rows])
        self._tokens = torch.cat([self._tokens, functional.tokens])
        self._owners = torch.cat([self._owners, torch.full((len(functional.tokens),), slot)])
        partners, known = _lookup(functional.tokens, self._tokens)
        shared = known.nonzero()[:, 0]
        products = (self._rows[shared] * functional.rows[partners[shared]]).sum(1)
        row = torch.zeros(slot + 1, dtype=torch.float64).index_add_(0, self._owners[shared], products)
        grown = torch.zeros(slot + 1, slot + 1, dtype=torch.float64)
        grown[:slot, :slot] = self._products
        grown[slot, :] = row
        grown[:, slot] = row
        self._products = grown


class HumanReward:
    """Keeps the judged answers' features and fits the head. `fit` depends on the evidence and on token ids alone."""

    def __init__(self, features: Features, settings: HumanRewardSettings | None = None) -> None:
        self.features = features.to(torch.device("cpu"))
        self.settings = settings or HumanRewardSettings()
        self._answers: dict[str, Functional] = {}
        self._gram = _Gram(features.width)

    def __contains__(self, uid: str) -> bool:
        return uid in self._answers

    def add_answer(self, uid: str, token_ids: Sequence[int], hidden: Tensor) -> None:
        """Remember an answer by its canonical prefill: hidden (T, d), the base's states before each of its tokens."""
        ids = torch.tensor(list(token_ids), dtype=torch.int64)
        self.add(uid, Functional.mean_over(ids, self.features(hidden.cpu())))

    def add(self, uid: str, functional: Functional) -> None:
        """Remember any functional under a name, for evidence to speak of."""
        self._answers[uid] = functional

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
        return float(_apply(head, self._answers[uid]))

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
        found = [0.0 if prior.blank else float(_apply(prior, self._answers[uid])) for uid in uids]
        offset = torch.tensor(found, dtype=torch.float64)
        problem = Problem.of(evidence, index, self.settings.rating_weight)
        alpha = solve(problem, self._gram.of(self._answers, uids), offset, self.settings.ridge)
        return _combine(prior, [self._answers[uid] for uid in uids], alpha, epoch)


def _lookup(known: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of `tokens` stands in the sorted `known`, and whether it does."""
    if len(known) == 0:
        return torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
    slots = torch.searchsorted(known, tokens.contiguous()).clamp_max(len(known) - 1)
    return slots, known[slots] == tokens


def _apply(head: RewardHead, functional: Functional) -> Tensor:
    """The functional's value at the head's weights."""
    if head.blank:
        return torch.zeros((), dtype=torch.float64)
    slots, known = _lookup(head.tokens, functional.tokens)
    return ((functional.rows * head.weights[slots].double()).sum(1) * known).sum()


def _combine(prior: RewardHead, functionals: Sequence[Functional], alpha: Tensor, epoch: int) -> RewardHead:
    """The prior's weights plus the weighted sum of the functionals' rows."""
    parts = [(prior.tokens, prior.weights.double())]
    parts += [(f.tokens, f.rows * a) for f, a in zip(functionals, alpha, strict=True)]
    tokens, where = torch.unique(torch.cat([t for t, _ in parts]), sorted=True, return_inverse=True)
    weights = torch.zeros(len(tokens), prior.features.width, dtype=torch.float64)
    weights.index_add_(0, where, torch.cat([rows for _, rows in parts]))
    return RewardHead(epoch, tokens, weights.float(), prior.features)
