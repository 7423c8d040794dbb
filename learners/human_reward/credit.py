"""Credit: where a fit of Ĥ may begin. Of what whole answers earned, how much the choice of each token brought.

An experiment, which the engine does not use: by the taste of words it wins more, and answers that were trained with it are less often true
(docs/learning.md). `benchmarks/sittings.py --credit` plays it.

A ranking says which answers were better; Ĥ is to say which tokens made them so. Fitted to advantages alone (fit.py) an answer is one number, the mean
over all its tokens. Three linear problems with exact solutions get more from the same judgements, since an operator sees where an answer has got to,
and the base's states tell that after every token:

    1. rewards      r(s, a) = w_a · x(s), the mean of which over an answer's tokens is its score: Ĥ's model, fitted to the same judgements
    2. a value      V(s) = v · x(s), ridge regression on the discounted rewards that followed, Σ γ^k r_{t+k}
    3. advantages   w_a of each token that was said, and what sureness is worth, ridge regression on x(s_t) and on how much surer the base was of the
                    token than of others, of Σ (γλ)^k δ_{t+k}, δ_t = r_t + γ V(s_{t+1}) - V(s_t)

The third is the prior mean of Ĥ's fit, which then corrects it where it orders answers otherwise than the operator did. All of it is a function of the
judgements alone: undo and restart give the same bits.

After Sutton 1988 (temporal differences) and Schulman et al. 2016 (generalised advantage estimation). What differs: the rewards are themselves
learned from comparisons, and advantages are regressed on states and tokens in closed form, where PPO takes steps of a policy along them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from learners.human_reward.fit import Block, HumanReward
from learners.human_reward.gram import LinearFunctional, union
from learners.human_reward.head import RewardHead, lookup
from learners.human_reward.likelihood import Level, mentioned


@dataclass(frozen=True)
class CreditSettings:
    """Constants; chosen on simulated operators of six tastes (docs/learning.md)."""

    discount: float = 0.95  # γ: what comes more than some twenty tokens later is hardly this token's doing
    trace: float = 0.9  # λ: how far rewards that came are believed more than V
    value_ridge: float = 1.0  # beside features of a mean squared norm of 1 in each position
    ridge: float = 3.0  # of a token's advantages: so many positions' worth of the prior mean
    share: float = 0.25  # of these advantages in the prior mean: what the fit itself finds of facts and their context stays the larger part
    unfinished: int = 24  # tokens at an answer's end, half of it at most, after which too little came to learn V from
    positions: int = 8192  # of the newest answers; older ones are in the prior mean, or in the fit alone


KEPT_BEGINNINGS = 2
"""An undo asks for the one before."""


class Answer(NamedTuple):
    """Of T tokens."""

    states: Tensor  # (T, f + 1)
    tokens: Tensor  # (T,)
    sureness: Tensor  # (T,)


class Credit:
    """Belongs to one `HumanReward`, whose answers it is told of."""

    def __init__(self, rewards: HumanReward, settings: CreditSettings | None = None) -> None:
        """rewards: a fit of its own, to rewards, that knows nothing yet."""
        self._rewards, self._settings = rewards, settings or CreditSettings()
        self._whole: list[tuple[Block, Block]] = []  # blocks, and what they say of whole answers
        self._answers: dict[str, Answer] = {}
        self._begun: deque[tuple[list[Block], RewardHead, int, RewardHead]] = deque(maxlen=KEPT_BEGINNINGS)

    def add(self, name: str, functional: LinearFunctional, sureness: Tensor) -> None:
        """An answer's mean reward, one term a token; how much surer the base was of each than of others, (T,)."""
        self._answers[name] = Answer(functional.states, functional.tokens, sureness)
        self._rewards.add(name, functional)

    def keep(self, names: Collection[str]) -> None:
        """Drop all other answers."""
        self._answers = {name: answer for name, answer in self._answers.items() if name in names}
        self._rewards.keep(names)

    def begin(self, blocks: Sequence[Block], prior: RewardHead) -> RewardHead:
        """The prior mean of the last of these blocks, where `prior` is the head of the one before; that itself where no whole answers were judged."""
        *before, newest = self._of_whole(blocks)
        return self._begun_at([*before, first_of(newest, mark(len(newest.evidence)))], prior)

    def look_ahead(self, blocks: Sequence[Block], prior: RewardHead) -> None:
        """Find what the next judgement will ask for, where that is known before it is there: it asks in vain for nothing but time."""
        *before, newest = self._of_whole(blocks)
        if (first := mark(len(newest.evidence) + 1)) <= len(newest.evidence):
            self._begun_at([*before, first_of(newest, first)], prior)

    def _begun_at(self, marked: list[Block], prior: RewardHead) -> RewardHead:
        names = [name for group in marked[-1].groups for name in group]
        known = sum(name in self._answers for name in names)
        for like, of, of_known, begun in self._begun:
            if (of is prior or (of.blank and prior.blank)) and of_known == known and like == marked:
                return begun
        head = self._rewards.fit_blocks(marked, 0)
        answers = self._newest(names)
        begun = prior if head.blank or not answers else _moved(prior, self._settings.share, *advantages(head, prior, answers, self._settings))
        self._begun.append((marked, prior, known, begun))
        return begun

    def _of_whole(self, blocks: Sequence[Block]) -> list[Block]:
        """Without taps and silence, which are about words; made once of each block."""
        for i, block in enumerate(blocks):
            if i < len(self._whole) and self._whole[i][0] is block:
                continue
            del self._whole[i:]
            evidence = tuple(item for item in block.evidence if not (isinstance(item, Level) and item.weight < 1))
            self._whole.append((block, Block(tuple(tuple(sorted(mentioned(item))) for item in evidence), evidence)))
        return [whole for _, whole in self._whole[: len(blocks)]]

    def _newest(self, names: Sequence[str]) -> list[Answer]:
        """Those that are known, in this order, at most `positions` tokens together."""
        found, room = [], self._settings.positions
        for name in reversed(dict.fromkeys(name for name in names if name in self._answers)):
            answer = self._answers[name]
            room -= len(answer.tokens)
            if room < 0:
                break
            if len(answer.tokens) > 1:
                found.append(answer)
        return found[::-1]


