"""What is said while an answer appears: taps are kept raw, beside exactly what was on the screen."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from storage.journal import JournalError
from storage.records import Arm, Calibration, Critique, Flag, Judgement, Pace, Present, Prompt, Redo, SampleSet, Shown, Span, Tap, Undo

from .conftest import SITTING, WATCHING, Desk, answer


def shown(start: int, *texts: str, uid: str = "s1a", set_uid: str = "s1") -> Shown:
    n = len(texts)
    seconds = tuple(10.0 + (start + i) / 8 for i in range(n))
    return Shown(set_uid, uid, start, tuple(range(start, start + n)), texts, seconds, (3,) * n, (0.5,) * n)


def tap(value: float = 1.0, seconds: float = 10.5, uid: str = "s1a") -> Tap:
    return Tap("s1", uid, value, "+", seconds, "2026-11-24T00:00:01.250Z")


@pytest.fixture
def appearing(desk: Desk) -> Desk:
    """A set whose answers are still being drawn."""
    desk.journal.write(SampleSet("s1", SITTING.uid, Prompt.of("tell me"), 2)).result()
    return desk


def test_everything_said_beside_a_judgement_comes_back_as_it_was_given(desk: Desk) -> None:
    desk.show("s1", k=2)
    for judgement in WATCHING:
        desk.say(judgement)
    first = next(said for said in WATCHING if isinstance(said, Critique))  # its strength was changed by a later one
    assert tuple(logged.judgement for logged in desk.record.live()) == tuple(said for said in WATCHING if said is not first)


def test_a_tap_on_an_answer_that_is_still_being_drawn_is_kept_and_joined_to_it_later(appearing: Desk) -> None:
    appearing.journal.write(shown(0, "Once", " upon"))
    seq = appearing.say(tap())
    assert appearing.record.taps("s1a") == [(seq, tap())]
    before = appearing.record.lesson(seq)
    appearing.journal.write(answer("s1", 0)).result()
    after = appearing.record.lesson(seq)
    assert after.responses == (appearing.record.responses("s1")[0],)
    assert (before.shown, after.shown) == (shown(0, "Once", " upon"),) * 2


def test_a_tap_before_anything_was_shown_is_a_lesson_without_an_answer(appearing: Desk) -> None:
    lesson = appearing.record.lesson(appearing.say(tap()))
    assert (lesson.responses, lesson.shown) == ((), None)


def test_what_was_shown_comes_back_in_order_and_only_goes_on_where_it_ended(appearing: Desk) -> None:
    texts = tuple(f" {i}" for i in range(12))
    appearing.journal.write(shown(0, *texts[:5]))
    appearing.journal.write(shown(5, *texts[5:])).result()
    assert appearing.record.shown("s1a") == shown(0, *texts)
    assert appearing.record.shown("s1b") is None
    for start in (0, 11, 13):
        error = appearing.journal.write(shown(start, "x")).exception()
        assert isinstance(error, JournalError) and error.message.startswith("12 tokens of answer s1a were shown")
    assert appearing.record.shown("s1a") == shown(0, *texts)


def test_shown_columns_of_unequal_length_or_for_another_set_are_refused(appearing: Desk) -> None:
    appearing.show("s2", k=1, blind=False)
    appearing.journal.write(shown(0, "x"))
    for wrong in (Shown("s1", "s1b", 0, (1, 2), ("a",), (0.0,), (0,), (0.0,)), shown(1, "x", set_uid="s2"), shown(0, "x", set_uid="s9")):
        assert isinstance(appearing.journal.write(wrong).exception(), JournalError)


@pytest.mark.parametrize(
    ("judgement", "line"),
    [
        (tap(0.0), "a tap of 0 is none"),
        (tap(10.5), "a tap of 10.5 is none"),
        (tap(float("nan")), "a tap of nan is none"),
        (tap(seconds=float("inf")), "seconds is not a finite number"),
        (Tap("s1", "s1a", 1.0, "+", 1.0, "", repeat=0), "a tap is at least one press"),
        (Tap("s9", "s1a", 1.0, "+", 1.0, ""), "there is no set s9"),
        (Tap("s2", "s1a", 1.0, "+", 1.0, ""), "there is no answer s1a in set s2"),
        (Tap("s1", "", 1.0, "+", 1.0, ""), "there is no answer  in set s1"),
        (Arm("s2", "s1a", True, 0.0), "there is no answer s1a in set s2"),
        (Arm("s1", "s1a", False, 1.0, 1.5), "a stretch of silence from 1.5 to 1 s is none"),
        (Pace("s1", 0.0, 1.0), "a pace is more than 0"),
        (Present("s1", ("s1a", "s1a"), 1.0), "each answer is presented once"),
        (Present("s1", (), 1.0), "each answer is presented once"),
        (Calibration("uniform", 0.8, 0.2, None, None, "local", ()), "a window from 0.8 to 0.2 s is none"),
        (Calibration("uniform", 0.2, 0.8, None, None, "local", (0.3, float("nan"))), "delays is not a finite number"),
        (Calibration("gamma", 0.2, 0.8, None, 0.1, "local", ()), "the record does not fit the database: CHECK"),
        (Span("s1", "s1a", 2, 2, "x"), "the answer has no characters 2 to 2"),
        (Span("s1", "s1a", 0, 10_000, "x"), "the answer has no characters 0 to 10000"),
        (Flag("s1", "s1a", " "), "the text is empty"),
        (Flag("s1", "s1z", "x"), "there is no answer s1z in set s1"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused_in_one_line(desk: Desk, judgement: Judgement, line: str) -> None:
    desk.show("s1", k=2)
    desk.show("s2", k=2)
    assert desk.refusal(judgement).startswith(line)
    assert desk.record.log() == []


def test_taps_of_one_answer_stand_beside_each_other_and_each_is_undone_alone(appearing: Desk) -> None:
    for value in (1.0, 1.0, -1.0):
        appearing.say(tap(value))
    appearing.say(Undo(2))
    assert [seq for seq, _ in appearing.record.taps("s1a")] == [1, 3]
    assert [lesson.logged.seq for lesson in appearing.record.lessons()] == [1, 3]
    appearing.say(Redo(2))
    assert [seq for seq, _ in appearing.record.taps("s1a")] == [1, 2, 3]
    assert appearing.record.taps("s1b") == []


def test_pace_presentation_and_calibration_are_neither_undone_nor_learned_from(desk: Desk) -> None:
    desk.show("s1", k=2)
    for judgement in WATCHING:
        seq = desk.say(judgement)
        lasting = isinstance(judgement, Pace | Present | Calibration)
        undone = desk.journal.append(Undo(seq)).exception() is None
        assert undone is not lasting
    assert desk.record.lessons() == []


def test_calibrations_come_back_oldest_first_and_a_tap_goes_by_the_one_before_it(desk: Desk) -> None:
    desk.show("s1", k=2)
    windows = [Calibration("uniform", 0.2, high, None, None, over, (0.5,)) for high, over in ((1.0, "local"), (2.0, "ssh"))]
    assert desk.record.calibrations() == []
    seqs = []
    for window in windows:
        seqs.append(desk.say(tap()))
        desk.say(window)
    seqs.append(desk.say(tap()))
    assert desk.record.calibrations() == windows
    assert [desk.record.lesson(seq).window for seq in seqs] == [None, *windows]


def test_any_tool_reads_taps_with_their_prompt_and_answer(appearing: Desk) -> None:
    appearing.journal.write(shown(0, "Once", " upon"))
    appearing.say(tap(2.0))
    appearing.say(tap(-1.0, uid="s1b"))
    appearing.journal.write(answer("s1", 1, text="finished"))
    appearing.say(tap(5.0))
    appearing.say(Undo(3))
    with closing(sqlite3.connect(appearing.path)) as other:
        rows = other.execute("SELECT seq, value, prompt, answer FROM v_taps ORDER BY seq").fetchall()
    assert rows == [(1, 2.0, "tell me", "Once upon"), (2, -1.0, "tell me", "finished")]


def test_a_stretch_of_silence_teaches_with_what_appeared_and_can_be_undone(appearing: Desk) -> None:
    appearing.journal.write(shown(0, "Once", " upon"))
    seq = appearing.say(Arm("s1", "s1a", False, 9.0, 0.5))
    (lesson,) = appearing.record.lessons()
    assert lesson.logged.seq == seq and lesson.shown is not None and lesson.shown.texts == ("Once", " upon")
    appearing.say(Undo(seq))
    assert appearing.record.lessons() == []


def test_a_prompt_is_judged_by_a_tap_and_not_by_a_comment(desk: Desk) -> None:
    desk.show("s1", k=2)
    for judgement in WATCHING:
        if not isinstance(judgement, Tap | Arm | Critique):
            desk.say(judgement)
    assert desk.record.judged_prompts() == set()
    desk.say(tap())
    assert desk.record.judged_prompts() == {desk.record.sample_set("s1").prompt.uid}
