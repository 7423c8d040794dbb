"""Sampling as people set it: repetition penalty, top-k, top-p and min-p, in the order and with the meaning of transformers' `generate`.

Only what an operator sees is drawn like this. What trains the policy, and what Ĥ's strength is solved on, is plain sampling at the temperature: a
truncated distribution has no density where it was cut, so neither a KL to it nor an importance ratio is finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from storage.records import Sampling


def truncates(sampling: Sampling) -> bool:
    """Whether answers are drawn from anything else than the plain distribution at the temperature."""
    return bool(sampling.top_k) or sampling.top_p < 1 or sampling.min_p > 0 or sampling.repetition_penalty != 1


def truncated(logits: Tensor, sampling: Sampling, said: Tensor | None = None) -> Tensor:
    """Logits (K, V), without the temperature -> log-probabilities (K, V) of the distribution to draw from, float32; -inf for what was cut off.

    said: (K, V) bool, the tokens of each row's prompt and answer so far, for the repetition penalty (Keskar et al. 2019). The likeliest token is
    always kept. No value leaves the device and all shapes are fixed, so that a CUDA graph can hold this.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1 and said is not None:
        penalty = sampling.repetition_penalty
        logits = torch.where(said, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        least = logits.topk(sampling.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    if sampling.min_p > 0:
        probabilities = logits.softmax(1)
        logits = logits.masked_fill(probabilities < sampling.min_p * probabilities.amax(1, keepdim=True), -torch.inf)
    return logits.log_softmax(1)


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The fewest likeliest tokens that together have the probability `top_p` (Holtzman et al. 2020)."""
    ascending, places = logits.sort(dim=1)
    beyond = ascending.softmax(1).cumsum(1) <= 1 - top_p
    beyond[:, -1] = False
    return logits.masked_fill(beyond.scatter(1, places, beyond), -torch.inf)


def said_tokens(rows: list[list[int]], vocabulary: int, device: torch.device) -> Tensor:
    """(K, V) bool: the tokens that each row holds."""
    said = torch.zeros(len(rows), vocabulary, dtype=torch.bool)
    for row, ids in zip(said, rows, strict=True):
        row[ids] = True
    return said.to(device)
