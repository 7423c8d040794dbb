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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from learners.human_reward.features import Features, Seen
from learners.human_reward.gram import Gram, LinearFunctional
from learners.human_reward.head import RewardHead, lookup
from learners.human_reward.likelihood import Evidence, Pairs, Problem, mentioned, solve


@dataclass(frozen=True)
class HumanRewardSettings:
    """Constants of the fit; chosen on simulated operators of several tastes."""

    ridge: float = 0.001  # penalty on the squared weights, in units of the log-likelihood of one comparison
    rating_weight: float = 1.0  # of the squared error of one centred rating, beside one comparison
    window: int = 1000  # answers that are solved exactly together; what is older becomes the prior mean


class HumanReward:
    """Keeps the judged answers' features and fits the head. `fit` depends on the evidence and on token ids alone."""

    def __init__(self, features: Features, likeness: Tensor | None = None, settings: HumanRewardSettings | None = None) -> None:
        """`likeness` are the tokens' vectors (V, e); without them every token is on its own."""
        self.features = features.to(torch.device("cpu"))
        self.likeness = torch.zeros(0, 0, dtype=torch.float64) if likeness is None else likeness.cpu().double()
        self.settings = settings or HumanRewardSettings()
        self._known: dict[str, LinearFunctional] = {}
        self._gram = Gram(features.width, self.likeness)

    def __contains__(self, uid: str) -> bool:
        return uid in self._known

    def add_answer(self, uid: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int] | None = None) -> None:
        """Remember an answer, or a span of one, by its canonical prefill: the base's states before each of its T tokens.

        A span says nothing of what sureness is worth: the base is never sure of what a person wrote.
        """
        start, stop = span or (0, len(token_ids))
        functional = LinearFunctional.of_answer(torch.tensor(token_ids[start:stop]), seen.span(start, stop), self.features)
        self._known[uid] = replace(functional, sureness=0.0) if span else functional

    def add_word(self, uid: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int]) -> None:
        """Remember a word of an answer, [start, stop) of its tokens: the sum of what they are worth."""
        self._known[uid] = LinearFunctional.of_word(torch.tensor(token_ids[slice(*span)]), seen.span(*span), self.features)

    def fit(self, evidence: Sequence[Evidence], epoch: int) -> RewardHead:
        """The penalised maximum-likelihood head of this evidence, which may only speak of known answers.

        Evidence about more than `window` answers is taken in turns, in order: what came before is the prior mean of what comes after.
        """
        prior = RewardHead.empty(self.features, epoch)
        for block in self._blocks(evidence):
            prior = self._fit_block(block, prior, epoch)
        return prior

    def score(self, head: RewardHead, uid: str) -> float:
        """An answer's score, or a word's, under a head."""
        return float(_apply(head, self._known[uid]))

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
        alpha = solve(problem, self._gram.of(self._known, uids), offset, self.settings.ridge)
        return _combine(prior, [self._known[uid] for uid in uids], alpha, self.likeness, epoch)


def _apply(head: RewardHead, functional: LinearFunctional) -> Tensor:
    """The functional's value at the head's weights."""
    if head.blank:
        return torch.zeros((), dtype=torch.float64)
    slots, known = lookup(head.tokens, functional.tokens)
    return ((functional.rows * head.weights[slots].double()).sum(1) * known).sum() + head.sureness * functional.sureness


def _combine(prior: RewardHead, functionals: Sequence[LinearFunctional], alpha: Tensor, likeness: Tensor, epoch: int) -> RewardHead:
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
