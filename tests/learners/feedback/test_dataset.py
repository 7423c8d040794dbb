"""What judgements become for the learners."""

from __future__ import annotations

import pytest

from learners.feedback.corrections import changed_span
from learners.feedback.dataset import FeedbackDataset
from learners.feedback.samples import original_name, silence_name, written_name
from learners.human_reward.evidence import evidence_of
from learners.human_reward.likelihood import Level, Pairs
from learners.model.chat_format import fit_prompt
from learners.protocol import Answer, Lesson
from storage.records import Arm, Correction, Demonstration, Message, Ranking, Rating, Tap

EOS = 0
PROMPT = (Message("user", "hello"),)


def book(context: int = 100, **more: object) -> FeedbackDataset:
    """One token a character, each a word of its own."""
    return FeedbackDataset(
        lambda messages, room: fit_prompt([ord(c) for c in messages[-1].content], room, 0),
        lambda messages, text: [*(ord(c) for c in text), EOS],
        lambda ids: [f" {chr(i)}" for i in ids],
        frozenset({EOS}),
        context,
        **more,  # type: ignore[arg-type]
    )


def answer(uid: str, text: str, stop: str = "eos") -> Answer:
    ids = tuple(ord(c) for c in text) + ((EOS,) if stop == "eos" else ())
    return Answer(uid=uid, messages=PROMPT, text=text, prompt_ids=tuple(ord(c) for c in "hello"), token_ids=ids, stop=stop)  # type: ignore[arg-type]


def test_a_ranking_becomes_one_comparison_with_its_ties_and_unmentioned_answers() -> None:
    found = book()
    found.add(Lesson(seq=1, judgement=Ranking("s", {"b": 1, "a": 1}), answers=(answer("a", "x"), answer("b", "y"), answer("c", "z"))))
    (comparison,) = found.snapshot().comparisons()
    assert comparison.ranks == (1, 1, None)
    (pairs,) = evidence_of(found.snapshot())
    assert isinstance(pairs, Pairs)
    assert sorted(zip(pairs.first, pairs.second, pairs.target, strict=True)) == [("a", "b", 0.5), ("a", "c", 1.0), ("b", "c", 1.0)]


def test_a_correction_is_a_target_and_a_pair_about_the_changed_words_only() -> None:
    found = book()
    found.add(Lesson(seq=3, judgement=Correction("s", "a", "my dog sat"), answers=(answer("a", "my cat sat"),)))
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
    found.add(Lesson(seq=1, judgement=Correction("s", "a", "my dog sat on the old red m"), answers=(cut,)))
    found.add(Lesson(seq=2, judgement=Correction("s", "a", "my cat sat. The end."), answers=(cut,)))
    kept, ended = (target.token_ids for _, target in found.snapshot().targets())
    assert kept[-1] != EOS
    assert ended[-1] == EOS


def test_ratings_are_centred_on_the_operators_own_mean() -> None:
    found = book()
    for seq, (uid, value) in enumerate([("a", 7), ("b", 6), ("c", 7), ("d", 6)], start=1):
        found.add(Lesson(seq=seq, judgement=Rating("s", uid, value), answers=(answer(uid, uid),)))
    levels = [item.score for item in evidence_of(found.snapshot()) if isinstance(item, Level)]
    mean = (2 * 4 + 26) / 6
    assert levels == pytest.approx([(value - mean) / 3 for value in (7, 6, 7, 6)])


def test_a_demonstration_is_only_a_target() -> None:
    found = book()
    found.add(Lesson(seq=1, judgement=Demonstration("s", "well"), answers=(Answer(uid="", messages=PROMPT, text=""),)))
    assert [target.prompt_ids for _, target in found.snapshot().targets()] == [tuple(ord(c) for c in "hello")]
    assert evidence_of(found.snapshot()) == []


def test_what_was_removed_leaves_no_trace_and_an_old_snapshot_stays_as_it_was() -> None:
    found = book()
    found.add(Lesson(seq=1, judgement=Ranking("s", {"a": 1, "b": 2}), answers=(answer("a", "x"), answer("b", "y"))))
    before = found.snapshot()
    assert found.remove(1) and not found.remove(1)
    assert len(found.snapshot()) == 0 and len(before) == 1


def test_imported_answers_are_tokenised_and_long_prompts_keep_their_first_token_and_their_end() -> None:
    found = book(context=6)
    found.add(Lesson(seq=1, judgement=Rating("s", "a", 5), answers=(Answer(uid="a", messages=PROMPT, text="hi"),)))
    sample = found.snapshot().samples["a"]
    assert sample.token_ids == (ord("h"), ord("i"), EOS)
    assert sample.prompt_ids == tuple(map(ord, "hlo"))
    assert found.dropped_tokens == 2


@pytest.mark.parametrize(
    ("before", "after", "span"),
    [("abc", "abc", (3, 3)), ("abc", "axc", (1, 2)), ("abc", "abxc", (2, 3)), ("aa", "a", (1, 1)), ("", "xy", (0, 2)), ("xy", "", (0, 0))],
)
def test_the_changed_span_leaves_out_what_both_share(before: str, after: str, span: tuple[int, int]) -> None:
    assert changed_span([ord(c) for c in before], [ord(c) for c in after]) == span


