"""What is accepted into the log, what is live, and what undo and redo do."""

from __future__ import annotations

import pytest

from storage.records import Correction, Demonstration, Judgement, Peek, Ranking, Rating, Redo, Skip, Undo

from .conftest import Desk


def live_seqs(desk: Desk) -> list[int]:
    return [logged.seq for logged in desk.record.live()]


@pytest.fixture
def shown(desk: Desk) -> Desk:
    desk.show("s1")
    desk.show("s2")
    return desk


EVERY_KIND: list[Judgement] = [
    Ranking("s1", {"s1a": 1, "s1c": 2, "s1d": 2}, 4.5, "ac=d"),
    Rating("s1", "s1b", 7, "truthful"),
    Correction("s1", "s1b", "better [/b]"),
    Demonstration("s1", "ideal\n"),
    Skip("s1"),
    Peek("s1"),
]


def test_every_judgement_comes_back_as_it_was_given_in_the_order_it_was_given(shown: Desk) -> None:
    seqs = [shown.say(judgement) for judgement in EVERY_KIND]
    live = shown.record.live()
    assert [logged.judgement for logged in live] == EVERY_KIND
    assert [logged.seq for logged in live] == seqs == [1, 2, 3, 4, 5, 6]
    assert {logged.sitting_uid for logged in live} == {"sitting"}
    assert all(logged.utc.endswith("Z") and len(logged.utc) == 24 for logged in live)


def test_live_judgements_can_be_read_for_one_set(shown: Desk) -> None:
    shown.say(Skip("s1"))
    shown.say(Skip("s2"))
    assert [logged.seq for logged in shown.record.live("s2")] == [2]
    assert shown.record.live("nothing") == []


@pytest.mark.parametrize(
    ("judgement", "line"),
    [
        (Ranking("s9", {"s1a": 1}), "there is no set s9"),
        (Ranking("s1", {}), "the ranking names no answer"),
        (Ranking("s1", {"s1a": 1, "s1b": 3}), "the ranks [1, 3] leave gaps"),
        (Ranking("s1", {"s1a": 2}), "the ranks [2] leave gaps"),
        (Ranking("s1", {"s1a": 0, "s1b": 1}), "the ranks [0, 1] leave gaps"),
        (Ranking("s1", {"s1a": 1, "s2a": 2}), "there is no answer s2a in set s1"),
        (Rating("s1", "s1a", 0), "a rating of 0 is outside 1 to 7"),
        (Rating("s1", "s1a", 8), "a rating of 8 is outside 1 to 7"),
        (Rating("s1", "s1z", 4), "there is no answer s1z in set s1"),
        (Rating("s2", "s1a", 4), "there is no answer s1a in set s2"),
        (Rating("s1", "s1a", 4, "pretty"), "there is no criterion 'pretty'"),
        (Correction("s1", "s1a", " \n"), "the text is empty"),
        (Correction("s1", "s2a", "text"), "there is no answer s2a in set s1"),
        (Demonstration("s1", ""), "the text is empty"),
        (Demonstration("s9", "text"), "there is no set s9"),
        (Demonstration("s1", "\udc80"), "the text has characters that are not Unicode"),
        (Skip("s9"), "there is no set s9"),
        (Peek("s9"), "there is no set s9"),
        (Undo(1), "there is no judgement 1 to undo"),
        (Undo(2**80), "the record does not fit the database"),
        (Redo(1), "judgement 1 is not undone"),
    ],
    ids=repr,
)
def test_a_judgement_that_does_not_fit_is_refused_in_one_clear_line(shown: Desk, judgement: Judgement, line: str) -> None:
    refusal = shown.refusal(judgement)
    assert refusal.startswith(line)
    assert "\n" not in refusal
    assert shown.record.log() == []


def test_a_refused_judgement_takes_no_number(shown: Desk) -> None:
    shown.refusal(Rating("s1", "s1a", 9))
    assert shown.say(Rating("s1", "s1a", 7)) == 1


def test_a_second_ranking_of_a_set_waits_until_the_first_is_undone(shown: Desk) -> None:
    first = shown.say(Ranking("s1", {"s1a": 1}))
    assert shown.refusal(Ranking("s1", {"s1b": 1})) == "this set has a ranking already"
    shown.say(Ranking("s2", {"s2a": 1}))
    shown.say(Undo(first))
    second = shown.say(Ranking("s1", {"s1b": 1}))
    assert live_seqs(shown) == [2, second]
    assert shown.refusal(Redo(first)) == "this set has a ranking already"


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        (Rating("s1", "s1a", 1), Rating("s1", "s1a", 7), Rating("s1", "s1a", 4)),
        (Correction("s1", "s1a", "one"), Correction("s1", "s1a", "two"), Correction("s1", "s1a", "three")),
        (Demonstration("s1", "one"), Demonstration("s1", "two"), Demonstration("s1", "three")),
    ],
    ids=["rating", "correction", "demonstration"],
)
def test_the_newest_counts_and_undoing_it_brings_the_earlier_back(shown: Desk, first: Judgement, second: Judgement, third: Judgement) -> None:
    for judgement in (first, second, third):
        shown.say(judgement)
    assert live_seqs(shown) == [3]
    shown.say(Undo(2))  # not the newest: nothing changes
    assert live_seqs(shown) == [3]
    shown.say(Undo(3))
    assert live_seqs(shown) == [1]
    shown.say(Redo(2))
    assert live_seqs(shown) == [2]


