"""The verdict against exact probabilities, brute force and numerical derivatives, and against operators who have no opinion."""

from __future__ import annotations

import random
from math import exp, log

import pytest

from storage.records import LeftOut, Peek, Policy, Prompt, Ranking, SampleSet, Selection
from storage.thoughts import with_thought
from storage.verdict import (
    PRIOR_SPREAD,
    SURE,
    Vote,
    _logistic,
    comparisons,
    flips_needed,
    odds_of_better,
    proven,
    rate_at_equal_length,
    strengths,
    verdict,
    votes,
)

from .conftest import SITTING, Desk, answer


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 3), (7, 2), (30, 11), (5, 40)])
def test_the_odds_are_an_average_likelihood_over_a_half(wins: int, losses: int) -> None:
    steps = 20_000
    middles = [0.5 + (i + 0.5) / (2 * steps) for i in range(steps)]  # of (1/2, 1), whose uniform density is 2
    average = sum(p**wins * (1 - p) ** losses for p in middles) / steps
    assert odds_of_better(wins, losses) == pytest.approx(average / 0.5 ** (wins + losses), rel=1e-6)


@pytest.mark.parametrize(("words", "least", "most"), [(("better",), 0.01, 1 / SURE), (("better", "worse"), 1 / SURE, 2 / SURE)])
def test_who_looks_after_every_vote_is_told_a_word_by_chance_in_one_sitting_of_twenty_at_most(
    words: tuple[str, ...], least: float, most: float
) -> None:
    """The exact probability, over all ways that 400 votes of a coin can go. Of one of the two words it is up to twice as much."""
    alive, told = {0: 1.0}, 0.0
    for n in range(1, 401):
        after: dict[int, float] = {}
        for wins, probability in alive.items():
            for more in (0, 1):
                after[wins + more] = after.get(wins + more, 0.0) + probability / 2
        said = {wins for wins in after if proven(wins, n - wins)[0] in words}
        told += sum(after[wins] for wins in said)
        alive = {wins: p for wins, p in after.items() if wins not in said}
    assert least < told < most


def test_it_is_told_soon_where_it_is_true() -> None:
    assert odds_of_better(8, 0) >= SURE > odds_of_better(6, 0)
    assert verdict([Vote("v1", 1.0, 0)] * 9 + [Vote("v1", 0.5, 0)] * 50).word == "better"  # ties say nothing
    assert verdict([Vote("v1", 0.0, 0)] * 9).word == "worse"
    assert verdict([]).word == "" and verdict([]).flips is None and verdict([]).at_equal_length is None


@pytest.mark.parametrize(("wins", "losses"), [(8, 0), (20, 5), (60, 30), (300, 200)])
def test_so_many_flipped_votes_and_no_fewer_undo_the_word(wins: int, losses: int) -> None:
    by_hand = 0
    while odds_of_better(wins - by_hand, losses + by_hand) >= SURE:
        by_hand += 1
    assert flips_needed(wins, losses) == by_hand
    outcomes = [1.0] * wins + [0.0] * losses
    assert verdict([Vote("v1", outcome, 0) for outcome in outcomes]).flips == by_hand


def length_judge(seed: int, n: int, longer_by: float, slips: float = 0.0) -> list[Vote]:
    """An operator who likes long answers, but for slips, and a policy that writes longer ones."""
    rng = random.Random(seed)
    differences = [round(rng.gauss(longer_by, 60)) for _ in range(n)]
    outcomes = [1.0 if d > 0 else 0.0 if d < 0 else 0.5 for d in differences]
    return [Vote("v1", 1 - outcome if rng.random() < slips else outcome, d) for outcome, d in zip(outcomes, differences)]


@pytest.mark.parametrize(("longer_by", "slips", "n"), [(0, 0.0, 40), (30, 0.0, 40), (80, 0.0, 40), (80, 0.1, 40), (150, 0.0, 40), (150, 0.15, 120)])
def test_who_only_likes_long_answers_says_nothing_at_equal_length(longer_by: float, slips: float, n: int) -> None:
    """Also where nearly all answers of the policy are longer, and where the operator slips: 95 % of the intervals hold 0.5."""
    found = [length_judge(seed, n, longer_by, slips) for seed in range(60)]
    rates = [rate_at_equal_length(votes) for votes in found]
    assert sum(rate is not None and rate.low <= 0.5 <= rate.high for rate in rates) >= 57
    if longer_by:
        assert sum(vote.outcome for votes in found for vote in votes) / (60 * n) > 0.65  # while the raw rate would be taken in


def test_who_does_not_look_at_the_length_is_believed() -> None:
    rng = random.Random(3)
    found = [Vote("v1", float(rng.random() < 0.8), round(rng.gauss(40, 60))) for _ in range(200)]
    rate = rate_at_equal_length(found)
    assert rate is not None and rate.low > 0.6 and rate.low < 0.8 < rate.high and rate.n == 200


def test_strengths_put_versions_on_one_scale_whatever_met_what() -> None:
    """v2 never met the base: it is as much above v1 as v1 is above the base."""
    met = [Vote("v1", o) for o in (1.0,) * 30 + (0.0,) * 10] + [Vote("v2", o, against="v1") for o in (1.0,) * 30 + (0.0,) * 10]
    found = {each.version: each for each in strengths(met)}
    assert list(found) == ["v2", "v1", "base"]
    assert found["v2"].strength == pytest.approx(2 * found["v1"].strength, rel=0.1)
    assert found["v1"].strength == pytest.approx(log(3), rel=0.1)
    assert found["v2"].high - found["v2"].low > found["v1"].high - found["v1"].low > 0
    assert (found["base"].n, found["v1"].n, found["v2"].n) == (40, 80, 40)


