"""Taps: on disk with the words that had appeared, about what is on the screen, and the unseen rest is drawn anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from learners import protocol
from storage.history import Wanted, history
from storage.queries import Record
from storage.records import Arm, Calibration, Tap
from tamer_tui.debounce import DEBOUNCE_SECONDS, Debounce
from tamer_tui.operators import OperatorError
from tamer_tui.session import Session, SessionError, SessionSettings
from tamer_tui.simulated_taps import TapReader
from tests.tamer_tui.fake_engine import STORIES, FakeEngine
from tests.tamer_tui.table import PROMPTS, table

WORDS = STORIES[0].split(" ")


@asynccontextmanager
async def tapping(path: Path, engine: FakeEngine | None = None) -> AsyncIterator[Session]:
    """A session with one answer, drawn but not shown yet."""
    engine = engine or FakeEngine()
    session = Session(SessionSettings("fake", PROMPTS, autostart=False), lambda: engine, path)
    await session.start()
    try:
        await session.wait_ready()
        await session.taps.open_next()
        await session.sets.wait_ended()
        yield session
    finally:
        await session.close()


def show(session: Session, words: int, step: float = 0.2) -> float:
    """So many words more appear, one each step; the time of the last."""
    assert session.taps.answer is not None
    for _ in range(words):
        n = len(session.taps.answer.shown)
        session.taps.show(n + 1, 100 + n * step, wall=100 + n * step)
    return 100 + (len(session.taps.answer.shown) - 1) * step


async def test_a_tap_is_on_disk_with_what_was_on_the_screen_and_the_rest_is_drawn_anew(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with tapping(tmp_path / "a.db", engine) as session:
        now = show(session, 5)
        seq = await session.taps.tap(-1.0, "-", now + 0.1, wall=now + 0.1)
        assert session.taps.answer is not None
        with Record(tmp_path / "a.db") as record:
            ((found, tap),) = record.taps(session.taps.answer.uid)
            shown = record.shown(session.taps.answer.uid)
        assert found == seq and (tap.value, tap.key, tap.seconds, tap.whole) == (-1.0, "-", now + 0.1, False)
        assert shown is not None and "".join(shown.texts) == " ".join(WORDS[:5]) and shown.seconds[-1] == now
        await session.sets.wait_ended()
        assert "".join(session.taps.answer.pieces) == " ".join([*WORDS[:5], *(word.upper() for word in WORDS[5:])])
        sent = [type(c) for c in engine.received if isinstance(c, protocol.AddJudgement | protocol.ResumeFrom)]
        assert sent == [protocol.AddJudgement, protocol.ResumeFrom], "the rest is drawn by what was learned"
        lesson = next(c.lesson for c in engine.received if isinstance(c, protocol.AddJudgement))
        assert lesson.answers[0].text == " ".join(WORDS[:5]) and len(lesson.shown) == len(lesson.answers[0].token_ids) == 5


async def test_the_answer_is_kept_as_it_was_read_with_what_steered_each_part(tmp_path: Path) -> None:
    async with tapping(tmp_path / "a.db") as session:
        now = show(session, 5)
        await session.taps.tap(1.0, "+", now, wall=now)
        await session.sets.wait_ended()
        show(session, 3)
        answer = session.taps.answer
        assert answer is not None
        await session.taps.open_next()  # the rest is never seen
    with Record(tmp_path / "a.db") as record:
        (response,) = record.responses(answer.set_uid)
        shown = record.shown(answer.uid)
        assert response.text == " ".join([*WORDS[:5], *(word.upper() for word in WORDS[5:8])]) and response.stop == "stopped"
        assert shown is not None and len(shown.texts) == 8
        assert set(shown.h_epochs[:5]) == {0} and set(shown.h_epochs[5:]) == {1}, "Ĥ had learned from the tap"


async def test_taps_about_nothing_on_the_screen_are_counted_and_not_kept(tmp_path: Path) -> None:
    async with tapping(tmp_path / "a.db") as session:
        assert await session.taps.tap(1.0, "+", 100.0, wall=100.0) is None
        now = show(session, 3)
        assert await session.taps.tap(1.0, "+", now + 0.3, wall=now + 3600.0) is None, "the machine slept in between"
        assert session.taps.dropped == 2
        with Record(tmp_path / "a.db") as record:
            assert record.counts().taps == 0


async def test_after_the_grace_a_tap_is_about_the_whole_answer(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with tapping(tmp_path / "a.db", engine) as session:
        now = show(session, len(WORDS))
        assert session.taps.complete
        await session.taps.tap(1.0, "+", now + 0.9, wall=now + 0.9)  # the last word's turn, and the window
        await session.taps.tap(1.0, "+", now + 1.1, wall=now + 1.1)
        assert session.taps.answer is not None
        taps = [tap for _, tap in session.record.taps(session.taps.answer.uid)]
        assert [tap.whole for tap in taps] == [False, True]
        assert not any(isinstance(c, protocol.ResumeFrom) for c in engine.received), "there is no rest to draw anew"
        lessons = [c.lesson for c in engine.received if isinstance(c, protocol.AddJudgement)]
        assert len(lessons[0].shown) == len(WORDS) and lessons[1].shown == ()


async def test_undo_takes_a_tap_back_and_its_mark_goes(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with tapping(tmp_path / "a.db", engine) as session:
        now = show(session, 4)
        first = await session.taps.tap(1.0, "+", now, wall=now)
        await session.sets.wait_ended()
        await session.taps.tap(-1.0, "-", now + 0.2, wall=now + 0.2)
        assert session.taps.marks() == [(4, 1.0), (4, -1.0)]
        await session.judging.undo()
        assert session.taps.marks() == [(4, 1.0)] and set(engine.lessons) == {first}


async def test_a_restart_tells_the_engine_the_same_as_the_tap_did(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with tapping(tmp_path / "a.db", engine) as session:
        now = show(session, 5)
        await session.taps.tap(-1.0, "-", now + 0.1, wall=now + 0.1)
        await session.sets.wait_ended()
        now = show(session, 6)
        await session.taps.tap(1.0, "+", now + 0.1, wall=now + 0.1)
    again = FakeEngine()
    async with tapping(tmp_path / "a.db", again):
        assert len(engine.lessons) == 2 and again.lessons == engine.lessons


async def test_taps_of_a_killed_terminal_are_replayed_although_the_answer_was_never_finished(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with tapping(tmp_path / "a.db", engine) as session:
        now = show(session, 5)
        await session.taps.tap(-1.0, "-", now + 0.1, wall=now + 0.1)
        assert session.taps.answer is not None
        session.taps.answer.kept = True  # as if nobody had come to write the answer down
    with Record(tmp_path / "a.db") as record:
        (taught,) = record.lessons()
        assert taught.responses == () and taught.shown is not None and len(taught.shown.texts) == 5
    again = FakeEngine()
    async with tapping(tmp_path / "a.db", again):
        assert again.lessons == engine.lessons


async def test_a_calibration_counts_for_the_taps_after_it(tmp_path: Path) -> None:
    async with tapping(tmp_path / "a.db") as session:
        now = show(session, 5)
        before = await session.taps.tap(1.0, "+", now, wall=now)
        await session.taps.calibrate(Calibration(low=0.3, high=1.1))
        after = await session.taps.tap(1.0, "+", now + 0.1, wall=now + 0.1)
        windows = {taught.logged.seq: taught.window for taught in session.record.lessons()}
        assert windows[before or 0] is None and windows[after or 0] == Calibration(low=0.3, high=1.1)


@pytest.mark.parametrize("value", [0.0, 11.0, float("nan")])
async def test_what_is_no_tap_is_refused_in_one_line(tmp_path: Path, value: float) -> None:
    async with tapping(tmp_path / "a.db") as session:
        now = show(session, 3)
        with pytest.raises(SessionError, match="from -10 to 10"):
            await session.taps.tap(value, "+", now, wall=now)


def test_a_held_key_is_one_tap_with_a_count() -> None:
    keys = Debounce()
    assert [keys.press(1.0, "+", "a", t) for t in (1.0, 1.03, 1.06)] == [None, None, None]
    other = keys.press(-1.0, "-", "a", 1.08)
    assert other is not None and (other.key, other.seconds, other.repeat) == ("+", 1.0, 3)
    assert keys.settle(1.08 + DEBOUNCE_SECONDS / 2) is None
    settled = keys.settle(1.5)
    assert settled is not None and (settled.key, settled.seconds, settled.repeat) == ("-", 1.08, 1)
    assert keys.settle(2.0) is None
    keys.press(1.0, "+", "a", 3.0)
    of_another = keys.press(1.0, "+", "b", 3.01)
    assert of_another is not None and of_another.answer == "a"


async def test_an_engine_that_hangs_keeps_nobody(tmp_path: Path) -> None:
    class Hangs(FakeEngine):
        def send(self, command: protocol.Command) -> None:
            if not isinstance(command, protocol.Stop):
                super().send(command)

    session = Session(SessionSettings("fake", PROMPTS, autostart=False), lambda: Hangs(token_seconds=9.0), tmp_path / "a.db")
    await session.start()
    await session.wait_ready()
    await session.taps.open_next()
    await asyncio.wait_for(session.close(), 20)


# --- a program that taps ---------------------------------------------------------------------------------------------------


async def test_a_simulated_operator_reads_every_piece_and_taps_late(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def tap(prompt: str, shown: str, piece: str) -> float:
        seen.append((shown, piece))
        return 1.0 if piece.endswith("park") else 0.0

    class Steady(random.Random):
        def random(self) -> float:
            return 0.9

        def uniform(self, low: float, high: float) -> float:
            return 0.4

    async with tapping(tmp_path / "a.db") as session:
        reader = TapReader(session, tap, "t.py:tap", Steady())
        session.current = None
        session.sets.dealer._next = 0  # type: ignore[union-attr]
        await reader.read()
        (taught,) = session.record.lessons()
    assert all(shown.endswith(piece) for shown, piece in seen) and [piece for _, piece in seen].count("") == 1 and seen[-1][1] == ""
    assert isinstance(taught.logged.judgement, Tap) and taught.shown is not None
    park = next(i for i, text in enumerate(taught.shown.texts) if text.endswith("park"))
    assert taught.logged.judgement.seconds - taught.shown.seconds[park] == pytest.approx(0.4)
    assert taught.shown.texts[park + 4].isupper(), "the rest bent"


async def test_a_tapper_that_fails_is_named(tmp_path: Path) -> None:
    async with tapping(tmp_path / "a.db") as session:
        with pytest.raises(OperatorError, match="tap failed: ZeroDivisionError"):
            await TapReader(session, lambda prompt, shown, piece: 1 / 0, "t.py:tap", random.Random(0)).read()
        with pytest.raises(OperatorError, match="from -10 to 10"):
            await TapReader(session, lambda prompt, shown, piece: 99.0, "t.py:tap", random.Random(0)).read()


async def test_silence_counts_only_while_it_is_armed_and_one_stretch_is_one_judgement(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with tapping(tmp_path / "a.db", engine) as session:
        show(session, 2)
        assert session.taps.answer is not None
        uid = session.taps.answer.uid
        await session.taps.arm(True)
        now = show(session, 3)
        await session.taps.tap(1.0, "+", now + 0.1, wall=now + 0.1)
        await session.sets.wait_ended()
        now = show(session, 2)
        await session.taps.arm(False)
        show(session, 1)
        arms = [logged.judgement for logged in session.record.live() if isinstance(logged.judgement, Arm)]
        assert arms == [Arm(session.taps.answer.set_uid, uid, False, now, 100.4)]
        lesson = engine.lessons[max(engine.lessons)]
        assert isinstance(lesson.judgement, Arm) and len(lesson.shown) == 7
        await session.judging.undo()
        assert not any(isinstance(each.judgement, Arm) for each in engine.lessons.values())
        await session.taps.open_next()
    with Record(tmp_path / "a.db") as record:
        assert not any(isinstance(logged.judgement, Arm) for logged in record.live()), "it was off when the answer was left"


async def test_armed_silence_goes_on_from_answer_to_answer(tmp_path: Path) -> None:
    async with tapping(tmp_path / "a.db") as session:
        await session.taps.arm(True)
        show(session, 3)
        await session.taps.open_next()
        await session.sets.wait_ended()
        show(session, 2)
    with Record(tmp_path / "a.db") as record:
        arms = [logged.judgement for logged in record.live() if isinstance(logged.judgement, Arm)]
    assert [(arm.since, arm.seconds) for arm in arms] == [(100.0, 100.4), (100.0, 100.2)]


# --- on the screen ----------------------------------------------------------------------------------------------------------


async def test_the_tap_view_shows_one_answer_and_taps_stand_in_the_gutter(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine()) as t:
        await t.press("minus", "plus")
        assert t.live() == [], "these keys mean nothing in the Arena"
        await t.press("k")
        assert t.session.taps.answer is not None and len(t.arena.answers.panes) == 1 and "Tap + or -" in t.line("todo")
        assert "+ - tap" in t.painted()
        await t.press(*["greater_than_sign"] * 4)  # at once
        await t.until(lambda: t.session.taps.complete)
        await t.press("plus")
        await t.until(lambda: "▲" in t.shown())
        (tap,) = t.live()
        assert isinstance(tap, Tap) and tap.value == 1
        await t.press("u")
        assert t.live() == [] and "▲" not in t.shown()
        await t.press("enter")
        assert t.session.taps.answer is not None
        await t.press("k")
        assert t.session.taps.answer is None and len(t.arena.answers.panes) == 4
        await t.press("f2")
        assert t.session.taps.answer is None, "it is there already"
        await t.press("f3")
        assert t.session.taps.answer is not None
        await t.press("f2")
        assert t.session.taps.answer is None
        await t.press("f4")
        assert t.pilot.app.screen is not t.arena


@pytest.mark.parametrize("next_key", ["enter", "s", "u", "k", "f4", "escape"])
async def test_a_tap_is_of_the_answer_that_was_there_whatever_key_follows_at_once(tmp_path: Path, next_key: str) -> None:
    async with table(tmp_path, FakeEngine()) as t:
        await t.press("k", *["greater_than_sign"] * 4)
        await t.until(lambda: t.session.taps.complete)
        answer = t.session.taps.answer
        assert answer is not None
        await t.press("plus", next_key)
        await t.pilot.pause(2 * DEBOUNCE_SECONDS)
        (tap,) = history(t.path, Wanted(kind="tap"))
        assert isinstance(tap.judgement, Tap) and tap.judgement.response_uid == answer.uid and t.session.taps.dropped == 0
        assert (tap.undone_by is not None) == (next_key == "u")


async def test_silence_is_switched_by_its_key_and_said(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(), size=(200, 50)) as t:
        await t.press("k", "S")
        assert t.session.taps.silence and "silence counts" in t.line("said") and "Silence counts." in t.line("todo") and "S silence" in t.painted()
        await t.press("S")
        assert not t.session.taps.silence and "says nothing" in t.line("said")
