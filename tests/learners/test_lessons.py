"""What judgements become for the learners."""

from __future__ import annotations

import pytest

from learners.lessons import LessonBook, changed_span, original_name, written_name
from learners.live_reward import evidence_of
from learners.preferences import Level, Pairs
from learners.protocol import Answer, Lesson
from storage.records import Correction, Demonstration, Message, Ranking, Rating

EOS = 0
PROMPT = (Message("user", "hello"),)


def book(context: int = 100) -> LessonBook:
    """One token a character."""
    return LessonBook(
        lambda messages: [ord(c) for c in messages[-1].content], lambda messages, text: [*(ord(c) for c in text), EOS], frozenset({EOS}), context
    )


def answer(uid: str, text: str, stop: str = "eos") -> Answer:
    ids = tuple(ord(c) for c in text) + ((EOS,) if stop == "eos" else ())
    return Answer(uid, PROMPT, text, tuple(ord(c) for c in "hello"), ids, stop)  # type: ignore[arg-type]


def test_a_ranking_becomes_one_comparison_with_its_ties_and_unmentioned_answers() -> None:
    found = book()
    found.add(Lesson(1, Ranking("s", {"b": 1, "a": 1}), (answer("a", "x"), answer("b", "y"), answer("c", "z"))))
    (comparison,) = found.snapshot().comparisons()
    assert comparison.ranks == (1, 1, None)
    (pairs,) = evidence_of(found.snapshot())
    assert isinstance(pairs, Pairs)
    assert sorted(zip(pairs.first, pairs.second, pairs.target, strict=True)) == [("a", "b", 0.5), ("a", "c", 1.0), ("b", "c", 1.0)]


def test_a_correction_is_a_target_and_a_pair_about_the_changed_words_only() -> None:
    found = book()
    found.add(Lesson(3, Correction("s", "a", "my dog sat"), (answer("a", "my cat sat"),)))
    lessons = found.snapshot()
    ((seq, target),) = lessons.targets()
    assert seq == 3 and target.token_ids == (*(ord(c) for c in "my dog sat"), EOS)
    assert lessons.samples[written_name(3)].span == (3, 6)
    assert lessons.samples[original_name(3)].span == (3, 6)
    (pairs,) = evidence_of(lessons)
    assert isinstance(pairs, Pairs) and pairs.first == (written_name(3),) and pairs.second == (original_name(3),)


def test_a_kept_ragged_end_is_not_learned_as_an_ending() -> None:
    found = book()
    cut = answer("a", "my cat sat on the old red m", stop="length")
    found.add(Lesson(1, Correction("s", "a", "my dog sat on the old red m"), (cut,)))
    found.add(Lesson(2, Correction("s", "a", "my cat sat. The end."), (cut,)))
    kept, ended = (target.token_ids for _, target in found.snapshot().targets())
    assert kept[-1] != EOS
    assert ended[-1] == EOS


def test_ratings_are_centred_on_the_operators_own_mean() -> None:
    found = book()
    for seq, (uid, value) in enumerate([("a", 7), ("b", 6), ("c", 7), ("d", 6)], start=1):
        found.add(Lesson(seq, Rating("s", uid, value), (answer(uid, uid),)))
    levels = [item.score for item in evidence_of(found.snapshot()) if isinstance(item, Level)]
    mean = (2 * 4 + 26) / 6
    assert levels == pytest.approx([(value - mean) / 3 for value in (7, 6, 7, 6)])


def test_a_demonstration_is_only_a_target() -> None:
    found = book()
    found.add(Lesson(1, Demonstration("s", "well"), (Answer("", PROMPT, ""),)))
    assert [target.prompt_ids for _, target in found.snapshot().targets()] == [tuple(ord(c) for c in "hello")]
    assert evidence_of(found.snapshot()) == []


def test_what_was_removed_leaves_no_trace_and_an_old_snapshot_stays_as_it_was() -> None:
    found = book()
    found.add(Lesson(1, Ranking("s", {"a": 1, "b": 2}), (answer("a", "x"), answer("b", "y"))))
    before = found.snapshot()
    assert found.remove(1) and not found.remove(1)
    assert len(found.snapshot()) == 0 and len(before) == 1


def test_imported_answers_are_tokenised_and_long_prompts_cut_on_the_left() -> None:
    found = book(context=4)
    found.add(Lesson(1, Rating("s", "a", 5), (Answer("a", PROMPT, "hi"),)))
    sample = found.snapshot().samples["a"]
    assert sample.token_ids == (ord("h"), ord("i"), EOS)
    assert sample.prompt_ids == (ord("o"),)
    assert found.dropped_tokens == 4


@pytest.mark.parametrize(
    ("before", "after", "span"),
    [("abc", "abc", (3, 3)), ("abc", "axc", (1, 2)), ("abc", "abxc", (2, 3)), ("aa", "a", (1, 1)), ("", "xy", (0, 2)), ("xy", "", (0, 0))],
)
def test_the_changed_span_leaves_out_what_both_share(before: str, after: str, span: tuple[int, int]) -> None:
    assert changed_span([ord(c) for c in before], [ord(c) for c in after]) == span
