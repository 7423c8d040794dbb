"""What is said of a count is what the count proves."""

from __future__ import annotations

import re

import pytest

from storage.blind import BlindCount
from storage.statistics import Agreement
from tamer_tui.wins import own_agreement, proof, wins


@pytest.mark.parametrize(
    ("won", "tied", "lost", "told", "proves"),
    [
        (18, 0, 7, "your model wins 18 of 25 blind", "not proven yet: "),
        (19, 1, 5, "your model wins 19.5 of 25 blind", "it is better than the untouched one: "),
        (1, 0, 12, "your model wins 1 of 13 blind", "it is worse than the untouched one: "),
        (0, 0, 0, "", "not proven yet: 1 to 1 of 20 to 1"),
    ],
)
def test_a_word_is_said_where_it_is_proven(won: int, tied: int, lost: int, told: str, proves: str) -> None:
    count = BlindCount(won, tied, lost, won + tied + lost, 0.0, 1.0)
    assert wins(count) == told and proof(count).startswith(proves)


def test_the_odds_of_seven_wins_of_seven_are_those_of_the_integral() -> None:
    n, steps = 7, 100_000  # the mixture over p in (1/2, 1) of p^7, against 2^-7
    integral = sum((0.5 + 0.5 * (i + 0.5) / steps) ** n for i in range(steps)) / steps * 2**n
    assert f"{integral:,.3g} to 1" in proof(BlindCount(7, 0, 0, 7, 0.0, 1.0))


@pytest.mark.parametrize(("won", "lost"), [(20, 0), (40, 6), (318, 177)])
def test_great_odds_are_said_as_people_write_numbers(won: int, lost: int) -> None:
    said = proof(BlindCount(won, 0, lost, won + lost, 0.0, 1.0))
    assert "e+" not in said and ("more than a million to 1" in said or re.search(r"\b\d{1,3}(,\d{3})* to 1;", said))


@pytest.mark.parametrize(("won", "lost"), [(9, 0), (3, 20), (60, 30)])
def test_so_many_other_votes_would_undo_the_word_and_one_fewer_would_not(won: int, lost: int) -> None:
    """By moving votes one at a time and looking whether the word still stands."""
    flips = int(re.search(r"; (\d+) other vote", proof(BlindCount(won, 0, lost, won + lost, 0.0, 1.0)))[1])  # type: ignore[index]
    moved = flips if won > lost else -flips
    one_fewer = moved - (1 if won > lost else -1)
    assert "not proven" in proof(BlindCount(won - moved, 0, lost + moved, won + lost, 0.0, 1.0))
    assert "it is" in proof(BlindCount(won - one_fewer, 0, lost + one_fewer, won + lost, 0.0, 1.0))


def test_an_operator_who_judged_nothing_twice_agrees_with_nobody_yet() -> None:
    assert own_agreement(Agreement(0, None)) == own_agreement(None) == "you have judged no two answers twice yet"
    assert own_agreement(Agreement(12, 0.75)) == "you agree with yourself in 0.75 of 12 judged twice"
