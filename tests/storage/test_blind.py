"""The blind count against sets counted by hand, against a loop over the log, and the interval against published values."""

from __future__ import annotations

import random
from math import isclose, sqrt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from storage.blind import Z95, wilson
from storage.records import Critique, Judgement, LeftOut, Peek, Prompt, Ranking, Rating, Redo, SampleSet, Selection, Undo

from .conftest import SITTING, Desk, answer

# In every set 'a' is the base's slot and 'b' the acting one.


def outcomes(desk: Desk, last: int | None = None, policy: str = "acting") -> tuple[int, int, int]:
    count = desk.record.blind_count(last, policy)  # type: ignore[arg-type]
    assert count.n == count.wins + count.ties + count.losses
    assert (count.low, count.high) == wilson(count.wins + count.ties / 2, count.n)
    return count.wins, count.ties, count.losses


WIN, TIE, LOSS, NOT_COUNTED = (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)


@pytest.mark.parametrize(
    ("judgements", "counted"),
    [
        ([Ranking("s1", {"s1b": 1, "s1a": 2})], WIN),
        ([Ranking("s1", {"s1c": 1, "s1a": 2, "s1b": 2})], TIE),
        ([Ranking("s1", {"s1a": 1, "s1c": 2, "s1b": 3})], LOSS),
        ([Ranking("s1", {"s1c": 1, "s1b": 2})], WIN),
        ([Ranking("s1", {"s1a": 1})], LOSS),
        ([Ranking("s1", {"s1c": 1, "s1d": 2})], NOT_COUNTED),
        ([Rating("s1", "s1a", 3), Rating("s1", "s1b", 4)], WIN),
        ([Rating("s1", "s1a", 4), Rating("s1", "s1b", 4)], TIE),
        ([Rating("s1", "s1a", 4), Rating("s1", "s1b", 7), Rating("s1", "s1b", 1)], LOSS),
        ([Rating("s1", "s1b", 7)], NOT_COUNTED),
        ([Rating("s1", "s1a", 3), Rating("s1", "s1b", 4, "useful")], NOT_COUNTED),
        ([Rating("s1", "s1a", 7), Rating("s1", "s1b", 1), Ranking("s1", {"s1b": 1})], WIN),
        ([Rating("s1", "s1a", 7), Rating("s1", "s1b", 1), Ranking("s1", {"s1c": 1})], NOT_COUNTED),
        ([Rating("s1", "s1a", 7), Rating("s1", "s1b", 1), Ranking("s1", {"s1b": 1}), Undo(3)], LOSS),
        ([Peek("s1"), Ranking("s1", {"s1b": 1})], NOT_COUNTED),
        ([Ranking("s1", {"s1b": 1}), Peek("s1")], WIN),
        ([Ranking("s1", {"s1b": 1}), Peek("s1"), Undo(1), Ranking("s1", {"s1a": 1})], NOT_COUNTED),
        ([Rating("s1", "s1a", 3), Peek("s1"), Rating("s1", "s1b", 4)], NOT_COUNTED),
        ([Ranking("s1", {"s1b": 1}), Undo(1)], NOT_COUNTED),
    ],
)
def test_one_set_counts_as_a_person_would_count_it(desk: Desk, judgements: list[Judgement], counted: tuple[int, int, int]) -> None:
    desk.show("s1")
    for judgement in judgements:
        desk.say(judgement)
    assert outcomes(desk) == counted


def test_only_sets_shown_to_be_judged_with_a_drawn_pair_count(desk: Desk) -> None:
    desk.show("s1", blind=False)
    desk.show("s2", purpose="evaluate")
    desk.show("s3", purpose="compare")
    for uid in ("s1", "s2", "s3"):
        desk.say(Ranking(uid, {f"{uid}b": 1}))
    assert outcomes(desk) == (0, 0, 0)


