"""Sampling as people set it: repetition penalty, temperature, top-k, top-p and min-p, in the order and with the meaning of transformers' `generate`.

Only what an operator sees is drawn like this. What trains the policy, and what Ĥ's strength is solved on, is plain sampling at the temperature: a
truncated distribution has no density where it was cut, so neither a KL to it nor an importance ratio is finite.

One departure: tokens that are exactly as likely as the last one kept are kept too, so that nothing depends on how a sort orders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from storage.records import Sampling


def candidates(sampling: Sampling, vocabulary: int) -> int:
    """Of the likeliest tokens of a state, how many must be looked at to draw one; 0 for plain sampling, which looks at none in particular."""
    if sampling.plain == sampling:
        return 0
    return min(sampling.top_k or vocabulary, vocabulary)


@dataclass(frozen=True)
class Truncation:
    """How the distributions of K answers are cut. Tensors of fixed shapes, and nothing waits for the device: a CUDA graph can hold this."""

    candidates: int  # the k of top-k; the vocabulary where that is off
    top_p: Tensor  # (1,)
    min_p: Tensor  # (1,)
    penalty: Tensor  # (1,) on tokens that were said
    said: Tensor  # (K, V) bool: tokens of each prompt and answer

    @staticmethod
    def blank(rows: int, vocabulary: int, candidates: int, device: torch.device) -> Truncation:
        """Cuts to the candidates alone."""
        one = torch.ones(1, device=device)
        said = torch.zeros(rows, vocabulary, dtype=torch.bool, device=device)
        return Truncation(candidates, one, torch.zeros(1, device=device), one.clone(), said)

    @staticmethod
    def of(sampling: Sampling, said: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> Truncation | None:
        """said: what each row holds so far. None for plain sampling."""
        if not (k := candidates(sampling, vocabulary)):
            return None
        rows = torch.zeros(len(said), vocabulary, dtype=torch.bool)
        for row, ids in zip(rows, said, strict=True):
            row[list(ids)] = True
        law = Truncation.blank(0, vocabulary, k, device)
        for tensor, value in ((law.top_p, sampling.top_p), (law.min_p, sampling.min_p), (law.penalty, sampling.repetition_penalty)):
            tensor.fill_(value)
        return law.over(rows.to(device))

    def over(self, said: Tensor) -> Truncation:
        """The same for other rows."""
        return Truncation(self.candidates, self.top_p, self.min_p, self.penalty, said)

    def add(self, tokens: Tensor) -> None:
        """One token (K,) of each row was said."""
        self.said.scatter_(1, tokens[:, None], 1)  # no bool: a recording takes none for a scalar

    def take(self, other: Truncation) -> None:
        """Copy another one's settings, and what its rows said into the first of these."""
        for mine, theirs in ((self.top_p, other.top_p), (self.min_p, other.min_p), (self.penalty, other.penalty)):
            mine.copy_(theirs)
        self.said[: len(other.said)] = other.said

    def logprobs(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """Logits (K, V), temperature () or (K, 1) -> log-probabilities (K, V) of the distribution to draw from; -inf for what was cut off. The
        likeliest token always stays."""
        logits = torch.where(self.said, torch.where(logits > 0, logits / self.penalty, logits * self.penalty), logits) / temperature
        whole = self.candidates == logits.shape[1]
        likeliest = logits.sort(1, descending=True).values if whole else logits.topk(self.candidates, 1).values
        probabilities = likeliest.softmax(1, dtype=torch.float32)
        likelier = probabilities.cumsum(1) - probabilities  # together
        within = (likelier < self.top_p) | (self.top_p >= 1)
        kept = within & (probabilities >= self.min_p * probabilities[:, :1])
        least = torch.where(kept, likeliest, likeliest[:, :1]).amin(1, keepdim=True)
        return logits.masked_fill(logits < least, -torch.inf).log_softmax(1)
