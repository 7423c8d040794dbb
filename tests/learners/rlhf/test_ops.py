"""The arithmetic against oracles written another way: loops, brute force, moments, finite sums."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learners.rlhf import ops


def lengths_mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


@st.composite
def answers(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and a mask of two to five answers of one to seven tokens, garbage outside the mask."""
    lengths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    mask = lengths_mask(lengths, 7)
    rewards, values = torch.randn(2, *mask.shape, generator=generator, dtype=torch.float64)
    return rewards, values, mask


def test_both_kl_estimators_are_unbiased() -> None:
    p, q = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64).log_softmax(1)
    exact = (p.exp() * (p - q)).sum()
    for estimator in (ops.kl_k1, ops.kl_k3):
        assert torch.allclose((p.exp() * estimator(p, q)).sum(), exact)
    assert (ops.kl_k3(p, q) >= 0).all()


@given(answers())
def test_whitened_values_have_mean_zero_and_variance_one(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    values, _, mask = batch
    inside = ops.masked_whiten(values, mask)[mask].tolist()
    assert sum(inside) / len(inside) == pytest.approx(0, abs=1e-6)
    assert sum(x * x for x in inside) / len(inside) == pytest.approx(1, abs=1e-4)


@given(answers(), st.floats(-50, 50), st.floats(0.1, 50))
def test_whitening_ignores_level_and_scale_and_what_is_masked_out(batch: tuple[Tensor, Tensor, Tensor], shift: float, scale: float) -> None:
    values, garbage, mask = batch
    moved = torch.where(mask, values * scale + shift, garbage * 1e6)
    whitened = ops.masked_whiten(values, mask)
    spread = float(values[mask].var(correction=0)) * min(1.0, scale) ** 2
    floor = float(whitened.abs().max()) * 1e-8 / spread  # what the 1e-8 that is added to a variance can do to the smaller of the two
    assert torch.allclose(ops.masked_whiten(moved, mask), whitened, atol=1e-6 + floor)
    assert (ops.masked_whiten(values, mask)[~mask] == 0).all()


def test_whitening_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        ops.masked_whiten(torch.ones(2, 3), lengths_mask([1, 0], 3))


def test_the_mean_of_a_share_divides_by_the_whole() -> None:
    values, mask = torch.arange(6.0).view(2, 3), lengths_mask([2, 3], 3)
    whole = ops.masked_mean(values, mask)
    shares = sum(ops.masked_mean(values[i : i + 1], mask[i : i + 1], count=5.0) for i in range(2))
    assert whole.item() == pytest.approx((0 + 1 + 3 + 4 + 5) / 5)
    assert torch.allclose(torch.as_tensor(shares), whole)
    assert ops.masked_mean(values, mask & False).item() == 0


@given(answers())
def test_perfect_values_explain_all_variance_and_constants_none(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    returns, _, mask = batch
    assert ops.explained_variance(returns + 3.0, returns, mask).item() == pytest.approx(1)
    assert ops.explained_variance(torch.full_like(returns, 7.0), returns, mask).item() == pytest.approx(0, abs=1e-9)


def test_the_score_goes_on_the_last_token_not_after_it() -> None:
    mask = lengths_mask([2, 3, 1, 0], 3)
    shares = ops.on_last_token(torch.tensor([1.0, -1.0, 5.0, 7.0]), mask)
    assert shares.tolist() == [[0, 1, 0], [0, 0, -1], [5, 0, 0], [0, 0, 0]]


def test_the_kl_term_is_taken_off_every_token() -> None:
    mask = lengths_mask([2, 3], 3)
    log_ratios = torch.tensor([[0.1, 0.2, 9.0], [-0.3, 0.4, 0.5]])
    rewards = ops.per_token_rewards(torch.tensor([[0.0, 1.0, 9.0], [1.0, 2.0, 3.0]]), log_ratios, mask, 2.0)
    assert torch.allclose(rewards, torch.tensor([[-0.2, 0.6, 0.0], [1.6, 1.2, 2.0]]))


@settings(deadline=None)
@given(answers(), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_the_discounted_sum_of_temporal_differences(batch: tuple[Tensor, Tensor, Tensor], gamma: float, lam: float) -> None:
    rewards, values, mask = batch
    advantages, returns = ops.generalised_advantages(rewards, values, mask, gamma, lam)
    for i, length in enumerate(mask.sum(1).tolist()):
        r, v = rewards[i].tolist(), [*values[i, :length].tolist(), 0.0]
        for t in range(length):
            errors = [r[k] + gamma * v[k + 1] - v[k] for k in range(t, length)]
            expected = sum((gamma * lam) ** n * error for n, error in enumerate(errors))
            assert advantages[i, t].item() == pytest.approx(expected, abs=1e-9)
            assert returns[i, t].item() == pytest.approx(expected + v[t], abs=1e-9)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()


@given(answers())
def test_with_lambda_one_the_returns_are_the_rewards_to_come(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    rewards, values, mask = batch
    _, returns = ops.generalised_advantages(rewards, values, mask, 1.0, 1.0)
    for i, length in enumerate(mask.sum(1).tolist()):
        for t in range(length):
            assert returns[i, t].item() == pytest.approx(sum(rewards[i, t:length].tolist()), abs=1e-9)


def test_the_kl_coefficient_rises_above_the_target_and_falls_below_it_by_a_bounded_step() -> None:
    assert ops.adapted_kl_coefficient(0.1, 6.0, 6.0, 16) == 0.1
    assert ops.adapted_kl_coefficient(0.1, 6.6, 6.0, 20, horizon=200) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert ops.adapted_kl_coefficient(0.1, 600.0, 6.0, 20, horizon=200) == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    assert ops.adapted_kl_coefficient(0.1, -5.0, 6.0, 20, horizon=200) == pytest.approx(0.1 * (1 - 0.2 * 0.1))


def test_where_the_policy_follows_the_coefficient_late_the_kl_settles_at_the_target_and_without_damping_swings() -> None:
    """A policy whose KL moves by at most 15 % in a batch towards where the coefficient is worth it, which at the target is 0.5."""

    def last_errors(damped: bool) -> list[float]:
        kl, integral, errors = 3.0, 0.4, []
        for _ in range(120):
            applied = ops.damped_kl_coefficient(integral, kl, 8.5) if damped else integral
            errors.append(abs(kl / 8.5 - 1))
            integral = ops.adapted_kl_coefficient(integral, kl, 8.5, 32, horizon=60)
            kl *= 1 + 0.15 * min(1.0, max(-1.0, 1 - applied / 0.5))
        return errors[-60:]

    assert max(last_errors(True)) < 0.1
    assert max(last_errors(False)) > 0.3


def test_warmup_rises_to_one_and_stays() -> None:
    assert [ops.warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert ops.warmup(0, 0) == 1


def test_narrow_models_take_larger_steps() -> None:
    assert ops.rate_for_width(1e-4, 2000) == 1e-4
    assert ops.rate_for_width(1e-4, 64) > ops.rate_for_width(1e-4, 4096) > 0