def test_ratings_of_other_answers_and_criteria_stand_beside_each_other(shown: Desk) -> None:
    shown.say(Rating("s1", "s1a", 1))
    shown.say(Rating("s1", "s1a", 2, "harmless"))
    shown.say(Rating("s1", "s1b", 3))
    assert live_seqs(shown) == [1, 2, 3]


def test_clearing_a_score_means_undoing_every_rating_of_it_that_stands(shown: Desk) -> None:
    for value in (5, 3, 4):
        shown.say(Rating("s1", "s1a", value))
    shown.say(Undo(2))
    assert shown.record.rating_seqs("s1a") == (3, 1)
    for seq in shown.record.rating_seqs("s1a"):
        shown.say(Undo(seq))
    assert live_seqs(shown) == []
    assert shown.record.rating_seqs("s1a") == ()


@pytest.mark.parametrize("judgement", EVERY_KIND[:5], ids=lambda judgement: type(judgement).__name__)
def test_undo_takes_back_once_and_redo_puts_back_once(shown: Desk, judgement: Judgement) -> None:
    seq = shown.say(judgement)
    shown.say(Undo(seq))
    assert live_seqs(shown) == []
    assert shown.refusal(Undo(seq)) == "judgement 1 is undone already"
    shown.say(Redo(seq))
    assert live_seqs(shown) == [seq]
    assert shown.refusal(Redo(seq)) == "judgement 1 is not undone, so it cannot be redone"


def test_neither_a_peek_nor_an_undo_nor_a_redo_can_be_undone(shown: Desk) -> None:
    shown.say(Peek("s1"))
    shown.say(Skip("s1"))
    shown.say(Undo(2))
    assert shown.refusal(Undo(3)) == "judgement 3 cannot be undone"
    shown.say(Redo(2))
    assert shown.refusal(Undo(4)) == "judgement 4 cannot be undone"
    assert shown.refusal(Undo(1)) == "judgement 1 cannot be undone"
    assert shown.refusal(Redo(1)) == "judgement 1 is not undone, so it cannot be redone"


def test_undo_walks_back_and_redo_walks_forth_over_the_same_judgements(shown: Desk) -> None:
    seqs = [shown.say(judgement) for judgement in EVERY_KIND[:5]]
    for seq in reversed(seqs):
        assert shown.record.last_undoable() == seq
        shown.say(Undo(seq))
        assert shown.record.last_redoable() == seq
    assert shown.record.last_undoable() is None
    for seq in seqs:
        assert shown.record.last_redoable() == seq
        shown.say(Redo(seq))
    assert shown.record.last_redoable() is None
    assert live_seqs(shown) == seqs


def test_what_a_newer_judgement_replaced_is_not_offered_for_redo(shown: Desk) -> None:
    shown.say(Ranking("s1", {"s1a": 1}))
    shown.say(Rating("s2", "s2a", 1))
    shown.say(Undo(2))
    shown.say(Undo(1))
    assert shown.record.last_redoable() == 1
    shown.say(Ranking("s1", {"s1b": 1}))
    assert shown.record.last_redoable() == 2
    shown.say(Rating("s2", "s2a", 7))
    assert shown.record.last_redoable() is None


def test_a_newer_ranking_is_not_offered_for_redo_while_an_older_one_has_its_place(shown: Desk) -> None:
    first = shown.say(Ranking("s1", {"s1a": 1}))
    shown.say(Undo(first))
    second = shown.say(Ranking("s1", {"s1b": 1}))
    shown.say(Undo(second))
    assert shown.record.last_redoable() == second
    shown.say(Redo(first))
    assert shown.record.last_redoable() is None


def test_the_log_keeps_what_was_undone(shown: Desk) -> None:
    shown.say(Skip("s1"))
    shown.say(Undo(1))
    shown.say(Redo(1))
    assert [logged.judgement for logged in shown.record.log()] == [Skip("s1"), Undo(1), Redo(1)]
    assert [logged.seq for logged in shown.record.log(after=1)] == [2, 3]
    assert shown.record.logged(2).judgement == Undo(1)
    with pytest.raises(KeyError):
        shown.record.logged(4)
