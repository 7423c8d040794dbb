"""How often an operator slips, recovered from operators whose slips are counted."""

from __future__ import annotations

import math
import random

import pytest

from storage.lapses import FEWEST, lapse_rate, slips_of_agreement


def foreseen(n: int, rate: float, seed: int, scale: float = 2.0) -> list[float]:
    """Margins of rankings by an operator who follows a logistic preference and turns some of them around."""
    rng = random.Random(seed)
    margins = []
    for _ in range(n):
        margin = rng.gauss(0, 1)
        follows = rng.random() < 1 / (1 + math.exp(-scale * margin))
        if rng.random() < rate:
            follows = not follows
        margins.append(margin if follows else -margin)
    return margins


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25])
def test_a_known_rate_is_inside_the_interval_nearly_always(rate: float) -> None:
    found = [lapse_rate(foreseen(250, rate, seed, scale=6.0)) for seed in range(10)]
    assert sum(each is not None and each.low <= rate <= each.high for each in found) >= 9
    assert sum(each.rate for each in found if each) / 10 == pytest.approx(rate, abs=0.04)


def test_it_is_where_a_finer_search_over_both_parameters_finds_the_most_likely() -> None:
    margins = foreseen(200, 0.15, 3, scale=5.0)

    def likelihood(rate: float, scale: float) -> float:
        return sum(math.log(rate + (1 - 2 * rate) / (1 + math.exp(-scale * m))) for m in margins)

    best = max(((likelihood(r / 200, 1.25**s), r / 200) for r in range(1, 100, 2) for s in range(-8, 24, 2)), key=lambda each: each[0])
    found = lapse_rate(margins)
    assert found is not None and found.rate == pytest.approx(best[1], abs=0.03)


def test_margins_that_say_nothing_leave_the_rate_open() -> None:
    rng = random.Random(0)
    found = lapse_rate([rng.choice((-1, 1)) * abs(rng.gauss(0, 1)) for _ in range(60)])
    assert found is not None and found.low <= 0.3 and found.high == 0.5


def test_few_rankings_say_nothing() -> None:
    assert lapse_rate([1.0] * (FEWEST - 1)) is None
    assert lapse_rate([0.0] * 50) is None and lapse_rate([]) is None
    assert lapse_rate([float("nan")] * 50) is None


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.5])
def test_slips_are_what_makes_two_judgements_of_one_question_disagree(rate: float) -> None:
    assert slips_of_agreement(rate**2 + (1 - rate) ** 2) == pytest.approx(rate)


def test_who_agrees_less_than_coins_is_taken_for_one() -> None:
    assert slips_of_agreement(0.3) == 0.5
