"""Prequential scores (Dawid 1984): how well a learner foresaw each judgement before it learned from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import softplus


class Score(NamedTuple):
    """Of one judgement that was foreseen."""

    log_loss: float  # nats, mean over pairs
    right: float  # pairs in the operator's order, a tie being half of one
    pairs: int
    margin: float  # mean over pairs, the preferred answer's score first


@dataclass(frozen=True)
class PrequentialScores:
    """Log-loss and pair accuracy on judgements that were not yet learned from. Recent ones weigh more: both learners improve."""

    decay: float = 0.95  # per judgement
    seen: frozenset[int] = frozenset()  # judgements that were counted
    _weight: float = 0.0
    _loss: float = 0.0
    _right: float = 0.0
    _pairs: float = 0.0

    def add(self, seq: int, margins: Sequence[float]) -> tuple[PrequentialScores, Score | None]:
        """With the score differences of untied pairs of judgement `seq`, the preferred answer's first. A judgement counts once."""
        if seq in self.seen or not margins:
            return self, None
        loss = float(softplus(-torch.tensor(margins, dtype=torch.float64)).mean())
        right = sum(1.0 if m > 0 else 0.5 if m == 0 else 0.0 for m in margins)
        kept = self.decay
        added = PrequentialScores(
            kept, self.seen | {seq}, kept * self._weight + 1, kept * self._loss + loss, kept * self._right + right, kept * self._pairs + len(margins)
        )
        return added, Score(loss, right, len(margins), sum(margins) / len(margins))

    @property
    def judgements(self) -> int:
        """How many were counted."""
        return len(self.seen)

    @property
    def log_loss(self) -> float:
        """Nats per pair; that of a coin while nothing was seen."""
        return self._loss / self._weight if self._weight else math.log(2)

    @property
    def accuracy(self) -> float | None:
        return self._right / self._pairs if self._pairs else None