def test_the_last_sets_are_the_ones_judged_last(desk: Desk) -> None:
    for n in range(1, 6):
        desk.show(f"s{n}")
    for n in (5, 1, 2, 3):  # s4 is not judged
        desk.say(Ranking(f"s{n}", {f"s{n}{'a' if n == 5 else 'b'}": 1}))
    assert outcomes(desk) == (3, 0, 1)
    assert outcomes(desk, last=4) == (3, 0, 1)
    assert outcomes(desk, last=3) == (3, 0, 0)
    assert outcomes(desk, last=1) == (1, 0, 0)


def test_the_adapter_alone_is_counted_where_no_bias_acted(desk: Desk) -> None:
    desk.show("s1", version="v1", beta=0.5)
    desk.show("s2", version="v1", beta=0.0)
    desk.show("s3", version="base", beta=0.0)
    desk.show("s4", acting="adapter", version="v1", beta=0.0)
    for uid, best in (("s1", "b"), ("s2", "b"), ("s3", "a"), ("s4", "a")):
        desk.say(Ranking(uid, {uid + best: 1}))
    assert outcomes(desk) == (2, 0, 1)  # s1, s2, s3
    assert outcomes(desk, policy="adapter") == (1, 0, 1)  # s2, s4


def won(desk: Desk, uid: str, **shown: object) -> None:
    """A set of v1 without a bias, which won."""
    desk.show(uid, version="v1", beta=0.0, **shown)  # type: ignore[arg-type]
    desk.say(Ranking(uid, {f"{uid}b": 1}))


def test_what_words_may_have_steered_is_not_the_adapter_alone(desk: Desk) -> None:
    """Where Ĥ is blank there is no bias, and a wish may spend the whole budget; the record of an answer does not say so."""
    won(desk, "s1")
    wish = desk.say(Critique("s1", None, "shorter", "all"))
    won(desk, "s2")
    assert (outcomes(desk), outcomes(desk, policy="adapter")) == ((2, 0, 0), (1, 0, 0))
    desk.say(Undo(wish))
    won(desk, "s3")  # maybe; and what was said in between is not looked for
    desk.show("s4", acting="adapter", version="v1", beta=0.0)  # whatever holds, no words are read beside it
    desk.say(Redo(wish))
    desk.say(Ranking("s4", {"s4b": 1}))
    assert outcomes(desk, policy="adapter") == (2, 0, 0)  # s1, s4


def test_a_count_says_how_many_of_its_answers_were_chosen_as_the_best_of_several(desk: Desk) -> None:
    for n in range(1, 5):
        desk.show(f"s{n}", acting="adapter" if n == 4 else "acting", version="v1", beta=0.0)
        if n > 1:
            desk.journal.write(Selection(f"s{n}", 8, "human_reward", {f"s{n}b": 1.0}, (LeftOut(1, 0.5, (7,), "a"),))).result()
        desk.say(Ranking(f"s{n}", {f"s{n}b": 1}))
    count = desk.record.blind_count
    assert (count().n, count().chosen) == (3, 2)
    assert (count(1).n, count(1).chosen) == (1, 1)
    assert (count(policy="adapter").n, count(policy="adapter").chosen) == (4, 2), "what an adapter draws alone is never chosen"
    assert desk.record.duel_count().chosen == 0


