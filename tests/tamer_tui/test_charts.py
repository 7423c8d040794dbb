"""Charts of one row, against counting by hand; nothing that a learner can say breaks them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tamer_tui.widgets.charts import interval, progress, sparkline

ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(values=st.lists(ANY, max_size=60), width=st.integers(0, 20))
def test_a_line_is_never_wider_than_its_room_whatever_the_values(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert cell_len(line) <= width
    assert bool(line) == (width > 0 and any(math.isfinite(value) for value in values[-2 * width :]))


def test_a_line_rises_where_values_rise_and_has_gaps_where_they_are_no_numbers() -> None:
    assert sparkline([0, 1, 2, 3], 2) == "⡠⠊"
    assert sparkline([0, math.nan, math.inf, 3], 2) == "⡀⠈"
    assert sparkline([5, 5], 1) == "⠤"
    assert sparkline([0.0] * 100 + [0, 3], 1) == "⡈"


@given(share=ANY, width=st.integers(0, 30))
def test_a_bar_always_has_its_width_and_fills_by_the_share(share: float, width: int) -> None:
    bar = progress(share, width)
    assert len(bar) == width
    clipped = min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    assert abs(bar.count("━") + bar.count("╸") / 2 - clipped * width) <= 0.5


@given(low=ANY, middle=ANY, high=ANY, width=st.integers(0, 40))
def test_an_interval_never_breaks(low: float, middle: float, high: float, width: int) -> None:
    assert len(interval(low, middle, high, width)) in (0, width)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [((0.2, 0.35, 0.5), "┄┄━●━━┄┄┄┄"), ((0.0, 0.0, 0.0), "●┄┄┄┄┼┄┄┄┄"), ((0.7, 1.0, 1.0), "┄┄┄┄┄┼┄━━●")],
)
def test_an_interval_lies_where_it_should(values: tuple[float, float, float], drawn: str) -> None:
    assert interval(*values, 10) == drawn