def test_the_fit_is_the_maximum_and_its_covariance_the_inverse_curvature() -> None:
    rng = random.Random(1)
    rows = [(1.0, rng.gauss(0, 1), rng.gauss(0, 2)) for _ in range(50)]
    outcomes = [rng.choice((0.0, 0.5, 1.0)) for _ in rows]
    fit = _logistic(rows, outcomes)

    def posterior(mean: list[float]) -> float:
        z = [sum(a * b for a, b in zip(row, mean)) for row in rows]
        likely = sum(y * each - log(1 + exp(each)) for y, each in zip(outcomes, z))
        return likely - sum(b * b for b in mean) / (2 * PRIOR_SPREAD**2)

    def moved(i: int, by: float, j: int = 0, by_j: float = 0.0) -> float:
        mean = list(fit.mean)
        mean[i] += by
        mean[j] += by_j
        return posterior(mean)

    h = 1e-4
    for i in range(3):
        assert abs(moved(i, h) - moved(i, -h)) / (2 * h) < 1e-6
    hessian = [
        [-(moved(i, h, j, h) - moved(i, h, j, -h) - moved(i, -h, j, h) + moved(i, -h, j, -h)) / (4 * h * h) for j in range(3)] for i in range(3)
    ]
    for i in range(3):
        for j in range(3):
            product = sum(hessian[i][k] * fit.covariance[k][j] for k in range(3))
            assert product == pytest.approx(float(i == j), abs=1e-3)


def test_a_landslide_has_a_finite_rate() -> None:
    rate = rate_at_equal_length([Vote("v1", 1.0, 5)] * 12)
    assert rate is not None and 0.5 < rate.rate < 1.0 and rate.high <= 1.0


def test_votes_are_the_counted_sets_with_the_lengths_of_their_answers(desk: Desk) -> None:
    for n in (1, 2, 3):
        desk.show(f"s{n}", version="v1", beta=0.5, text=with_thought("a long thought", "said") if n == 3 else "some words")
    desk.say(Ranking("s1", {"s1b": 1, "s1a": 2}))
    desk.say(Ranking("s3", {"s3a": 1, "s3b": 2}))
    lengths = {
        uid: len(next(r.text for r in desk.record.responses(uid[:2]) if r.uid == uid).rpartition("</think>\n\n")[2])
        for uid in ("s1a", "s1b", "s3a", "s3b")
    }
    found = votes(desk.record._connection)
    assert desk.record.verdict() == verdict(found)
    assert found == [Vote("v1", 1.0, lengths["s1b"] - lengths["s1a"]), Vote("v1", 0.0, lengths["s3b"] - lengths["s3a"])]


def duel(desk: Desk, uid: str, *wrote: tuple[Policy, str], peeked: bool = False) -> None:
    """Of which the first one wins."""
    desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(uid), 2, "duel"))
    for slot, (policy, version) in enumerate(wrote):
        desk.journal.write(answer(uid, slot, policy, version=version)).result()
    if peeked:
        desk.say(Peek(uid))
    desk.say(Ranking(uid, {f"{uid}a": 1, f"{uid}b": 2}))


def test_strengths_are_of_all_that_were_compared_blind_by_who_wrote(desk: Desk) -> None:
    desk.show("s1")  # steered, before there was a version
    desk.show("s2", version="v1")
    desk.show("s3", acting="adapter", version="v1", beta=0.0)
    desk.show("s4", version="v2")
    desk.journal.write(Selection("s4", 16, "human_reward", {"s4b": 1.0}, (LeftOut(1, 0.5, (7,), "a"),))).result()
    desk.show("s5", version="v9")  # never judged
    for uid in ("s1", "s2", "s3", "s4"):
        desk.say(Ranking(uid, {f"{uid}b": 1, f"{uid}a": 2}))
    duel(desk, "d1", ("adapter", "v2"), ("adapter", "v1"))
    duel(desk, "d2", ("base", "base"), ("acting", "v2"))
    duel(desk, "d3", ("adapter", "v1"), ("base", "base"), peeked=True)
    found = comparisons(desk.record._connection)
    assert [(vote.version, vote.outcome, vote.against) for vote in found] == [
        ("base (steered)", 1.0, "base"),
        ("v1", 1.0, "base"),
        ("v1 (adapter alone)", 1.0, "base"),
        ("v2 (best of 16)", 1.0, "base"),
        ("v2 (adapter alone)", 1.0, "v1 (adapter alone)"),
        ("base", 1.0, "v2"),
    ]
    assert {each.version: each.n for each in desk.record.verdict().strengths} == {
        "base": 5, "base (steered)": 1, "v1": 1, "v2": 1, "v1 (adapter alone)": 2, "v2 (adapter alone)": 1, "v2 (best of 16)": 1,
    }  # fmt: skip
    assert desk.record.verdict().strengths[0].version == "v2 (adapter alone)", "it never met the base, and beat who beat it"
    assert [vote.version for vote in votes(desk.record._connection)] == ["base", "v1", "v2"], "the word is of the acting policy in counted sets"


def test_only_comparisons_that_exist_are_counted() -> None:
    """Nobody meets themselves."""
    found = {each.version: each.n for each in strengths([Vote("v1", 1.0), Vote("base", 1.0)])}
    assert found == {"v1": 1, "base": 1}
    assert strengths([Vote("base", 1.0)]) == ()
