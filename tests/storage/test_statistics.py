"""How the operator judges, counted by hand and by queries."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from storage.records import Prequential, Prompt, Ranking, SampleSet, Sitting, Undo
from storage.statistics import PAUSE_SECONDS, Foresight, Habits

from .conftest import BASE, SITTING, Desk, answer


def ask(desk: Desk, uid: str, *texts: str, prompt: str = "the same question") -> None:
    desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(prompt), len(texts)))
    for slot, text in enumerate(texts):
        desk.journal.write(answer(uid, slot, text=text)).result()


def habits(desk: Desk) -> Habits:
    return desk.record.habits()


def test_of_an_empty_log_there_is_nothing_to_say(desk: Desk) -> None:
    found = habits(desk)
    assert (found.pace.judgements, found.pace.per_hour, found.places, found.foresight) == (0, None, (), ())
    assert (found.length.longer_won, found.agreement.agree) == (None, None)


def test_a_place_is_compared_with_chance_and_ties_share_the_first(desk: Desk) -> None:
    for i, ranks in enumerate(("ab", "ab", "a=b", "ba")):
        uid = f"s{i}"
        ask(desk, uid, "one", "two", prompt=uid)
        desk.say(Ranking(uid, {f"{uid}a": 1, f"{uid}b": 1} if "=" in ranks else {f"{uid}{letter}": n for n, letter in enumerate(ranks, 1)}))
    a, b = habits(desk).places
    assert (a.rankings, a.first, a.by_chance) == (4, 2.5 / 4, 0.5)
    assert (b.rankings, b.first, b.by_chance) == (4, 1.5 / 4, 0.5)


def test_places_of_imported_answers_mean_nothing(desk: Desk) -> None:
    desk.journal.write(SampleSet("s1", SITTING.uid, Prompt.of("x"), 2, "imported"))
    for slot in range(2):
        desk.journal.write(answer("s1", slot)).result()
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    assert habits(desk).places == ()


def test_the_longer_answer_wins_or_not_and_equal_lengths_do_not_count(desk: Desk) -> None:
    ask(desk, "s1", "four", "sixsix", "also")
    desk.say(Ranking("s1", {"s1b": 1, "s1a": 2, "s1c": 3}))  # of unequal length: b > a and b > c
    assert (habits(desk).length.pairs, habits(desk).length.longer_won, habits(desk).length.mean_difference) == (2, 1.0, 2.0)
    ask(desk, "s2", "a", "abc", prompt="other")
    desk.say(Ranking("s2", {"s2a": 1, "s2b": 2}))
    found, two_thirds = habits(desk).length, pytest.approx(2 / 3, abs=1e-4)
    assert (found.pairs, found.longer_won, found.mean_difference) == (3, two_thirds, two_thirds)


def test_agreement_is_between_judgements_of_the_same_two_texts(desk: Desk) -> None:
    for uid, order in (("s1", "ab"), ("s2", "ab"), ("s3", "ba")):
        ask(desk, uid, "yes", "no")
        desk.say(Ranking(uid, {f"{uid}{letter}": n for n, letter in enumerate(order, 1)}))
    found = habits(desk).agreement
    assert (found.comparisons, found.agree, found.ceiling) == (3, pytest.approx(1 / 3, abs=1e-4), 0.5)  # of s1s2, s1s3, s2s3 one agrees
    assert found.low < 1 / 3 < found.high
    desk.say(Undo(3))
    assert (habits(desk).agreement.comparisons, habits(desk).agreement.agree) == (1, 1.0)


def test_what_two_people_say_is_no_agreement_of_one_with_themselves(desk: Desk) -> None:
    for who, uid, order in (("ann", "s1", "ab"), ("bob", "s2", "ba"), ("ann", "s3", "ab"), ("bob", "s4", "ba"), ("bob", "s5", "ab")):
        desk.journal.bind(BASE, Sitting(f"sitting {uid}", BASE.base_hash, "0", "{}", operator=who))
        ask(desk, uid, "yes", "no")
        desk.say(Ranking(uid, {f"{uid}{letter}": n for n, letter in enumerate(order, 1)}))
        expected = {"s1": (0, None), "s2": (0, None), "s3": (1, 1.0), "s4": (2, 1.0), "s5": (4, 0.5)}[uid]
        assert (habits(desk).agreement.comparisons, habits(desk).agreement.agree) == expected


def test_the_same_text_twice_in_one_set_is_no_repetition(desk: Desk) -> None:
    ask(desk, "s1", "yes", "no", "no")
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2, "s1c": 3}))
    assert habits(desk).agreement.comparisons == 0


def test_other_prompts_with_the_same_answers_are_other_comparisons(desk: Desk) -> None:
    for uid in ("s1", "s2"):
        ask(desk, uid, "yes", "no", prompt=uid)
        desk.say(Ranking(uid, {f"{uid}a": 1, f"{uid}b": 2}))
    assert habits(desk).agreement.comparisons == 0


def test_long_pauses_are_cut_down(desk: Desk) -> None:
    for i in range(4):
        ask(desk, f"s{i}", "one", "two", prompt=str(i))
        desk.say(Ranking(f"s{i}", {f"s{i}a": 1, f"s{i}b": 2}))
    desk.journal.flush()
    with closing(sqlite3.connect(desk.path, isolation_level=None)) as other:  # times that a test cannot wait for
        triggers = other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'").fetchall()
        for (name,) in triggers:
            other.execute(f"DROP TRIGGER {name}")
        for seq, minute in ((1, "00:00"), (2, "01:00"), (3, "02:00"), (4, "59:00")):
            other.execute("UPDATE events SET utc = ? WHERE seq = ?", (f"2026-01-01T00:{minute}.000Z", seq))
    found = habits(desk).pace
    seconds = 60 + 60 + PAUSE_SECONDS
    assert (found.judgements, found.hours) == (4, round(seconds / 3600, 3))
    assert found.per_hour == pytest.approx(4 / seconds * 3600, abs=0.1)


def test_foresight_counts_each_judgement_once_while_it_stands(desk: Desk) -> None:
    for uid in ("s1", "s2"):
        ask(desk, uid, "one", "two", prompt=uid)
        desk.say(Ranking(uid, {f"{uid}a": 1, f"{uid}b": 2}))
    for record in (
        Prequential(1, "human_reward", 0.5, 1.0, 1, 0.4), Prequential(1, "human_reward", 9.0, 0.0, 1),  # seen again: the first look counts
        Prequential(2, "human_reward", 0.7, 0.5, 1), Prequential(2, "reward", 0.6, 3.0, 4),
    ):  # fmt: skip
        desk.journal.write(record).result()
    assert habits(desk).foresight == (Foresight("human_reward", 2, 0.6, 0.75, 0.75), Foresight("reward", 1, 0.6, 0.75, 0.75))
    desk.say(Undo(2))
    assert habits(desk).foresight == (Foresight("human_reward", 1, 0.5, 1.0, 1.0),)
