"""What a judgement says besides, as the learners see it: its best answer, or what was written, beats earlier answers too."""

from __future__ import annotations

import pytest

from learners.feedback.samples import over_name, whole_name
from learners.human_reward.evidence import evidence_of
from learners.human_reward.likelihood import Level, Pairs
from learners.protocol import Answer, Lesson
from storage.records import Correction, Demonstration, Ranking, Rating
from tests.learners.feedback.test_dataset import EOS, PROMPT, answer, book

OVER = (answer("x", "old"), answer("y", "older"))
RANKED = (answer("a", "one"), answer("b", "two"), answer("c", "three"))


def tokens(text: str) -> tuple[int, ...]:
    return (*map(ord, text), EOS)


def test_the_best_of_a_ranking_beats_earlier_answers_and_all_that_is_worth_one_comparison() -> None:
    found = book()
    found.add(Lesson(seq=5, judgement=Ranking("s", {"a": 1, "b": 1, "c": 2}), answers=RANKED, over=OVER))
    said, besides = evidence_of(found.snapshot())
    assert isinstance(said, Pairs) and isinstance(besides, Pairs)
    assert set(zip(besides.first, besides.second, besides.target, strict=True)) == {(b, over_name(5, o), 1.0) for b in "ab" for o in "xy"}
    assert said.weight == pytest.approx(2 / 3) and besides.weight == pytest.approx(1 / 4)
    ranking, derived = found.snapshot().comparisons()
    assert ranking.ranks == (1, 1, 2) and not ranking.derived
    assert (derived.ranks, derived.derived, derived.seq) == ((1, 1, None, None), True, 5)
    assert derived.answers == tuple(tokens(text) for text in ("one", "two", "old", "older"))


def test_a_score_stays_a_score_and_a_written_answer_beats_the_models_own_without_a_word_about_sureness() -> None:
    found = book()
    found.add(Lesson(seq=1, judgement=Rating("s", "a", 7), answers=RANKED[:1], over=OVER[:1]))
    blank = Answer(uid="", messages=PROMPT, text="")
    found.add(Lesson(seq=2, judgement=Demonstration("s", "mine"), answers=(blank,), over=OVER))
    found.add(Lesson(seq=3, judgement=Correction("s", "a", "once"), answers=RANKED[:1], over=OVER))
    score, rated, written, changed, corrected = evidence_of(found.snapshot())
    assert isinstance(score, Level) and isinstance(changed, Pairs) and changed.second == ("original:3",)
    assert isinstance(rated, Pairs) and (rated.first, rated.second) == (("a",), (over_name(1, "x"),))
    samples = found.snapshot().samples
    for seq, pairs, text in ((2, written, "mine"), (3, corrected, "once")):
        assert isinstance(pairs, Pairs) and (pairs.first, pairs.second) == ((whole_name(seq),) * 2, (over_name(seq, "x"), over_name(seq, "y")))
        assert samples[whole_name(seq)].token_ids == tokens(text)
        for name in (whole_name(seq), over_name(seq, "y")):
            assert samples[name].span == (0, len(samples[name].token_ids))
    assert samples[over_name(1, "x")].span is None
    assert [c.derived for c in found.snapshot().comparisons()] == [True, True, False, True]


def test_earlier_answers_that_are_too_long_are_left_out_and_nothing_else_is() -> None:
    found = book(context=20)
    unusable = (answer("long", "x" * 30),)
    found.add(Lesson(seq=1, judgement=Ranking("s", {"a": 1, "b": 2}), answers=RANKED[:2], over=unusable))
    (only,) = evidence_of(found.snapshot())
    assert isinstance(only, Pairs) and only.second == ("b",) and not found.refused
