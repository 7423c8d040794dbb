"""Who scores answers when the operator is not looking: Ĥ, or the LoRA reward model once it predicts the operator better.

Both give an answer the mean of its tokens' rewards, scaled so that answers of the base have a standard deviation of 1, and both are scored on
each judgement before they learn from it (prequentially, Dawid 1984): that log-loss decides which of them is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from learners import losses, ops
from learners.backbone import forward
from learners.examples import Comparison
from learners.features import Seen
from learners.human_reward import RewardHead
from learners.reward import RewardModel

TokenIds = tuple[int, ...]
MICROBATCH = 16
"""Answers in one forward."""
FEWEST_COMPARISONS = 8
"""Judgements that the reward model must have been tested on before it can take over."""


class HeadJudge:
    """Ĥ as a reward: a head over the states of a tree that has no adapter."""

    def __init__(self, base_tree: nn.Module, head: RewardHead) -> None:
        self.base_tree, self.head = base_tree, head
        self.gain = 1.0

    def normalise(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> None:
        """Scale so that these answers' scores have a standard deviation of 1."""
        self.gain = 1.0
        spread = float(self.score(prompts, answers).std(correction=0))
        self.gain = 1.0 / spread if spread > 1e-9 else 1.0

    def token_shares(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Each token's share of its answer's score: (B, R)."""
        padded = ops.pad(prompts, answers, self.head.features.mean.device)
        parts = []
        for start in range(0, len(prompts), MICROBATCH):
            rows = padded.rows(slice(start, start + MICROBATCH))
            with torch.no_grad():
                output = forward(self.base_tree, rows.input_ids, rows.attention_mask, keep=rows.keep)
                parts.append(self.head.token_rewards(Seen.of(output.hidden[:, :-1], output.logits[:, :-1]), rows.answer_ids))
        lengths = padded.answer_mask.sum(1, keepdim=True).clamp_min(1)
        return self.gain * torch.cat(parts) * padded.answer_mask / lengths

    def score(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """(B,)."""
        return self.token_shares(prompts, answers).sum(1)


Judge = HeadJudge | RewardModel


class Score(NamedTuple):
    """Of one judgement that was foreseen."""

    log_loss: float  # nats, mean over pairs
    right: float  # pairs in the operator's order, a tie being half of one
    pairs: int


@dataclass
class Prequential:
    """Log-loss and pair accuracy on judgements that were not yet learned from. Recent ones weigh more: both learners improve."""

    decay: float = 0.95  # per judgement
    judgements: int = 0
    _weight: float = 0.0
    _loss: float = 0.0
    _right: float = 0.0
    _pairs: float = 0.0
    seen: set[int] = field(default_factory=set)

    def add(self, seq: int, margins: Sequence[float]) -> Score | None:
        """Score differences of untied pairs of judgement `seq`, the preferred answer's first. A judgement counts once."""
        if seq in self.seen or not margins:
            return None
        self.seen.add(seq)
        self.judgements += 1
        loss = float(softplus(-torch.tensor(margins, dtype=torch.float64)).mean())
        right = sum(1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins)
        self._weight = self.decay * self._weight + 1
        self._loss = self.decay * self._loss + loss
        self._right = self.decay * self._right + right
        self._pairs = self.decay * self._pairs + len(margins)
        return Score(loss, right, len(margins))

    @property
    def log_loss(self) -> float:
        """Nats per pair; that of a coin while nothing was seen."""
        return self._loss / self._weight if self._weight else math.log(2)

    @property
    def accuracy(self) -> float | None:
        return self._right / self._pairs if self._pairs else None


def margins_of(comparison: Comparison, scores: Sequence[float]) -> list[float]:
    """Differences of the untied compared pairs, the preferred answer's score first."""
    untied = [(i, j) if target == 1.0 else (j, i) for i, j, target in losses.compared_pairs(comparison.ranks) if target != 0.5]
    return [scores[winner] - scores[loser] for winner, loser in untied]


def better_judge(head: Prequential, model: Prequential) -> bool:
    """Whether the reward model has taken over from Ĥ."""
    return model.judgements >= FEWEST_COMPARISONS and model.log_loss < head.log_loss