def watched(seq: int, judgement: Tap | Arm, text: str, pace: float = 0.25) -> Lesson:
    """An answer of which each character was on the screen for `pace` seconds, from 0 on."""
    return Lesson(
        seq=seq, judgement=judgement, answers=(answer(judgement.response_uid, text, "stopped"),), shown=tuple(i * pace for i in range(len(text)))
    )


def test_silence_denies_what_taps_said_of_the_same_kind_of_token_elsewhere() -> None:
    found = book()
    found.add(watched(1, Tap("s", "a", 1.0, "+", 1.0), "uvxyz"))  # about y at 0.75 s, x at 0.5 s or v at 0.25 s
    assert {s.token_ids[s.span[0]] for s in found.snapshot().samples.values() if s.span} >= {ord("x")}
    found.add(watched(2, Arm("s", "b", False, 9.0, 0.0), "pxpqx"))
    silent = [i for i in evidence_of(found.snapshot()) if isinstance(i, Level) and i.score == 0]
    assert [level.uid for level in silent] == [silence_name(2, 1), silence_name(2, 4)], "of p and q nobody said anything"
    assert all(0 < level.weight < 1 for level in silent)
    found.remove(1)
    assert evidence_of(found.snapshot()) == []


def test_silence_is_not_about_what_was_tapped_nor_about_what_was_just_there_nor_about_what_was_there_before() -> None:
    found = book()
    found.add(watched(1, Tap("s", "a", 1.0, "+", 1.0), "xxxxxxxx"))
    tapped = {s.span[0] for s in found.snapshot().samples.values() if s.span}
    found.add(watched(2, Arm("s", "a", False, 2.0, 0.2), "xxxxxxxx"))
    silent = {s.span[0] for s in found.snapshot().silent(found.snapshot().lessons[1]) if s.span}
    assert 0 not in silent, "it was there before silence counted"
    assert silent and not silent & tapped
    together = Lesson(seq=3, judgement=Arm("s", "b", False, 2.0, 0.0), answers=(answer("b", "xxxx", "stopped"),), shown=(0.0, 0.0, 0.0, 2.0))
    found.add(together)
    assert {s.span for s in found.snapshot().silent(together)} == {(0, 1)}, "the second was there until just now"
    assert max(silent) <= 4, "about a character that appeared at 1.5 s a tap could still come at 2.3 s"


def thoughtful() -> FeedbackDataset:
    """What stands before a '|' is a thought; what a person writes follows an empty one."""

    def spoken(prompt: tuple[int, ...], ids: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        n = ids.index(ord("|")) + 1 if ord("|") in ids else len(ids)
        return (*prompt, *ids[:n]), ids[n:]

    return book(spoken=spoken, no_thought=(ord("|"),))


def test_taps_and_silence_are_about_what_was_said_not_about_what_was_thought() -> None:
    found, plain = thoughtful(), book()
    found.add(watched(1, Tap("s", "a", 1.0, "+", 3.0), "uvxyz|abcdefg"))
    shown = tuple((i + 6) * 0.25 for i in range(7))
    plain.add(Lesson(seq=1, judgement=Tap("s", "a", 1.0, "+", 3.0), answers=(answer("a", "abcdefg", "stopped"),), shown=shown))
    spans, expected = ({name: s.span for name, s in each.snapshot().samples.items()} for each in (found, plain))
    assert spans == expected and spans
    for sample in found.snapshot().samples.values():
        assert bytes(sample.prompt_ids) == b"hellouvxyz|" and bytes(sample.token_ids) == b"abcdefg"
    found.add(watched(2, Tap("s", "b", 1.0, "+", 1.0), "uvxyz|abcdefg"))
    assert found.samples(2) == (), "it was tapped while it thought"
    found.add(watched(3, Arm("s", "a", False, 9.0, 0.0), "uvxyz|abcdefg"))
    assert {s.token_ids[s.span[0]] for s in found.samples(3) if s.span} == set(b"abcdefg")


def test_answers_after_their_own_thoughts_are_compared_and_a_thought_alone_is_no_answer() -> None:
    found = thoughtful()
    texts = {"a": "hm|x", "b": "so|yy", "c": "thinking on"}
    found.add(Lesson(seq=1, judgement=Ranking("s", {"a": 1, "b": 2, "c": 3}), answers=tuple(answer(u, t, "length") for u, t in texts.items())))
    (comparison,) = found.snapshot().comparisons()
    assert [bytes(p) for p in comparison.prompts] == [b"hellohm|", b"helloso|"] and [bytes(a) for a in comparison.answers] == [b"x", b"yy"]
    assert found.snapshot().prompts() == [tuple(b"hello")]
    found.add(Lesson(seq=2, judgement=Correction("s", "c", "said"), answers=(answer("c", "thinking on", "length"),)))
    ((_, target),) = found.snapshot().targets()
    assert bytes(target.prompt_ids) == b"hello|" and bytes(target.token_ids) == b"said\0"
