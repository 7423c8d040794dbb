"""The tour of a first sitting goes on by what is done, ends when it is told to, and comes once."""

from __future__ import annotations

from pathlib import Path

from learners import protocol
from tamer_tui.app import TamerApp
from tamer_tui.session import Session, SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import PROMPTS, Table, table
from tests.tamer_tui.test_critiques import say


def tour(t: Table) -> str:
    return t.line("tour")


async def test_the_tour_follows_what_is_done_and_holds_up_no_key(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=6), (80, 24), model="pocket") as t:
        assert "Tour 1/7" in tour(t) and "best one" in tour(t)
        await t.press("a")
        assert "Tour 2/7" in tour(t)
        await t.press("enter")
        assert "(0 of 3)" in tour(t) and len(t.live()) == 1
        for done in (1, 2):
            await t.press("b", "enter")
            assert f"({done} of 3)" in tour(t)
        await t.press("c", "enter")
        assert "; says in words" in tour(t) and "Tour 4/7" in tour(t)
        await say(t, "shorter")
        assert "a version of your own comes" in tour(t)
        await t.press("a", "enter")
        await t.until(lambda: t.session.status.adapted)
        await t.pilot.pause()
        assert "k shows one answer at reading pace" in tour(t)
        await t.press("k", "k")
        assert "untouched model's, unmarked" in tour(t)
        await t.press("escape")
        assert tour(t) == ""


async def test_the_tour_does_not_come_again_nor_for_other_models(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "again").mkdir()
    async with table(tmp_path / "other", size=(80, 24)) as t:
        assert tour(t) == ""
        await t.pilot.app.screen.run_action("tour")
        assert "Tour 1/7" in tour(t)
    async with table(tmp_path, model="pocket") as t:
        await t.press("escape")
        assert tour(t) == ""
    async with table(tmp_path / "again", model="pocket") as t:
        assert tour(t) == ""


async def test_a_note_of_loading_is_no_failure(tmp_path: Path) -> None:
    engine = FakeEngine(ready=False)
    session = Session(SessionSettings("pocket", PROMPTS), lambda: engine, tmp_path / "a.db")
    await session.start()
    async with TamerApp(session).run_test(size=(80, 24)) as pilot:
        engine.emit(protocol.Notice(what="12 weights of experts stay as they are"))
        await pilot.pause()
        t = Table(pilot, session, engine, tmp_path)
        assert session.engine_state != "dead" and t.line("said") == "12 weights of experts stay as they are"
        assert "tamer models" in t.shown()
    await session.close()
