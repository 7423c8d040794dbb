"""How answers share a screen: side by side only where each can be read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamer_tui.screens.arrangement import CHROME_ROWS, NARROWEST_PANE, RAIL_WIDTH, are_brief, arrange


@given(k=st.integers(1, 9), width=st.integers(1, 400), height=st.integers(1, 120))
def test_panes_side_by_side_are_wide_and_high_enough(k: int, width: int, height: int) -> None:
    found = arrange(k, width, height)
    room = width - RAIL_WIDTH * found.rail
    if not found.tabs and k > 1:
        assert room // found.columns >= NARROWEST_PANE
        assert (height - CHROME_ROWS) // math.ceil(k / found.columns) >= 8
    assert 1 <= found.columns <= k
    assert not found.rail or room >= 2 * NARROWEST_PANE


@pytest.mark.parametrize(
    ("k", "size", "columns", "tabs", "rail"),
    [
        (4, (80, 24), 1, True, False),
        (2, (80, 24), 2, False, False),
        (1, (80, 24), 1, False, False),
        (4, (100, 40), 2, False, False),
        (3, (160, 40), 3, False, True),
        (4, (200, 50), 2, False, True),
        (9, (200, 50), 3, False, True),
        (9, (80, 24), 1, True, False),
    ],
)
def test_long_answers_by_example(k: int, size: tuple[int, int], columns: int, tabs: bool, rail: bool) -> None:
    found = arrange(k, *size)
    assert (found.columns, found.tabs, found.rail) == (columns, tabs, rail)


def test_four_short_answers_are_a_grid_at_80_by_24_and_long_ones_rows_with_their_first_words() -> None:
    assert are_brief(["The dog was sad. It had no home."] * 4, 4, 80, 24)
    assert arrange(4, 80, 24, brief=True).columns == 2
    assert not are_brief(["The dog was sad. It had no home."] * 3 + ["word " * 60], 4, 80, 24)
    assert not are_brief(["\n" * 9], 4, 80, 24)
    assert arrange(4, 80, 24).previews and not arrange(9, 80, 24).previews and not arrange(2, 80, 24).previews
