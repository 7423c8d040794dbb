"""The losses against brute force, finite differences and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learners.rlhf import losses

rankings = st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=2, max_size=6)


def scores_for(ranks: list[int | None], seed: int) -> Tensor:
    return torch.randn(len(ranks), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(scores: list[float], ranks: list[int | None]) -> float:
    """Cross-entropy of every ordered comparison of two answers, counted from both sides."""
    total, n = 0.0, 0
    for i, a in enumerate(ranks):
        for j, b in enumerate(ranks):
            if i == j or (a is None and b is None):
                continue
            beats = 1 / (1 + math.exp(scores[j] - scores[i]))
            if a == b:
                total -= 0.5 * math.log(beats)
            elif b is None or (a is not None and a < b):
                total -= math.log(beats)
            n += 1
    return total / (n / 2) if n else 0.0


def numeric_gradient(function, x: Tensor, step: float = 1e-6) -> Tensor:
    gradient = torch.zeros_like(x)
    for index in range(x.numel()):
        plus, minus = x.clone(), x.clone()
        plus.view(-1)[index] += step
        minus.view(-1)[index] -= step
        gradient.view(-1)[index] = (function(plus) - function(minus)) / (2 * step)
    return gradient


def gradient_of(function, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    function(x).backward()
    assert x.grad is not None
    return x.grad


# --- Bradley-Terry ---------------------------------------------------------------------------------------------------


def cost(scores: Tensor, *rankings: list[int | None]) -> Tensor:
    """In the precision of the scores."""
    answers, *rest = losses.Pairs.of(rankings)
    return losses.bradley_terry(scores, losses.Pairs(answers, *(each.to(scores.dtype) for each in rest)))


def one_by_one(scores: Tensor, rankings: list[list[int | None]]) -> Tensor:
    """Each ranking by itself: the mean over its pairs."""
    total = scores.sum() * 0.0
    for each, ranks in zip(scores.split([*map(len, rankings)]), rankings, strict=True):
        costs = [
            -(t * (each[i] - each[j]).sigmoid().log() + (1 - t) * (each[j] - each[i]).sigmoid().log()) for i, j, t in losses.compared_pairs(ranks)
        ]
        total = total + (torch.stack(costs).mean() if costs else 0.0)
    return total


@given(rankings, st.integers(0, 1000))
def test_a_ranking_costs_the_mean_over_its_pairs(ranks: list[int | None], seed: int) -> None:
    scores = scores_for(ranks, seed)
    assert cost(scores, ranks).item() == pytest.approx(brute_force(scores.tolist(), ranks), abs=1e-9)


@given(rankings, st.integers(0, 1000), st.floats(-20, 20))
def test_a_constant_added_to_all_scores_changes_nothing(ranks: list[int | None], seed: int, shift: float) -> None:
    scores = scores_for(ranks, seed)
    assert cost(scores + shift, ranks).item() == pytest.approx(cost(scores, ranks).item(), abs=1e-9)


@given(rankings, st.integers(0, 1000), st.randoms())
def test_the_order_in_which_answers_are_listed_changes_nothing(ranks: list, seed: int, random) -> None:
    scores = scores_for(ranks, seed)
    order = list(range(len(ranks)))
    random.shuffle(order)
    shuffled = cost(scores[order], [ranks[i] for i in order])
    assert shuffled.item() == pytest.approx(cost(scores, ranks).item(), abs=1e-9)


def test_a_tie_pulls_two_scores_together_and_a_win_apart() -> None:
    scores = torch.tensor([1.0, 0.0])
    tie = gradient_of(lambda s: cost(s, [1, 1]), scores)
    win = gradient_of(lambda s: cost(s, [1, 2]), scores)
    assert tie[0] > 0 > tie[1]
    assert win[0] < 0 < win[1]


def test_unmentioned_answers_lose_to_mentioned_ones_and_are_not_compared() -> None:
    pairs = losses.compared_pairs([None, 1, None, 2])
    assert pairs == [(0, 1, 0.0), (0, 3, 0.0), (1, 2, 1.0), (1, 3, 1.0), (2, 3, 0.0)]


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(1, 4)), min_size=1, max_size=5), min_size=1, max_size=5), st.integers(0, 1000))
def test_rankings_side_by_side_cost_what_they_cost_one_by_one_and_pull_the_same(rankings: list[list[int | None]], seed: int) -> None:
    scores = torch.randn(sum(map(len, rankings)), generator=torch.Generator().manual_seed(seed))
    assert cost(scores, *rankings).item() == pytest.approx(one_by_one(scores, rankings).item(), abs=1e-6, rel=1e-6)
    ours, theirs = gradient_of(lambda s: cost(s, *rankings), scores), gradient_of(lambda s: one_by_one(s, rankings), scores)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_ranking_without_a_pair_costs_nothing_and_can_be_differentiated() -> None:
    assert gradient_of(lambda s: cost(s, [None, None]), torch.ones(2)).tolist() == [0, 0]


def test_right_order_counts_untied_pairs() -> None:
    assert losses.right_order(torch.tensor([3.0, 2.0, 1.0]), [1, 1, 2]) == (2, 2)
    assert losses.right_order(torch.tensor([1.0, 2.0, 3.0]), [1, 2, None]) == (0, 3)
    assert losses.right_order(torch.tensor([1.0, 1.0]), [1, 2]) == (0, 1)


# --- policies --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, old ones, advantages and mask of two answers."""
    generator = torch.Generator().manual_seed(3)
    new, old, advantages = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    return new * 0.4, old * 0.4, advantages, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)


