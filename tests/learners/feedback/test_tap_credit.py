"""Credit of taps, against the author's own figure, an integral done by hand, and properties."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learners.feedback.tap_credit import Gamma, Uniform, aggregate_label, credit, used_credit

AUTHOR = Uniform(0.2, 0.8)


def test_the_authors_figure() -> None:
    taps = [(3.40, 2.0), (3.85, 2.0), (4.10, 2.0)]
    assert [AUTHOR.mass(t - 3.45, t - 3.25) for t, _ in taps] == pytest.approx([0, 1 / 3, 1 / 4])
    assert used_credit(3.25, 3.45, 3.9, AUTHOR) == pytest.approx(0.583333, abs=1e-6)
    assert aggregate_label(3.25, 3.45, taps, 3.9, AUTHOR) == pytest.approx(1.142857, abs=1e-6)
    assert aggregate_label(3.25, 3.45, taps, 10.0, AUTHOR) == pytest.approx(1.166667, abs=1e-6)


@given(st.floats(0.01, 2), st.floats(0.05, 2), st.floats(-1, 4), st.floats(0, 1))
def test_used_credit_is_the_share_of_all_taps_about_a_step_that_would_have_come(step: float, width: float, now: float, low: float) -> None:
    window = Uniform(low, low + width)
    n = 400  # the chance that a tap about a moment of the step has come by now, by adding up moments
    moments = [(i + 0.5) / n * step for i in range(n)]
    come = sum(min(1.0, max(0.0, (now - moment - low) / width)) for moment in moments) / n
    assert used_credit(0.0, step, now, window) == pytest.approx(come, abs=0.01)


windows = st.one_of(
    st.builds(lambda low, width: Uniform(low, low + width), st.floats(0, 1), st.floats(0.05, 4)),
    st.builds(Gamma, st.floats(0.5, 9), st.floats(0.02, 0.5)),
)


@given(windows, st.floats(0.02, 0.5), st.integers(0, 10**6))
def test_steps_without_a_gap_that_cover_the_window_get_all_of_it(window: Uniform | Gamma, step: float, seed: int) -> None:
    tap, rng = 1000.0, random.Random(seed)
    ends = [tap, tap - 0.5 * step]  # the newest word has not been there longer than words usually are: beyond that it counts as over
    while ends[-1] > tap - window.end - 5:
        ends.append(ends[-1] - step * rng.uniform(0.5, 1.5))
    shown = ends[:0:-1]
    raw = [window.mass(tap - b, tap - a) for a, b in zip(shown, [*shown[1:], tap], strict=True)]
    assert math.fsum(raw) == pytest.approx(1, abs=2e-3)
    found = credit(tap, shown, window)
    assert math.fsum(found.shares) == pytest.approx(1) and found.usable


@given(st.floats(0.5, 12), st.floats(0.02, 1), st.floats(0, 8))
def test_the_gamma_window_is_the_incomplete_gamma_function(shape: float, scale: float, seconds: float) -> None:
    expected = torch.special.gammainc(torch.tensor(shape, dtype=torch.float64), torch.tensor(seconds / scale, dtype=torch.float64))
    assert Gamma(shape, scale).mass(0, seconds) == pytest.approx(float(expected), abs=1e-9)


def test_shares_do_not_depend_on_how_fast_tokens_come() -> None:
    slow = credit(10.0, [i * 0.25 for i in range(41)], AUTHOR)
    fast = credit(10.0, [i * 0.05 for i in range(201)], AUTHOR)
    half_second_ago = [sum(share for i, share in enumerate(f.shares) if 9.25 <= i * step < 9.5) for f, step in ((slow, 0.25), (fast, 0.05))]
    assert half_second_ago[0] == pytest.approx(half_second_ago[1])


def test_what_came_before_the_answer_is_not_its_fault() -> None:
    shown = [10.0, 10.2, 10.4]
    assert not credit(10.3, shown, AUTHOR).usable  # five sixths of the window lie before the first word
    assert credit(10.9, shown, AUTHOR).usable
    assert not credit(9.0, shown, AUTHOR).usable and not credit(5.0, [], AUTHOR).usable


def test_a_tap_long_after_the_end_is_about_no_word() -> None:
    shown = [0.0, 0.2, 0.4]  # the last word's turn ends at 0.6
    assert credit(1.39, shown, AUTHOR).usable
    assert not credit(1.41, shown, AUTHOR).usable


def test_what_appears_after_the_tap_gets_nothing() -> None:
    found = credit(1.0, [0.0, 0.3, 0.6, 0.9, 1.2, 1.5], AUTHOR)
    assert found.shares[4:] == (0.0, 0.0) and found.shares[3] == 0.0, "0.1 s is no time to react in"
    assert math.fsum(found.shares) == pytest.approx(1)
