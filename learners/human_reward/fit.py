"""Ĥ, TAMER's model of the human's reward: one linear head, fitted to every judgement at once by penalised maximum likelihood.

Every possible next token a has a reward in a state s,

    r(s, a) = w_a · x(s) + u · sureness(a | s)

where x(s) are the standardised last hidden state of the frozen base (projected on wide models) and a constant. Only tokens that were said in judged
answers, or were likely there, have rows; all others are zero. The one number u says what it is worth that the base itself is sure of a token
(features.py): what it says most often is true more often than what it says seldom, and judgements that reward the truth teach that first.
A token's score is its advantage over what the base would have said in its place,

    A(s, a) = r(s, a) - Σ_b π_base(b | s) r(s, b)

so a word that had to come earns nothing, and the credit goes to where the answer could have gone another way. An answer's score is the mean of A
over its tokens. Similar tokens share what is learned: the prior over the rows is Gaussian with covariance I + L Lᵀ, where L is `token_similarity`
(features.py). The score is linear in the weights, so the penalised likelihood of all judgements is convex and solved exactly by Newton's method in
the span of the judged answers (representer theorem): n unknowns for n answers, whatever the vocabulary (likelihood.py, gram.py).

Whether a token is worth something wherever it stands (a taste for short words) or only in its place (the truth) differs between operators; one prior
cannot serve both. So there are two fits, which differ in the prior variance of the constant's weights, and Ĥ is their average, weighted by how
likely each makes every comparison from all other judgements (leave-one-out; Bayesian model averaging with predictive weights, Yao et al. 2018).
Where nothing is compared, it is the first.

Judgements are solved in blocks of at most `window` answers, in the order of the log; the head of each block is the prior mean of the next; the
covariance stays I + L Lᵀ. The head of a finished block is a function of what was judged up to its end: it is kept and not solved again, and the
statistics of its answers can be dropped.

After Knox and Stone 2009 (TAMER: regress human reward, act on it myopically) and Bradley and Terry 1952 (rankings). What differs: the
action set is a vocabulary, rankings and ratings are learned beside taps, and the fit is exact instead of one gradient step per judgement, so
that it is a pure function of the live judgements: undo and restart give the same bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from learners.human_reward.features import Features, Seen
from learners.human_reward.gram import GramBlock, LinearFunctional, WeightedSum
from learners.human_reward.head import RewardHead, Shared
from learners.human_reward.likelihood import Contrasts, Evidence, Foreseen, Pairs, Solution, blocks_of, mentioned, solve


@dataclass(frozen=True)
class HumanRewardSettings:
    """Constants of the fit; chosen on simulated operators of several tastes."""

    ridge: float = 0.001  # penalty on the squared weights, in units of the log-likelihood of one comparison
    rating_weight: float = 1.0  # of the squared error of one centred rating, beside one comparison
    constant_variance: float = 64.0  # prior variance of the constant's weights in the other fit; 1 in the usual one
    odds: float = 1.0  # nats by which the other fit has to foresee judgements better, to count as much
    lapse: float = 0.25  # how often a comparison says the opposite of what was meant, in the fits that doubt; 0: none does
    window: int = 512  # answers that are solved exactly together; what is older becomes the prior mean


@dataclass(frozen=True)
class Block:
    """Judgements that are solved together."""

    groups: tuple[tuple[str, ...], ...]  # names of each one's answers: those that the evidence mentions, and maybe more
    evidence: tuple[Evidence, ...]

    @staticmethod
    def split(evidence: Sequence[Evidence], window: int) -> list[Block]:
        """In the order given, each of at most `window` answers."""
        groups = [tuple(sorted(mentioned(item))) for item in evidence]
        ends = [*blocks_of(groups, window), len(evidence)]
        return [Block(tuple(groups[a:b]), tuple(evidence[a:b])) for a, b in pairwise(ends)]

    def among(self, known: Collection[str]) -> Block:
        """What can be said of the known answers; itself where all are known."""
        if all(name in known for group in self.groups for name in group):
            return self
        groups = tuple(tuple(name for name in group if name in known) for group in self.groups)
        return Block(groups, tuple(item for item in self.evidence if all(name in known for name in mentioned(item))))

    def believed(self, known: Collection[str], meant: Tensor) -> Block:
        """Each comparison of known answers with the probability that it was meant; `meant` (m,): of all evidence `among` the known."""
        each = iter(meant.tolist())
        weighed = ((item, next(each) if all(name in known for name in mentioned(item)) else 1.0) for item in self.evidence)
        return Block(self.groups, tuple(replace(item, meant=p) if isinstance(item, Pairs) else item for item, p in weighed))


EM_STEPS = 6
"""Times that each judgement is weighed by what the others say of it, each followed by a Newton step (Dempster et al. 1977)."""
KEPT_HEADS = 3
"""Blocks, the last ones, whose heads are kept: to undo what is in the newest or the one before takes no others."""


@dataclass(frozen=True)
class _Solved:
    block: Block
    believed: Block
    head: RewardHead | None  # None where it is not kept any more


class RewardFit:
    """Keeps the judged answers' statistics and fits a head. `fit` depends on the evidence and on token ids alone.

    Belongs to one thread, on the CPU.
    """

    def __init__(
        self, features: Features, similarity: Tensor | None = None, settings: HumanRewardSettings | None = None, doubts: bool = False
    ) -> None:
        """features: on the CPU. similarity: (V, e), the factor L of the prior covariance; without it every token is on its own. `doubts`: whether it
        averages over fits in which comparisons may be slips, beside those in which none is."""
        self.features = features
        self.similarity = torch.zeros(0, 0) if similarity is None else similarity.float()
        self.settings = settings or HumanRewardSettings()
        self._doubts = doubts and self.settings.lapse > 0
        self._known: dict[str, LinearFunctional] = {}
        self._gram = GramBlock(features.width, self.similarity)
        self._solved: list[_Solved] = []  # from the first block on, as far as all answers were known
        self.believed: tuple[Block, ...] = ()  # what was last fitted, each comparison with the probability that it was meant

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __len__(self) -> int:
        """Answers and words whose statistics are kept."""
        return len(self._known)

    def add_answer(self, name: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int] | None = None) -> None:
        """Remember an answer, or a span of one, by its canonical prefill: the base's states before each of its T tokens, on the CPU.

        A span says nothing of what sureness is worth: the base is never sure of what a person wrote.
        """
        start, stop = span or (0, len(token_ids))
        ids, there = torch.tensor(token_ids[start:stop], dtype=torch.int64), seen.span(start, stop)
        functional = LinearFunctional.of_answer(ids, there, self.features)
        self._known[name] = replace(functional, sureness=0.0) if span else functional

    def add(self, name: str, functional: LinearFunctional) -> None:
        """Remember an answer whose statistics are known."""
        self._known[name] = functional

    def rewards_of(self, name: str, token_ids: Sequence[int]) -> LinearFunctional:
        """Of a known answer, or of the span of one that is judged, these tokens: the mean of their rewards."""
        return self._known[name].of_rewards(torch.tensor(token_ids, dtype=torch.int64))

    def add_word(self, name: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int]) -> None:
        """Remember a word of an answer, [start, stop) of its tokens: the sum of what they are worth."""
        self._known[name] = LinearFunctional.of_word(torch.tensor(token_ids[slice(*span)]), seen.span(*span), self.features)

    def keep(self, names: Collection[str]) -> None:
        """Drop the statistics of all other answers. Blocks that were solved with them stay solved."""
        self._known = {name: functional for name, functional in self._known.items() if name in names}

    def fit(self, evidence: Sequence[Evidence], epoch: int) -> RewardHead:
        """The penalised maximum-likelihood head of this evidence."""
        return self.fit_blocks(Block.split(evidence, self.settings.window), epoch)

    def fit_blocks(self, blocks: Sequence[Block], epoch: int) -> RewardHead:
        """The head of the last block, each one's the prior mean of the next. Of blocks that are not `solved` only known answers count."""
        done = self.solved(blocks)
        head = (self._solved[done - 1].head if done else None) or RewardHead.empty(self.features, epoch)
        del self._solved[done:]
        if 0 < done < len(blocks):
            head = head.settled()
            self._solved[-1] = replace(self._solved[-1], head=head)
        believed = [each.believed for each in self._solved]
        complete = True
        for i, block in enumerate(blocks[done:], done + 1):
            known = block.among(self._known)
            head, meant = self._fit_block(known, head, epoch)
            head = head.settled() if i < len(blocks) else head
            believed.append(block.believed(self._known, meant) if self._doubts else block)
            complete = complete and known is block
            if complete:
                self._solved.append(_Solved(block, believed[-1], head))
        for i, each in enumerate(self._solved[:-KEPT_HEADS]):
            self._solved[i] = replace(each, head=None)
        self.believed = tuple(believed)
        return head if head.epoch == epoch else replace(head, epoch=epoch)

    def solved(self, blocks: Sequence[Block]) -> int:
        """How many of these blocks, from the first on, need not be solved again."""
        same = 0
        for each, other in zip(self._solved, blocks, strict=False):
            if each.block != other:
                break
            same += 1
        while same and ((head := self._solved[same - 1].head) is None or (same == len(blocks) and head.shared is None)):
            same -= 1  # a finished block that is the newest again after an undo is solved again: its head is settled
        return same

    def score(self, head: RewardHead, name: str) -> float:
        """An answer's score, or a word's, under a head."""
        return self._known[name].value(head)

    def margins(self, head: RewardHead, pairs: Pairs) -> list[float]:
        """Score differences of the untied pairs, the preferred answer's first."""
        scores = {name: self.score(head, name) for name in {*pairs.first, *pairs.second}}
        compared = zip(pairs.first, pairs.second, pairs.target, strict=True)
        return [scores[a] - scores[b] for a, b, target in compared if target != 0.5]

    def _fit_block(self, block: Block, prior: RewardHead, epoch: int) -> tuple[RewardHead, Tensor]:
        """And the probability (m,) of each element of the evidence that it was meant."""
        if not block.evidence:
            return prior, torch.ones(0)
        groups = _distinct(block.groups)
        self._gram.hold(groups, self._known)
        index = {name: i for i, name in enumerate(name for group in groups for name in group)}
        found = self._solve(block.evidence, index, self._gram.scores(prior))
        used = torch.zeros(len(index), dtype=torch.bool)
        used[[index[name] for item in block.evidence for name in mentioned(item)]] = True
        return self._posterior(prior, self._gram.weighted_sum(found.alpha, found.of_constant, used, prior.tokens), epoch), found.meant

    def _solve(self, evidence: Sequence[Evidence], index: Mapping[str, int], offset: Tensor) -> _Average:
        """Several fits, averaged by how well each foresees judgements from the others: two that believe all, by the variance of the constant's
        weights, and where it doubts one more, of the variance that foresees better."""
        said, settings = Contrasts.of(evidence, index, self.settings.rating_weight), self.settings
        compared = len(said.target) > 0  # else nothing tells which fit foresees better
        variances = (1.0, settings.constant_variance) if compared else (1.0,)
        fits: list[_Candidate] = []
        for variance, odds in zip(variances, (0.0, settings.odds), strict=False):
            gram = self._gram.products.add(self._gram.constant_products, alpha=variance - 1)
            solution = solve(said, gram, offset, settings.ridge, begin=fits[0].solution.c if fits else None)
            fits.append(_Candidate(variance, gram, solution, odds, solution.foresees(said)))
        if compared and self._doubts:
            fits.append(self._doubting(said, min(fits, key=lambda fit: fit.loss), offset))
        shares = torch.tensor([fit.loss for fit in fits], dtype=torch.float64).neg().softmax(0)
        alpha = shares[:, None] * torch.stack([fit.solution.coefficients(len(offset)) for fit in fits])
        meant = shares @ torch.stack([fit.foreseen.meant for fit in fits])
        return _Average(alpha.sum(0), torch.tensor([fit.variance for fit in fits], dtype=torch.float64) @ alpha, meant)

    def _doubting(self, said: Contrasts, fit: _Candidate, offset: Tensor) -> _Candidate:
        """The same, with each judgement weighed by what the others say of it."""
        lapse, solution = self.settings.lapse, fit.solution
        for _ in range(EM_STEPS):
            weighed = said.meant(solution.foresees(said, lapse).meant)
            solution = solve(weighed, fit.gram, offset, self.settings.ridge, 1, begin=solution.c, newton=solution.newton)
        return replace(fit, solution=solution, foreseen=solution.foresees(said, lapse))

    def _posterior(self, prior: RewardHead, new: WeightedSum, epoch: int) -> RewardHead:
        """The prior mean plus (I + L Lᵀ) Σ α f, on tokens that were judged or likely so far."""
        rows = new.rows
        if len(prior.tokens) == len(new.tokens):
            rows.add_(prior.rows)
        elif not prior.blank:
            rows.index_add_(0, torch.searchsorted(new.tokens, prior.tokens), prior.rows)
        shared = Shared(self.similarity.index_select(0, new.tokens), new.shared) if self.similarity.shape[1] else None
        return RewardHead(epoch, new.tokens, rows, prior.features, prior.sureness + new.sureness, shared)


@dataclass(frozen=True)
class _Candidate:
    variance: float
    gram: Tensor  # (n, n)
    solution: Solution
    odds: float  # nats by which it has to foresee better
    foreseen: Foreseen

    @property
    def loss(self) -> float:
        return self.odds + self.foreseen.loss


class _Average(NamedTuple):
    """Of fits."""

    alpha: Tensor  # (n,) coefficients of the answers' functionals …
    of_constant: Tensor  # (n,) … and of their constants
    meant: Tensor  # (m,) probability of each element of the evidence that it was meant


def _distinct(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Each name once, where it comes first; groups of no name left out."""
    seen: set[str] = set()
    found = []
    for group in groups:
        new = tuple(name for name in dict.fromkeys(group) if name not in seen)
        seen |= {*new}
        found += [new] if new else []
    return found
