"""Saying it in words: one line about an answer, the same prompt anew, standing wishes and their strengths."""

from __future__ import annotations

from pathlib import Path

import pytest

from learners import protocol
from learners.feedback.critiques import Critiques
from storage.queries import Record
from storage.records import Critique, Prompt, Rating
from tamer_tui.screens.chat import ChatScreen
from tamer_tui.screens.critique import CritiqueScreen, WishesScreen
from tamer_tui.text import one_line
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


async def test_a_version_that_learned_from_an_undone_ranking_among_others_is_said_to_be_trained_anew(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=2)) as t:
        await say(t, "shorter", "tab")
        await t.press("a", "enter")
        await t.until(lambda: t.session.status.adapted)
        await t.press("u")
        assert "v1 learned from it, and is trained anew without" in t.arena.said and t.session.status.adapted


@pytest.mark.parametrize("how", ["undone", "off", "stronger"])
async def test_words_that_hold_no_more_are_left_at_once_for_the_newest_version_from_before(tmp_path: Path, how: str) -> None:
    """An adapter cannot take back what it absorbed of them; what was learned before stays."""
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await t.press("a", "enter", "enter")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        await say(t, "shorter", "tab")
        t.engine.publish()
        await t.until(lambda: t.session.status.acting[0] == "v2")
        await t.press("p")
        await t.press(*{"undone": "u", "off": ("W", "space"), "stronger": ("W", "right")}[how])
        await t.until(lambda: t.session.status.acting[0] == "v1")
        said = t.arena.said if how == "undone" else t.shown()
        assert "v2 learned from it: v1 answers until it is trained anew" in " ".join(said.replace("│", " ").split())
        assert [version.stale for version in t.session.machine.versions()] == [True, False]
        assert not t.session.status.held and t.session.status.paused, "learning was paused, and is"
        back = "U" if how == "undone" else "u"
        await t.press("escape", back)
        assert not any(version.stale for version in t.session.machine.versions())