def test_many_sets_count_as_a_loop_over_the_log_counts_them(desk: Desk) -> None:
    rng = random.Random(7)
    for n in range(60):
        uid = f"s{n}-"
        desk.show(uid, k=3)
        slots = rng.sample("abc", rng.randint(1, 3))
        if rng.random() < 0.2:
            desk.say(Peek(uid))
        for slot in slots:
            desk.say(Rating(uid, uid + slot, rng.randint(1, 7)))
        if rng.random() < 0.6:
            desk.say(Ranking(uid, {uid + slot: 1 + i // 2 for i, slot in enumerate(slots)}))
        if rng.random() < 0.2:
            last = desk.record.last_undoable()
            assert last is not None
            desk.say(Undo(last))
    scores = [score for n in range(60) if (score := compare(desk, f"s{n}-")) is not None]
    assert len(scores) > 15
    expected = (sum(s > 0 for s in scores), sum(s == 0 for s in scores), sum(s < 0 for s in scores))
    assert outcomes(desk) == expected


def compare(desk: Desk, uid: str) -> float | None:
    """How much the acting slot beat the base's by, None if the set does not count."""
    live = desk.record.live(uid)
    if any(isinstance(logged.judgement, Peek) for logged in live):
        return None
    rankings = [logged.judgement.ranks for logged in live if isinstance(logged.judgement, Ranking)]
    if rankings:
        base, acting = (rankings[0].get(uid + slot, 99) for slot in "ab")
        return None if base == acting == 99 else base - acting
    values = {each.judgement.response_uid: each.judgement.value for each in live if isinstance(each.judgement, Rating)}
    both = {f"{uid}a", f"{uid}b"} <= values.keys()
    return values[f"{uid}b"] - values[f"{uid}a"] if both else None


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(wins: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3."""
    assert wilson(wins, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000), st.integers(0, 4000))
def test_both_ends_are_where_the_score_test_just_rejects(n: int, half_wins: int) -> None:
    wins = half_wins / 2
    assume(0 < wins < n)
    for end in wilson(wins, n):
        assert isclose(abs(wins / n - end), Z95 * sqrt(end * (1 - end) / n), rel_tol=1e-6)


@given(st.integers(0, 500))
def test_all_wins_and_no_wins_mirror_each_other_within_zero_and_one(n: int) -> None:
    none, every = wilson(0, n), wilson(n, n)
    assert none[0] == pytest.approx(0, abs=1e-12)
    assert every == pytest.approx((1 - none[1], 1 - none[0]))
    assert 0 <= none[0] <= none[1] <= 1


SIDES = {"acting": ("acting", "v2"), "base": ("base", "base"), "v1": ("adapter", "v1"), "v2": ("adapter", "v2")}


@pytest.mark.parametrize("seed", range(3))
def test_duels_are_counted_by_who_wrote_the_two_as_a_loop_counts_them(desk: Desk, seed: int) -> None:
    rng = random.Random(seed)
    wins: dict[tuple[str, str], list[float]] = {}
    for n in range(30):
        uid, names = f"s{n}", rng.sample(sorted(SIDES), 2)
        desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(uid), 2, rng.choice(["duel", "duel", "compare"])))
        for slot, name in enumerate(names):
            policy, version = SIDES[name]
            desk.journal.write(answer(uid, slot, policy, version=version)).result()  # type: ignore[arg-type]
        better = rng.choice([(1, 2), (2, 1), (1, 1)])
        seq = desk.say(Ranking(uid, {f"{uid}a": better[0], f"{uid}b": better[1]}))
        what = rng.choice(["", "", "", "undone", "told"])
        if what:
            desk.say(Undo(seq))
        if what == "told":
            desk.say(Peek(uid))
            desk.say(Ranking(uid, {f"{uid}a": 1, f"{uid}b": 2}))
        if not what and desk.record.sample_set(uid).purpose == "duel":
            outcome = 0.5 if better == (1, 1) else float(better == (1, 2))
            wins.setdefault((names[0], names[1]), []).append(outcome)
            wins.setdefault((names[1], names[0]), []).append(1 - outcome)
    found = desk.record.duels()
    assert {pair: (count.wins, count.ties, count.losses) for pair, count in found.items()} == {
        pair: (each.count(1.0), each.count(0.5), each.count(0.0)) for pair, each in wins.items()
    }
    assert all((count.low, count.high) == wilson(count.wins + count.ties / 2, count.n) for count in found.values())
    assert desk.record.duel_count() == found.get(("acting", "base"), desk.record.duel_count("v7", "v8"))
