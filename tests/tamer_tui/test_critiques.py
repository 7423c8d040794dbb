"""Saying it in words: one line about an answer, the same prompt anew, standing wishes and their strengths."""

from __future__ import annotations

from pathlib import Path

from learners import protocol
from learners.feedback.critiques import Critiques
from storage.queries import Record
from storage.records import Critique, Prompt, Rating
from tamer_tui.screens.chat import ChatScreen
from tamer_tui.screens.critique import CritiqueScreen, WishesScreen
from tamer_tui.widgets.conversation import ConversationView
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, table
from tests.tamer_tui.test_modes import go


async def say(t: Table, text: str, *keys: str) -> None:
    await t.press("semicolon")
    assert isinstance(t.pilot.app.screen, CritiqueScreen)
    await t.press(*("space" if c == " " else c for c in text), *keys, "enter")


async def test_a_line_is_on_disk_and_the_same_prompt_is_answered_anew_after_the_engine_knows_it(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        first = t.session.set
        await t.press("right")
        await say(t, "be warm")
        assert t.live() == [Critique(first.uid, first.candidates[1].uid, "be warm", "prompt")]
        assert t.session.set.uid != first.uid and t.session.set.prompt == first.prompt
        kinds = [type(command) for command in t.engine.received]
        last = len(kinds) - 1 - kinds[::-1].index(protocol.Generate)
        added = next(i for i, command in enumerate(t.engine.received) if isinstance(command, protocol.AddJudgement))
        assert added < last
        lesson = t.engine.received[added].lesson  # type: ignore[union-attr]
        assert lesson.answers[0].messages == first.prompt.messages and "on disk" in t.arena.said
        await t.press("u")
        assert t.live() == [] and t.session.set.uid == first.uid and not t.engine.lessons


async def test_tab_makes_it_a_standing_wish_whose_strength_is_changed_in_a_list(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, "shorter", "tab")
        (wish,) = t.session.judging.wishes()
        assert (wish.text, wish.scope, wish.strength) == ("shorter", "all", 1)
        await t.press("W")
        assert isinstance(t.pilot.app.screen, WishesScreen)
        for keys, strength in ((("right",), 2), (("right", "right"), 3), (("space",), 0), (("space",), 3), (("left",) * 8, -3)):
            await t.press(*keys)
            assert [each.strength for each in t.session.judging.wishes()] == [strength]
            assert [lesson.judgement.strength for lesson in t.engine.lessons.values()] == [strength]  # type: ignore[union-attr]
        await t.press("space", "escape", "W", "space", "escape")  # off, and on again in another look at them
        assert [each.strength for each in t.session.judging.wishes()] == [-3]
        await t.press("u", "u", "u")
        assert [each.strength for each in t.session.judging.wishes()] == [-2]


async def test_a_wish_that_was_said_twice_is_one_and_off_once_it_is_switched_off(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, "shorter", "tab")
        await say(t, "shorter", "tab")
        assert len(t.live()) == 2 and len(t.session.judging.wishes()) == 1
        assert len(Critiques.of(t.engine.lessons.values()).lessons) == 1
        await t.press("W", "space")
        assert [each.strength for each in t.session.judging.wishes()] == [0]
        assert Critiques.of(t.engine.lessons.values()).lessons == ()


async def test_at_80_columns_the_list_of_wishes_says_how_one_is_said_and_all_of_its_keys(tmp_path: Path) -> None:
    async with table(tmp_path, size=(80, 24)) as t:
        await t.press("W")
        shown = t.shown()
        assert "none yet: ; says one" in shown and "esc leave" in shown and "space off, on" in shown


async def test_a_version_whose_last_lesson_is_undone_acts_no_more_and_learning_goes_on(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await say(t, "shorter", "tab")
        await t.until(lambda: t.session.status.adapted)
        await say(t, "warmer")
        await t.press("u")
        await t.until(lambda: t.session.machine.versions()[0].acting)
        assert t.session.status.adapted and "trained anew" not in t.arena.said, "what it learned stands"
        await t.press("u")
        await t.until(lambda: not t.session.status.adapted)
        assert "the untouched model answers" in t.arena.said
        (version,) = t.session.machine.versions()
        assert version.stale and not version.acting and not t.session.status.held and not t.session.status.paused
        with Record(t.path) as record:
            assert record.acting_version() is None and not record.held()


async def test_a_version_that_learned_from_what_is_undone_among_others_is_said_to_be_trained_anew(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=2)) as t:
        await say(t, "shorter", "tab")
        await say(t, "warmer")
        await t.until(lambda: t.session.status.adapted)
        await t.press("u")
        assert "v1 learned from it, and is trained anew without" in t.arena.said and t.session.status.adapted


async def test_an_empty_line_says_so_and_is_no_event_and_a_left_one_keeps_its_draft(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, " ")
        assert t.live() == [] and "the critique is empty" in t.arena.said
        await t.press("semicolon", "a", "b", "escape")
        await say(t, "c")
        assert [judgement.text for judgement in t.live()] == ["abc"] or [judgement.text for judgement in t.live()] == [" abc"]  # type: ignore[union-attr]


async def test_in_the_tap_view_the_prompt_comes_again_at_reading_pace(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("k")
        prompt: Prompt = t.session.set.prompt
        await say(t, "no")
        assert t.session.set.purpose == "tap" and t.session.set.prompt == prompt


async def test_in_a_chat_any_turn_is_answered_anew_and_an_undo_brings_it_and_what_followed_back(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await go(t, "chat")
        chat, screen = t.session.chat, t.pilot.app.screen
        assert isinstance(screen, ChatScreen)
        for text in ("Hello", "And"):
            await t.press(*text, "enter")
            await t.until(lambda: bool(chat.turns) and chat.turns[-1].ended)
        before = list(chat.turns)
        await t.press("escape", "up", "semicolon")
        assert isinstance(t.pilot.app.screen, CritiqueScreen)
        await t.press(*"warm", "enter")
        await t.until(lambda: len(chat.turns) == 1 and chat.turns[-1].ended)
        (said,) = t.live()
        assert said == Critique(before[0].uid, before[0].candidates[0].uid, "warm", "prompt")
        assert chat.turns[0].uid != before[0].uid and chat.turns[0].prompt.messages == before[0].prompt.messages
        await t.press("plus")  # it stands, and beats the one that was criticised
        lessons = t.engine.lessons.values()
        assert [[a.uid for a in lesson.over] for lesson in lessons if isinstance(lesson.judgement, Rating)] == [[before[0].candidates[0].uid]]
        await t.press("u", "u")
        assert t.live() == [] and not t.engine.lessons and chat.turns == before
        assert "you ▸ And" in screen.query_one(ConversationView).text
        await t.press("semicolon", "space", "enter")
        assert t.live() == [] and chat.turns == before
