"""Who judged and how far they agree, against counts by hand."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.people import agreement
from storage.records import Message, Ranking, Rating, Sitting
from storage.thoughts import with_thought
from tests.storage.conftest import BASE, Desk

from .exchange.conftest import ask

ASKED = (Message("user", "Which?"),)


def kappa_by_table(pairs: list[tuple[str, str]]) -> float | None:
    """From the table of counts, as Cohen writes it."""
    outcomes = sorted({outcome for pair in pairs for outcome in pair})
    table = {cell: pairs.count(cell) / len(pairs) for cell in product(outcomes, outcomes)}
    rows = {one: sum(table[one, other] for other in outcomes) for one in outcomes}
    columns = {other: sum(table[one, other] for one in outcomes) for other in outcomes}
    chance = sum(rows[outcome] * columns[outcome] for outcome in outcomes)
    return None if chance > 1 - 1e-12 else (sum(table[outcome, outcome] for outcome in outcomes) - chance) / (1 - chance)


@given(st.lists(st.tuples(*(st.sampled_from(["<", ">", "tie"]),) * 2), min_size=1, max_size=30))
def test_kappa_is_that_of_the_table(pairs: list[tuple[str, str]]) -> None:
    one, other = ({str(place): pair[side] for place, pair in enumerate(pairs)} for side in (0, 1))
    n, alike, kappa = agreement(one | {"mine alone": "<"}, other)
    assert (n, alike) == (len(pairs), pytest.approx(sum(a == b for a, b in pairs) / len(pairs), abs=1e-4))
    expected = kappa_by_table(pairs)
    assert kappa is None if expected is None else kappa == pytest.approx(expected, abs=1e-4)


def test_two_people_on_the_same_texts_in_different_sets(desk: Desk) -> None:
    """They agree on long over short, differ on mid and short, and kim alone judges the fourth; lee ranks what stands first first."""
    desk.journal.bind(BASE, Sitting("i-kim", BASE.base_hash, "0", "{}", operator="kim"))
    ask(desk, "k1", "a longer answer", "short", messages=ASKED)
    ask(desk, "k2", "middling", "short", messages=ASKED)
    ask(desk, "k3", "only", "kims", messages=ASKED)
    for judgement in (
        Ranking("k1", {"k1a": 1, "k1b": 2}),
        Ranking("k2", {"k2b": 1, "k2a": 2}),
        Ranking("k3", {"k3a": 1, "k3b": 2}),
        Rating("k1", "k1a", 6),
    ):
        desk.say(judgement)
    desk.journal.bind(BASE, Sitting("i-lee", BASE.base_hash, "0", "{}", operator="lee"))
    ask(desk, "l1", "short", "a longer answer", messages=ASKED)
    ask(desk, "l2", "middling", "short", messages=ASKED)
    for judgement in (Ranking("l1", {"l1b": 1, "l1a": 2}), Ranking("l2", {"l2a": 1, "l2b": 2}), Rating("l1", "l1b", 2)):
        desk.say(judgement)
    found = desk.record.people()
    kim, lee = found.operators
    assert (kim.name, kim.kind, kim.judgements) == ("kim", "person", {"ranking": 3, "rating": 1})
    assert (kim.first_place, kim.longer_won, kim.good) == (pytest.approx(2 / 3, abs=1e-4), 0.5, 1.0)  # 'only' and 'kims' are equally long
    assert (lee.judgements, lee.first_place, lee.longer_won, lee.good) == ({"ranking": 2, "rating": 1}, 0.5, 1.0, 0.0)
    (between,) = found.between
    assert (between.one, between.other, between.comparisons, between.compared_alike) == ("kim", "lee", 2, 0.5)
    assert (between.labels, between.labelled_alike) == (1, 0.0)


def test_one_person_has_nobody_to_agree_with(desk: Desk) -> None:
    ask(desk, "s1", "a", "b")
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    found = desk.record.people()
    assert [each.name for each in found.operators] == ["operator"] and found.between == ()


def test_kappa_does_not_depend_on_which_answer_a_file_names_first(desk: Desk) -> None:
    """Two people who agree in nine of ten; the better answer by the first of them was always written down first."""
    for who in ("kim", "lee"):
        desk.journal.bind(BASE, Sitting(f"i-{who}", BASE.base_hash, "0", "{}", operator=who))
        for i in range(20):
            uid = f"{who}{i}"
            ask(desk, uid, f"better {i}", f"worse {i}", messages=ASKED)
            desk.say(Ranking(uid, {f"{uid}a": 1 + (who == "lee" and i % 10 == 0), f"{uid}b": 2 - (who == "lee" and i % 10 == 0)}))
    (between,) = desk.record.people().between
    assert (between.comparisons, between.compared_alike) == (20, 0.9)
    assert between.comparisons_kappa == pytest.approx(0.8, abs=0.15)  # 0.9 beyond the half that coins have


def test_of_several_judgements_of_one_thing_the_last_counts_and_thoughts_are_no_length(desk: Desk) -> None:
    for who, orders in (("kim", ("ba", "ba", "ab")), ("lee", ("ab",))):
        desk.journal.bind(BASE, Sitting(f"i-{who}", BASE.base_hash, "0", "{}", operator=who))
        for i, order in enumerate(orders):
            uid = f"{who}{i}"
            ask(desk, uid, with_thought("at length " * 9, "short"), "a longer answer", messages=ASKED)
            desk.say(Ranking(uid, {f"{uid}{letter}": n for n, letter in enumerate(order, 1)}))
            desk.say(Rating(uid, f"{uid}a", 2 if order == "ba" else 6))
    found = desk.record.people()
    (between,) = found.between
    assert (between.compared_alike, between.labelled_alike) == (1.0, 1.0)
    assert {each.name: each.longer_won for each in found.operators} == {"kim": pytest.approx(2 / 3, abs=1e-4), "lee": 0.0}
