"""What Ĥ sees: features of the base's states, which next tokens the base thought likely there and how sure it was, and which tokens are similar.

All of it is fixed once per base, from samples of its own, so that a score means the same for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class FeatureSettings:
    """Constants of what Ĥ sees; chosen on simulated operators (benchmarks/teaching.py, benchmarks/pocket_teaching.py)."""

    dimensions: int = 256  # of x(s) without the constant; wider hidden states are projected to this
    constant: float = 0.25  # the last entry of x(s), beside a mean norm of 1 of the others: what a token is worth wherever it stands
    similarity_rank: int = 64  # e, of the prior covariance's factor L (V, e)
    similarity: float = 1.0  # mean of the diagonal of L Lᵀ, beside 1 for the token itself


LIKELY_TOKENS = 8
"""Next tokens that the base is asked for in each state …"""
LEAST_PROBABILITY = 0.02
"""… as far as they have this probability."""
SURENESS_SCALE = 0.3
"""What a nat of sureness counts as a feature, beside a mean norm of 1 of the state's features."""
EXACT = 2048
"""Dimensions up to which all eigenvectors are computed."""
OVERSAMPLED, POWER_ITERATIONS = 32, 3
CHUNK = 16_384
"""Rows of the LM head that are in float32 at a time."""


class Seen(NamedTuple):
    """States of the base in which tokens were chosen, and what else it would have said there."""

    hidden: Tensor  # (…, d)
    likely: Tensor  # (…, m) token ids
    probabilities: Tensor  # (…, m) at temperature 1; 0 where too small to count

    @staticmethod
    def of(hidden: Tensor, logits: Tensor) -> Seen:
        """From the last hidden states (…, d) and the next-token logits (…, V) there."""
        logits = logits.float()
        most, likely = logits.topk(min(LIKELY_TOKENS, logits.shape[-1]), -1)
        probabilities = (most - logits.logsumexp(-1, keepdim=True)).exp()
        return Seen(hidden, likely, torch.where(probabilities >= LEAST_PROBABILITY, probabilities, 0.0))

    @property
    def sureness(self) -> Tensor:
        """(…, m) log-probability of each of the likely tokens above that of the least that counts, times SURENESS_SCALE; 0 for all others."""
        return SURENESS_SCALE * (self.probabilities / LEAST_PROBABILITY).clamp_min(1.0).log()

    def alone(self) -> Seen:
        """Without what else the base would have said: what is learned, or scored, is then the reward of a token and not its advantage."""
        return self._replace(probabilities=torch.zeros_like(self.probabilities))

    def span(self, start: int, stop: int) -> Seen:
        """These positions of one answer."""
        return Seen(*(each[start:stop] for each in self))


@dataclass(frozen=True)
class Features:
    """x(s): how hidden states become features. Fixed once per base from its own samples, so that a score means the same for good."""

    mean: Tensor  # (d,)
    basis: Tensor  # (d, f): standardises, projects and scales so that the mean squared norm of the result is 1
    constant: float = 1.0  # the last entry

    @staticmethod
    def fit(hidden: Tensor, settings: FeatureSettings | None = None) -> Features:
        """From base states (N, d), on the CPU in float64: standardise each dimension; beyond `dimensions`, keep the directions of most variance."""
        settings = settings or FeatureSettings()
        states = hidden.cpu().double()
        mean = states.mean(0)
        basis = torch.diag(1.0 / states.std(0, correction=0).clamp_min(1e-6))
        if states.shape[1] > settings.dimensions:
            standardised = (states - mean) @ basis
            basis = basis @ directions_of_most_variance(standardised, settings.dimensions)
        norm = ((states - mean) @ basis).square().sum(1).mean().sqrt().clamp_min(1e-6)
        return Features(mean.float(), (basis / norm).float(), settings.constant)

    def __call__(self, hidden: Tensor) -> Tensor:
        """(…, d) -> (…, f + 1), float32, the last of them the constant."""
        projected = (hidden.float() - self.mean) @ self.basis
        return torch.cat([projected, projected.new_full((*projected.shape[:-1], 1), self.constant)], dim=-1)

    @property
    def width(self) -> int:
        """f + 1."""
        return self.basis.shape[1] + 1

    def to(self, device: torch.device) -> Features:
        return Features(self.mean.to(device), self.basis.to(device), self.constant)


def directions_of_most_variance(rows: Tensor, count: int) -> Tensor:
    """Of centred rows (N, d) the principal directions (d, count), orthonormal."""
    return leading_eigenvectors(rows.T @ rows, count) if rows.shape[1] <= EXACT else _leading(lambda x: rows.T @ (rows @ x), rows[0], count)


def leading_eigenvectors(symmetric: Tensor, count: int) -> Tensor:
    """(d, d) positive semidefinite -> (d, count), orthonormal: those of the largest eigenvalues, exact up to d = EXACT."""
    if len(symmetric) <= EXACT:
        return torch.linalg.eigh(symmetric)[1][:, -count:]
    return _leading(lambda x: symmetric @ x, symmetric[0], count)


def _leading(times: Callable[[Tensor], Tensor], like: Tensor, count: int) -> Tensor:
    """By subspace iteration from a fixed start (Halko et al. 2011, algorithm 4.4): all eigenvectors of a 7B model's 3,584 dimensions would take
    half a minute. `times` multiplies by the matrix."""
    start = torch.randn(len(like), count + OVERSAMPLED, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    subspace = torch.linalg.qr(times(start.to(like)))[0]
    for _ in range(POWER_ITERATIONS):
        subspace = torch.linalg.qr(times(subspace))[0]
    _, within = torch.linalg.eigh(subspace.T @ times(subspace))
    return subspace @ within[:, -count:]


def token_similarity(head: Tensor, settings: FeatureSettings | None = None) -> Tensor:
    """The factor L (V, e) of the prior covariance I + L Lᵀ over tokens, float32 on the CPU, from the rows of the LM head (V, d): standardised,
    projected on the directions of most variance, and scaled to `similarity`.

    Tokens whose rows are similar are those that the base finds fitting in the same places. Rows are read CHUNK at a time.
    """
    settings = settings or FeatureSettings()
    device = torch.device("cpu") if head.device.type == "mps" else head.device  # there is no float64 on Apple's GPUs

    def chunks() -> Iterator[Tensor]:
        return (chunk.to(device) for chunk in head.detach().split(CHUNK))

    mean = torch.stack([chunk.double().sum(0) for chunk in chunks()]).sum(0) / len(head)
    products = torch.zeros(head.shape[1], head.shape[1], dtype=torch.float64, device=device)
    for chunk in chunks():
        rows = chunk.float() - mean.float()
        products += (rows.T @ rows).double()
    deviation = (products.diagonal() / len(head)).sqrt().clamp_min(1e-6)
    basis = torch.diag(1.0 / deviation)
    if head.shape[1] > settings.similarity_rank:
        basis = basis @ leading_eigenvectors(products / deviation / deviation[:, None], settings.similarity_rank)
    factor = torch.cat([((chunk.float() - mean.float()) @ basis.float()).cpu() for chunk in chunks()])
    return factor.mul_((settings.similarity / factor.square().sum(1).mean().clamp_min(1e-12)).sqrt())
