"""The screens beside the Arena: each shows what is there, keeps what is on it, and what is said on it is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, Static, TextArea

from learners import protocol
from storage.records import Comment, Correction, Flag, Prompt, Ranking, Rating
from tamer_tui.app import TamerApp
from tamer_tui.keys import MODES
from tamer_tui.screens.chat import ChatScreen
from tamer_tui.screens.compare import CompareScreen
from tamer_tui.screens.learning import LearningScreen
from tamer_tui.screens.log import LogScreen, tail
from tamer_tui.screens.record import KINDS, RecordScreen
from tamer_tui.screens.versions import VersionsScreen
from tamer_tui.session import Change, Session, SessionSettings
from tamer_tui.widgets.conversation import ConversationView
from tamer_tui.widgets.lines import Line
from tamer_tui.widgets.plot import Plot
from tamer_tui.widgets.rows import Rows
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import PROMPTS, Table, table

SCREENS = {
    "versions": VersionsScreen, "chat": ChatScreen, "compare": CompareScreen, "learning": LearningScreen, "record": RecordScreen, "log": LogScreen,
}  # fmt: skip
HOSTILE = "[/b] [@click=app.quit]x[/] \x1b[31mred \x9b2J \u202etxt"


async def go(t: Table, mode: str) -> None:
    """By its letter after the leader key."""
    await t.press("j", MODES[mode][0])
    await t.until(lambda: isinstance(t.pilot.app.screen, SCREENS[mode]))
    await t.pilot.pause()


def said(t: Table) -> str:
    return str(t.pilot.app.screen.query_one("#said", Static).content)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_every_screen_opens_by_function_key_and_leader_and_esc_leads_back(tmp_path: Path, size: tuple[int, int]) -> None:
    async with table(tmp_path, FakeEngine((HOSTILE,), publish_after=1), size, prompts=(Prompt.of(HOSTILE),)) as t:
        await t.press("a", "enter")
        await t.session.chat.say(HOSTILE)
        await t.session.duels.open_next()
        for n, mode in enumerate(MODES, start=2):
            if mode not in SCREENS:
                continue
            await t.press(f"f{n}")
            await t.until(lambda: isinstance(t.pilot.app.screen, SCREENS[mode]))  # noqa: B023
            for columns, rows in ((41, 12), size):
                await t.pilot.resize_terminal(columns, rows)
                await t.pilot.pause()
            assert not set(t.shown()) & set("\x1b\x9b\u202e")
            await t.press("escape", "escape")
            await t.until(lambda: t.pilot.app.screen is t.arena)
        assert len(t.live()) == 1


async def test_a_chat_goes_on_turn_by_turn_and_any_turn_is_judged_rewritten_and_branched_from(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        arena = t.session.current
        await go(t, "chat")
        chat = t.session.chat
        for text in ("Hello", "And then?"):
            await t.press(*text, "enter")
            await t.until(lambda: bool(chat.turns) and chat.turns[-1].ended)
        assert [message.role for message in chat.turns[1].prompt.messages] == ["user", "assistant", "user"]
        assert "you ▸ And then?" in t.pilot.app.screen.query_one(ConversationView).text and t.session.current is arena, "the Arena keeps its set"
        await t.press("up", "escape", "minus")
        (rating,) = t.live()
        assert isinstance(rating, Rating) and rating.response_uid == chat.turns[0].candidates[0].uid and rating.value == 1
        assert "▼" in t.shown() and t.engine.lessons
        await t.press("u")
        assert t.live() == [] and "▼" not in t.shown() and t.session.current is arena
        await t.press("r")
        t.pilot.app.screen.query_one(TextArea).text = "Better."
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert [type(j) for j in t.live()] == [Correction] and len(chat.turns) == 1, "what followed the old words is left"
        await t.until(lambda: "goes on from it" in said(t))
        t.pilot.app.screen.set_focus(None)
        await t.press("plus")
        assert [type(j) for j in t.live()] == [Correction] and "your own words" in said(t), "the model did not say them"
        drawn = t.session.record.responses(chat.turns[0].uid)[0].text
        await t.press("u")
        assert t.live() == [] and chat.turns[0].candidates[0].said == drawn and "Better." not in t.shown()
        await t.session.judging.redo()
        await t.pilot.pause()
        assert [type(j) for j in t.live()] == [Correction] and "Better." in t.shown()
        await t.press("i", *"More", "enter")
        await t.until(lambda: len(chat.turns) == 2 and chat.turns[-1].ended)
        assert chat.turns[1].prompt.messages[1].content == "Better."
        await t.press(*"/nonsense", "enter")
        assert "there is no /nonsense" in said(t) and len(chat.turns) == 2
        t.pilot.app.screen.query_one(Input).value = "/new"
        await t.press("enter")
        assert chat.turns == []


@pytest.mark.parametrize("key", ["enter", "s", "escape", "u"])
async def test_what_is_drawn_for_another_screen_is_not_cut_by_the_arena(tmp_path: Path, key: str) -> None:
    async with table(tmp_path, FakeEngine(token_seconds=0.02)) as t:
        await t.until(lambda: t.session.current is not None and t.session.current.ended)
        await t.press("a", "enter")
        await t.until(lambda: t.session.current is not None and t.session.current.ended)
        await t.press("a")
        await t.session.chat.say("Tell me")
        answer = t.session.chat.turns[0].candidates[0]
        await t.press(key)
        assert answer.ended is None
        await t.until(lambda: answer.ended is not None)
        assert answer.ended == "eos"


async def test_a_chat_that_is_longer_than_the_screen_stays_at_its_end(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(("a long story " * 200,), token_seconds=0.0), (60, 20)) as t:
        await go(t, "chat")
        await t.session.chat.say("Tell me")
        await t.until(lambda: t.session.chat.turns[-1].ended)
        view = t.pilot.app.screen.query_one(ConversationView)
        await t.until(lambda: view.scroll_offset.y > 10 and view.scroll_offset.y == view.max_scroll_y)


async def test_words_to_be_tapped_wait_while_another_screen_is_on(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("k")
        await go(t, "chat")
        answer = t.session.taps.answer
        assert answer is not None and answer.ended
        shown = len(answer.shown)
        for _ in range(30):
            t.arena.answers.frame()
        assert len(answer.shown) == shown < len(answer.pieces)
        await t.press("escape", "escape")
        for _ in range(30):
            t.arena.answers.frame()
        assert len(answer.shown) > shown


async def test_a_comparison_is_blind_until_the_choice_is_on_disk_and_is_counted_apart(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await go(t, "compare")
        await t.press("enter")
        assert "nothing was taught yet" in said(t)
        await t.press("escape", "a", "enter")
        before = t.session.blind_all
        await go(t, "compare")
        await t.press("enter")
        await t.until(lambda: t.session.duels.current is not None and t.session.duels.current.ended)
        await t.pilot.pause()
        screen = t.pilot.app.screen
        assert isinstance(screen, CompareScreen) and not any("untouched" in str(pane.border_title) for pane in screen.panes)
        view = t.session.duels.current
        assert view is not None and sorted(c.policy for c in view.candidates) == ["acting", "base"]
        mine = next(c for c in view.candidates if c.policy == "acting")
        await t.press(mine.letter)
        assert isinstance(t.live()[-1], Ranking) and "you preferred your model" in said(t)
        assert (t.session.duels.count.wins, t.session.duels.count.n) == (1, 1) and t.session.blind_all == before
        assert any("untouched" in str(pane.border_title) for pane in screen.panes)
        await t.press("u")
        await t.until(lambda: t.session.duels.count.n == 0 and not view.committed)
        await t.press(mine.letter)
        assert isinstance(t.live()[-1], Ranking) and t.session.duels.count.n == 0, "which was which was told"


def lines_of_the_only_export(folder: Path) -> int:
    (path,) = folder.glob("*.jsonl")
    return len(path.read_text().splitlines())


async def test_the_record_is_searched_commented_on_taken_back_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with table(tmp_path) as t:
        await t.press("b", "a", "enter", "5", "tab", "2")
        await go(t, "record")
        rows = t.pilot.app.screen.query_one(DataTable)
        await t.until(lambda: rows.row_count == 3)
        await t.press("k")
        await t.until(lambda: rows.row_count == 1 and "b > a" in t.shown())
        await t.press("c")
        t.pilot.app.screen.query_one(TextArea).text = "a close one"
        await t.pilot.press("ctrl+s")
        await t.until(lambda: any(isinstance(j, Comment) and j.text == "a close one" for j in t.live()))
        await t.press("F", "b", "r")
        await t.until(lambda: any(isinstance(j, Flag) and (j.response_uid[-1], j.label) == ("1", "refusal") for j in t.live()))
        assert "flagged: refusal" in said(t)
        await t.press("u")
        await t.until(lambda: len(t.live()) == 4)
        await t.press(*["k"] * (len(KINDS) - 1))
        await t.press("slash", *"close")
        await t.until(lambda: rows.row_count == 1 and "a close one" in t.shown())
        await t.press("escape", "u")
        await t.until(lambda: len(t.live()) == 3)
        await t.press("E")
        await t.until(lambda: "rows in" in said(t))
        assert lines_of_the_only_export(tmp_path) > 0


async def test_the_charts_follow_what_is_learned_and_no_number_is_a_gap(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await go(t, "learning")
        for step, loss in enumerate((1.0, float("nan"), float("inf"), 0.25)):
            t.engine.emit(protocol.Metrics(stage="distill", step=step, of=9, loss=loss))
        speed = t.pilot.app.screen.query_one(".speed", Plot)
        await t.until(lambda: len(speed.values) == 4)  # of the answers that were drawn before anybody looked
        chart = t.pilot.app.screen.query_one(".taught", Plot)
        await t.until(lambda: len(chart.values) == 4)
        assert "0.250" in str(chart.border_title) and "taking in your judgements" in str(t.pilot.app.screen.query_one("#now", Line).content)
        await t.press("p")
        assert t.session.status.paused and "paused" in said(t), "the machine's keys work on every screen"


async def test_versions_are_drawn_as_a_tree_and_say_what_they_learned_from(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await t.press("a", "enter")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        t.engine.publish("worse on 12 prompts", published=False)
        await t.until(lambda: len(t.session.machine.versions()) == 2)
        await go(t, "versions")
        screen = t.pilot.app.screen
        await t.press("down")
        assert screen.query_one(DataTable).row_count == 3
        for key, row in (("end", 2), ("home", 0), ("down", 1)):
            await t.press(key)
            assert screen.query_one(DataTable).cursor_row == row
        await t.until(lambda: "learned from 1 judgement" in str(screen.query_one("#hint", Static).content))


def test_the_log_is_followed_from_where_it_was_read_and_anew_when_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    assert tail(path, 0) == ("", 0)
    path.write_text("one\n")
    assert tail(path, 0) == ("one\n", 4)
    path.write_text("one\ntwo\n")
    assert tail(path, 4) == ("two\n", 8)
    path.write_text("new\n")
    assert tail(path, 8) == ("new\n", 4)


async def test_a_version_that_arrives_moves_neither_the_cursor_nor_the_question_from_theirs(tmp_path: Path) -> None:
    engine = FakeEngine(publish_after=1)
    async with table(tmp_path, engine) as t:
        await t.press("a", "enter", "enter")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        await go(t, "versions")
        screen = t.pilot.app.screen
        assert isinstance(screen, VersionsScreen)
        rows = screen.query_one(Rows)
        while rows.chosen != "base":
            await t.press("down")
        await t.press("enter")
        assert screen.chosen == "base"
        engine.publish()
        await t.until(lambda: len(t.session.machine.versions()) == 2)
        await t.pilot.pause()
        assert rows.chosen == "base" and screen.chosen == "base"
        await t.press("y")
        await t.until(lambda: t.session.status.acting[0] == "base" and t.session.status.held)


async def test_what_the_engine_says_after_the_screens_are_gone_harms_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(("a long story " * 100,))
    session = Session(SessionSettings("fake", PROMPTS), lambda: engine, tmp_path / "a.db")
    await session.start()
    app = TamerApp(session)
    async with app.run_test(size=(60, 20)) as pilot:
        await session.wait_ready()
        for mode in SCREENS:
            await app.action_mode(mode)
            await pilot.pause()
    for change in Change:
        session.tell(change)
    await session.close()


async def test_keys_that_move_a_cursor_choose_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await go(t, "record")
        await t.press("end", "home", "pagedown", "enter", "c", "F")
        assert t.pilot.app.is_running and "notes are about answers" in said(t)


NOTES = ("the model is stored as fp8 and was unpacked to bfloat16", "the adapter in /home/jo/adapter is part of the base")


async def test_all_that_is_remarked_as_a_model_loads_can_be_read(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(notes=NOTES), (160, 40)) as t:
        assert t.line("said") == " · ".join(NOTES) and t.session.notice == NOTES[1]
        await go(t, "learning")
        await t.until(lambda: all(note in t.shown() for note in NOTES))
        t.engine.emit(protocol.Notice(what="later"))
        await t.until(lambda: t.session.standing == "later")
        t.engine.die()
        await t.until(lambda: "signal 9" in t.session.standing)
        await t.session.engine.restart()
        await t.until(lambda: t.session.standing == " · ".join(NOTES))