async def test_a_wish_that_is_switched_off_teaches_nothing_so_nothing_is_promised(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await say(t, "shorter", "tab")
        await t.until(lambda: t.session.status.adapted)
        t.engine.publish_after = None
        await t.press("W", "space", "escape")
        await t.until(lambda: not t.session.status.adapted)
        with Record(t.path) as record:
            assert record.acting_version() is None and not record.held()
        assert [wish.strength for wish in t.session.judging.wishes()] == [0]


async def test_what_was_trained_while_a_wish_was_off_is_kept_when_it_comes_on(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, "shorter", "tab")
        await t.press("W", "space", "escape")
        await t.press("a", "enter", "enter")
        t.engine.publish()
        await t.until(lambda: t.session.status.acting[0] == "v1")
        await t.press("W", "space")
        assert "answers follow it from here on" in t.shown() and "learned from it" not in t.shown()
        await t.press("escape")
        assert "answers follow it from here on" in t.arena.said and not t.session.machine.versions()[0].stale
        await t.press("u")
        assert t.session.status.acting[0] == "v1" and not t.session.machine.versions()[0].stale


async def test_a_wish_that_is_switched_off_while_learning_is_held_is_left_when_that_goes_on(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await say(t, "shorter", "tab")
        await t.until(lambda: t.session.status.adapted)
        t.engine.publish_after = None
        await t.session.machine.rollback("v1")
        await t.press("W", "space")
        assert "✓ it is off" in t.shown() and "once" not in t.shown()
        await t.press("escape", "p")
        await t.until(lambda: not t.session.status.adapted)
        assert "learning goes on; v1 learned from it: the untouched model answers" in t.arena.said and not t.session.status.held


async def test_minus_means_the_opposite_and_says_so(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, "shorter", "tab")
        await t.press("W", "left", "left")
        assert "answers follow its opposite from here on" in t.shown()


async def test_a_wish_that_was_said_at_two_sets_is_left_by_its_version_too(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await say(t, "shorter", "tab")
        await t.until(lambda: t.session.status.adapted)
        t.engine.publish_after = None
        await t.press("s")
        await say(t, "shorter", "tab")
        assert not any(version.stale for version in t.session.machine.versions()), "it holds as it was learned"
        await t.press("W", "space", "escape")
        await t.until(lambda: not t.session.status.adapted)
        await t.press("s")
        assert {candidate.policy for candidate in t.session.set.candidates} == {"acting"}, "nothing steers"


async def test_a_critique_of_one_set_said_again_after_an_undo_can_be_undone_again(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for keys in ((), ("u", "U"), ("u",)):
            await t.press(*keys)
            if keys != ("u",):
                await say(t, "shorter")
        assert "undone" in t.arena.said and t.session.current is not None


async def test_undoing_a_strength_says_which_one_holds_again_and_leaves_the_open_set_alone(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, "shorter", "tab")
        await t.press("W", "right", "space", "escape")
        await t.press("s")
        here = t.session.set.uid
        await t.press("u")  # the skip
        for said in ("«shorter» is +2 again", "«shorter» is +1 again"):
            open_now = t.session.set.uid
            await t.press("u")
            assert f"undone: {said}" in t.arena.said and t.session.set.uid == open_now
        await t.press("U")
        assert "redone: «shorter» is +2 again" in t.arena.said and here != ""


async def test_tab_goes_from_one_answer_to_all_prompts_to_all_answers_and_a_left_line_keeps_its_place(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for tabs, box, one, scope in (
            (0, "about answer b, for this prompt", True, "prompt"),
            (1, "for all prompts: a standing wish", False, "all"),
            (2, "about all 4 answers, for this prompt", False, "prompt"),
        ):
            view = t.session.set
            await t.press("right", "semicolon", *["tab"] * tabs)
            assert box in t.shown()
            await t.press("h", "i", "escape", "semicolon")
            assert box in t.shown()
            await t.press("enter")
            assert t.live()[-1] == Critique(view.uid, view.candidates[1].uid if one else None, "hi", scope)  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "until"), [("B", "once steering is on: B"), ("", "from here on")])
async def test_what_is_said_is_followed_from_then_on_or_it_is_said_what_it_waits_for(tmp_path: Path, key: str, until: str) -> None:
    async with table(tmp_path) as t:
        await t.press(*[key] if key else [])
        await say(t, "shorter")
        assert f"answers to this prompt follow it {until}" in t.arena.said
        assert ("answers follow your" in t.line("rail").lower()) is (not key)


async def test_while_learning_is_held_words_wait_and_nothing_says_that_answers_follow_them(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("a", "enter", "enter")
        await t.session.machine.rollback("base")
        await say(t, "shorter")
        assert "once learning goes on: p" in t.arena.said
        shown = " ".join(t.line("rail").lower().split())
        assert "answers follow your" not in shown and "steered" not in shown and "what you say waits" in shown
        assert {candidate.policy for candidate in t.session.set.candidates} == {"acting"}, "nothing steers: no place is the base's"


async def test_a_critique_of_one_prompt_steers_no_other_so_nothing_is_counted_there(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await say(t, "shorter")
        assert "base" in {candidate.policy for candidate in t.session.set.candidates}
        await t.press("s")
        assert {candidate.policy for candidate in t.session.set.candidates} == {"acting"}
        await say(t, "warmer", "tab")
        await t.press("s")
        assert "base" in {candidate.policy for candidate in t.session.set.candidates}


async def test_of_many_wishes_the_list_shows_those_around_the_chosen_one(tmp_path: Path) -> None:
    async with table(tmp_path, size=(80, 24)) as t:
        for i in range(30):
            await t.session.judging.criticise(None, f"wish {i}", "all")
        await t.press("W")
        for keys in (["up"], ["down"], ["down"] * 15):
            await t.press(*keys)
            screen = t.pilot.app.screen
            assert isinstance(screen, WishesScreen)
            shown = t.shown()
            assert f"▸  +1  {one_line(screen._wishes[screen.focused_wish].text)} " in shown and "of 30" in shown and "esc leave" in shown


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
