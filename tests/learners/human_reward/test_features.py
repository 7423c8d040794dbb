"""What Ĥ sees of wide models: directions found by subspace iteration against those of all eigenvectors."""

from __future__ import annotations

import pytest
import torch

from learners.human_reward import features
from learners.human_reward.features import Features, FeatureSettings, token_similarity


def spread(rows: int, width: int, power: float) -> torch.Tensor:
    """Rows whose variance falls off as hidden states' does."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return torch.randn(rows, width, generator=generator) * torch.arange(1, width + 1) ** -power @ mixing


def variance(rows: torch.Tensor, directions: torch.Tensor) -> float:
    return float((rows.double() @ directions).square().sum())


@pytest.mark.parametrize(("rows", "power"), [(100, 0.5), (600, 1.0)])
def test_of_a_wide_model_nearly_all_variance_is_found(rows: int, power: float, monkeypatch: pytest.MonkeyPatch) -> None:
    states = spread(rows, 300, power).double()
    exact = features.directions_of_most_variance(states, 40)
    monkeypatch.setattr(features, "EXACT", 0)
    found, again = (features.directions_of_most_variance(states, 40) for _ in range(2))
    assert torch.equal(found, again), "the same wherever it is computed again"
    assert torch.allclose(found.T @ found, torch.eye(40, dtype=torch.float64), atol=1e-9)
    assert variance(states, found) > 0.995 * variance(states, exact)


def test_features_and_likeness_of_a_wide_model_are_nearly_those_of_a_narrow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    states, head = spread(400, 300, 1.0), spread(500, 300, 1.0)
    settings = FeatureSettings(dimensions=40, similarity_rank=20)
    exact, likeness = Features.fit(states, settings), token_similarity(head, settings)
    monkeypatch.setattr(features, "EXACT", 0)
    found, similar = Features.fit(states, settings), token_similarity(head, settings)
    for one, other in ((exact(states), found(states)), (likeness, similar)):
        products, others = one @ one.T, other @ other.T
        assert float((products - others).norm() / products.norm()) < 0.1
