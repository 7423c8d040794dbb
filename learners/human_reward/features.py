"""What Ĥ sees: features of the base's states, which next tokens the base thought likely there and how sure it was, and which tokens it takes for
alike.

All of it is fixed once per base, from samples of its own, so that a score means the same for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class FeatureSettings:
    """Constants of what Ĥ sees; chosen on simulated operators (benchmarks/teaching.py, benchmarks/pocket_teaching.py)."""

    dimensions: int = 256  # of x(s) without the constant; wider hidden states are projected to this
    constant: float = 0.25  # the last entry of x(s), beside a mean norm of 1 of the others: what a token is worth wherever it stands
    likeness: int = 64  # dimensions of the vectors that say which tokens are alike
    kinship: float = 1.0  # mean squared norm of these vectors, beside 1 for the token itself


LIKELY = 8
"""Next tokens that the base is asked for in each state …"""
LEAST = 0.02
"""… as far as they have this probability."""
NAT = 0.3
"""What a nat of sureness counts, beside a mean norm of 1 of the state's features."""


class Seen(NamedTuple):
    """States of the base in which tokens were chosen, and what else it would have said there."""

    hidden: Tensor  # (…, d)
    likely: Tensor  # (…, m) token ids
    probabilities: Tensor  # (…, m) at temperature 1; 0 where too small to count

    @staticmethod
    def of(hidden: Tensor, logits: Tensor) -> Seen:
        """From the last hidden states (…, d) and the next-token logits (…, V) there."""
        logits = logits.float()
        most, likely = logits.topk(min(LIKELY, logits.shape[-1]), -1)
        probabilities = (most - logits.logsumexp(-1, keepdim=True)).exp()
        return Seen(hidden, likely, torch.where(probabilities >= LEAST, probabilities, 0.0))

    @property
    def sureness(self) -> Tensor:
        """(…, m) how much more likely than the least that counts each of the likely tokens is, in units of 1 / NAT nats; 0 for all others."""
        return NAT * (self.probabilities / LEAST).clamp_min(1.0).log()

    def span(self, start: int, stop: int) -> Seen:
        """These positions of one answer."""
        return Seen(*(each[start:stop].cpu() for each in self))


@dataclass(frozen=True)
class Features:
    """x(s): how hidden states become features. Fixed once per base from its own samples, so that a score means the same for good."""

    mean: Tensor  # (d,)
    basis: Tensor  # (d, f): standardises, projects and scales so that the mean squared norm of the result is 1
    constant: float = 1.0  # the last entry

    @staticmethod
    def fit(hidden: Tensor, settings: FeatureSettings | None = None) -> Features:
        """From base states (N, d): standardise each dimension; beyond `dimensions`, keep the directions of most variance."""
        settings = settings or FeatureSettings()
        states = hidden.double()
        mean = states.mean(0)
        basis = torch.diag(1.0 / states.std(0, correction=0).clamp_min(1e-6))
        if states.shape[1] > settings.dimensions:
            standardised = (states - mean) @ basis
            _, directions = torch.linalg.eigh(standardised.T @ standardised)
            basis = basis @ directions[:, -settings.dimensions :]
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


def likeness(head: Tensor, settings: FeatureSettings | None = None) -> Tensor:
    """Vectors (V, e) of the tokens, from the rows of the LM head (V, d): standardised, projected, and scaled to `kinship`.

    Tokens whose rows are alike are those that the base finds fitting in the same places.
    """
    settings = settings or FeatureSettings()
    rows = head.float() - head.float().mean(0)
    rows = rows / rows.std(0, correction=0).clamp_min(1e-6)
    if rows.shape[1] > settings.likeness:
        _, directions = torch.linalg.eigh((rows.T @ rows).double())
        rows = rows @ directions[:, -settings.likeness :].float()
    return rows * (settings.kinship / rows.square().sum(1).mean().clamp_min(1e-12)).sqrt()