def mark(judgements: int) -> int:
    """Of so many judgements the first ones that a beginning is made of: all of up to 16; of more all but an eighth at most, and never the newest, so
    that it can be made before that one is there. With a hundred it is made anew every eighth time, and yet depends on nothing but the judgements."""
    if judgements <= 16:
        return judgements
    step = 1 << (judgements.bit_length() - 4)
    return (judgements - 1) // step * step


def first_of(block: Block, judgements: int) -> Block:
    """Of a block of whole answers the first judgements."""
    return block if judgements == len(block.evidence) else Block(block.groups[:judgements], block.evidence[:judgements])


def _moved(prior: RewardHead, share: float, tokens: Tensor, rows: Tensor, sureness: float) -> RewardHead:
    """A head with a share of these rows added to those of its tokens, and of this to what sureness is worth."""
    every = union(prior.tokens, tokens)
    found = rows.new_zeros(len(every), rows.shape[1])
    found[torch.searchsorted(every, prior.tokens)] = prior.weights
    found.index_add_(0, torch.searchsorted(every, tokens), rows, alpha=share)
    return replace(prior, tokens=every, rows=found, shared=None, sureness=prior.sureness + share * sureness)


def advantages(head: RewardHead, prior: RewardHead, answers: Sequence[Answer], settings: CreditSettings) -> tuple[Tensor, Tensor, float]:
    """Of rewards (`head`) and answers: the tokens (S,) that were said before another one, by how much their rows (S, f + 1) of advantages differ from
    those of `prior`, and by how much what sureness is worth does."""
    lengths = torch.tensor([len(answer.tokens) for answer in answers])
    places = torch.arange(int(lengths.max()))
    said = places < lengths[:, None]  # (B, T)
    followed = places < lengths[:, None] - 1
    finished = places < (lengths - (lengths // 2).clamp_max(settings.unfinished))[:, None]
    states = torch.cat([answer.states for answer in answers])  # (N, f + 1)
    ids = torch.cat([answer.tokens for answer in answers]).long()

    def table(values: Tensor) -> Tensor:
        """(N,) -> (B, T), 0 beyond an answer's end."""
        return pad_sequence(list(values.split(lengths.tolist())), batch_first=True)

    rewards = table(_row_rewards(head, ids, states))
    known = finished[said]
    inputs, returns = states[known], discounted(rewards, settings.discount)[said][known]
    weights = torch.linalg.solve(inputs.T @ inputs + settings.value_ridge * torch.eye(inputs.shape[1]), inputs.T @ returns)
    value = table(states @ weights)
    surprise = torch.zeros_like(rewards)
    surprise[:, :-1] = (rewards[:, :-1] + settings.discount * value[:, 1:] - value[:, :-1]) * followed[:, :-1]
    targets = discounted(surprise, settings.discount * settings.trace)[said]
    known, surer = followed[said], torch.cat([answer.sureness for answer in answers])
    targets = targets - _row_rewards(prior, ids, states) - prior.sureness * surer
    return with_sureness(states[known], ids[known], targets[known], surer[known], settings.ridge)


def with_sureness(states: Tensor, token_ids: Tensor, targets: Tensor, sureness: Tensor, ridge: float) -> tuple[Tensor, Tensor, float]:
    """As `ridge_by_token`, with a number u for all tokens: minimises Σ (w · x + u · sureness - target)² + ridge · (Σ |w|² + u²).

    For a given u the rows are those of the targets less u times those of sureness, and what is left of both is what u is solved on.
    """
    tokens, rows = ridge_by_token(states, token_ids, targets, ridge)
    _, of_sureness = ridge_by_token(states, token_ids, sureness, ridge)
    place = torch.searchsorted(tokens, token_ids)
    left, of_itself = (each - (part[place] * states).sum(1) for each, part in ((targets, rows), (sureness, of_sureness)))
    u = float(sureness @ left) / (float(sureness @ of_itself) + ridge)
    return tokens, rows - u * of_sureness, u


def discounted(values: Tensor, discount: float) -> Tensor:
    """(B, T) -> (B, T): each with those that follow it, Σ discount^k · value_{t+k}."""
    found, total = torch.empty_like(values), values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        total = values[:, t] + discount * total
        found[:, t] = total
    return found


def ridge_by_token(states: Tensor, token_ids: Tensor, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """For each distinct token the row w that minimises Σ (w · x - target)² + ridge · |w|² over its positions.

    states: (N, f). token_ids, targets: (N,). Returns the tokens (S,), sorted, and their rows (S, f). Tokens of about as many positions are solved
    together, in the positions or in the features, whichever are fewer.
    """
    order = torch.argsort(token_ids, stable=True)
    tokens, counts = torch.unique_consecutive(token_ids[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    rows = states.new_zeros(len(tokens), states.shape[1])
    for members, most in _alike(counts):
        places = torch.arange(most)
        there = places < counts[members, None]
        positions = order[(starts[members, None] + places * there)]
        x = states[positions] * there[..., None]  # (m, most, f)
        y = (targets[positions] * there)[..., None]
        if most <= states.shape[1]:
            rows[members] = (x.mT @ _solved(x @ x.mT, y, ridge))[..., 0]
        else:
            rows[members] = _solved(x.mT @ x, x.mT @ y, ridge)[..., 0]
    return tokens, rows


def _alike(counts: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Places of tokens with at most 1, 2, 4, … positions, more than the ones before; and so many."""
    most = 1
    while len(counts) and most < 2 * int(counts.max()):
        members = ((counts <= most) & (counts > most // 2)).nonzero()[:, 0]
        if len(members):
            yield members, most
        most *= 2


def _solved(products: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """(K + ridge)⁻¹ y of a batch."""
    matrix = products.double() + ridge * torch.eye(products.shape[-1], dtype=torch.float64)
    return torch.cholesky_solve(wanted.double(), torch.linalg.cholesky(matrix)).to(wanted)


def _row_rewards(head: RewardHead, token_ids: Tensor, states: Tensor) -> Tensor:
    """w_a · x of each (N,)."""
    if head.blank:
        return states.new_zeros(len(states))
    slots, known = lookup(head.tokens, token_ids)
    return (head.weights[slots] * states).sum(1) * known