def test_the_policy_loss_is_the_pessimistic_one_of_each_token(tokens: tuple[Tensor, ...]) -> None:
    new, old, advantages, mask = tokens
    found = losses.clipped_policy_loss(new, old, advantages, mask, 0.2)
    expected, outside = [], 0
    for i, t in mask.nonzero().tolist():
        ratio = math.exp(new[i, t] - old[i, t])
        a = advantages[i, t].item()
        expected.append(-min(a * ratio, a * min(max(ratio, 0.8), 1.2)))
        outside += abs(ratio - 1) > 0.2
    assert found.loss.item() == pytest.approx(sum(expected) / 6)
    assert found.clip_fraction.item() == pytest.approx(outside / 6)


def test_the_policy_gradient_agrees_with_finite_differences(tokens: tuple[Tensor, ...]) -> None:
    new, old, advantages, mask = tokens

    def loss(x: Tensor) -> Tensor:
        return losses.clipped_policy_loss(x, old, advantages, mask, 0.2).loss

    assert torch.allclose(gradient_of(loss, new), numeric_gradient(loss, new), atol=1e-6)


def test_where_nothing_moved_the_gradient_is_that_of_reinforce(tokens: tuple[Tensor, ...]) -> None:
    _, old, advantages, mask = tokens
    found = gradient_of(lambda x: losses.clipped_policy_loss(x, old, advantages, mask, 0.2).loss, old)
    assert torch.allclose(found, -advantages * mask / 6)


def test_a_huge_change_of_probability_stays_finite() -> None:
    far = losses.clipped_policy_loss(torch.full((1, 1), 500.0), torch.zeros(1, 1), -torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), 0.2)
    assert far.loss.isfinite()


def test_the_value_loss_takes_the_worse_of_clipped_and_free(tokens: tuple[Tensor, ...]) -> None:
    values, old, returns, mask = tokens
    expected = []
    for i, t in mask.nonzero().tolist():
        v, o, r = values[i, t].item(), old[i, t].item(), returns[i, t].item()
        expected.append(0.5 * max((v - r) ** 2, (min(max(v, o - 0.2), o + 0.2) - r) ** 2))
    assert losses.clipped_value_loss(values, old, returns, mask, 0.2).item() == pytest.approx(sum(expected) / 6)


def test_losses_summed_over_microbatches_are_the_loss_of_the_minibatch(tokens: tuple[Tensor, ...]) -> None:
    new, old, advantages, mask = tokens
    whole = losses.clipped_policy_loss(new, old, advantages, mask, 0.2).loss
    parts = [losses.clipped_policy_loss(new[i : i + 1], old[i : i + 1], advantages[i : i + 1], mask[i : i + 1], 0.2, 6.0) for i in (0, 1)]
    assert (parts[0].loss + parts[1].loss).item() == pytest.approx(whole.item())


def test_scores_are_pulled_to_their_targets_by_squares_as_strongly_as_is_said() -> None:
    assert losses.squared_error(torch.tensor([1.0, -3.0]), torch.zeros(2), torch.full((2,), 0.5)).item() == 5
    assert losses.squared_error(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.25])).item() == 2
