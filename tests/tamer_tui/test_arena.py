"""The Arena under a real Session and database, with a scripted engine: only keys that are painted on the screen are pressed."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Static, TextArea

from learners import protocol
from storage.records import Correction, Demonstration, Ranking, Rating, Skip
from tamer_tui.app import TamerApp, farewell
from tamer_tui.keys import ARENA
from tamer_tui.screens.arena import ArenaScreen
from tamer_tui.session import Session, SessionSettings
from tamer_tui.widgets.candidate_pane import CandidatePane
from tamer_tui.widgets.lines import PromptBox
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import PROMPTS, painted, table

HOSTILE = "[/b] and [@click=app.quit]x[/] \x1b[31mred\x1b[0m \x9b2J tab\there nul\x00 wide 漢字 👩\u200d👩\u200d👧 " + "w" * 3000


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_pressing_only_painted_keys_reaches_a_published_version(tmp_path: Path, size: tuple[int, int]) -> None:
    async with table(tmp_path, FakeEngine(publish_after=2), size) as t:
        for letters in ("bd", "ca"):
            painted = t.painted()
            assert "a-d rank" in painted and "enter commit" in painted
            await t.press(*letters, "enter")
        await t.pilot.pause()
        assert t.session.status.acting[0] == "v1"
        assert len(t.live()) == 2 and t.session.machine.versions()[0].published
        assert "acting: v1" in t.line("heading")


async def test_the_line_says_what_to_do_and_shows_the_ranking_as_it_is_typed(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        assert "Best first: type letters, then enter" in t.line("todo")
        await t.press("b", "t", "a", "d")
        assert "b = a > d" in t.line("todo")
        await t.press("backspace")
        assert "b = a" in t.line("todo") and "d" not in t.line("todo").split("(")[0]
        await t.press("enter")
        (ranking,) = t.live()
        assert isinstance(ranking, Ranking) and sorted(ranking.ranks.values()) == [1, 1]
        assert "✓ b = a on disk" in t.line("said")


async def test_a_score_is_on_disk_at_its_key_and_its_mark_shows_only_then(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        assert "✓" not in str(t.arena.answers.panes[1].border_subtitle)
        await t.press("tab", "6")
        (rating,) = t.live()
        assert isinstance(rating, Rating) and rating.value == 6
        assert "✓ overall 6" in str(t.arena.answers.panes[1].border_subtitle)
        await t.press("m", "2", "m", "m", "m", "0")
        assert {(r.criterion, r.value) for r in t.live()} == {("truthful", 2)}  # type: ignore[attr-defined]


async def test_keys_at_the_wrong_moment_never_become_a_label(tmp_path: Path) -> None:
    async with table(tmp_path, k=2) as t:
        await t.press("e", "i", "t", "backspace", "enter", "9", "q", "z", "plus", "minus")
        assert t.live() == [] and t.arena.ballot.empty
        assert "Nothing judged yet" in t.line("said")


async def test_commit_keys_are_ignored_right_after_a_new_set_appears(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        t.arena._opened = float("inf")
        await t.pilot.press("b", "enter", "x", "s")
        assert t.live() == []
        await t.press("enter")
        assert len(t.live()) == 1


async def test_with_two_answers_one_letter_chooses(tmp_path: Path) -> None:
    async with table(tmp_path, k=2) as t:
        await t.press("a", "b", "enter")
        (ranking,) = t.live()
        assert isinstance(ranking, Ranking)
        assert {uid[-1]: rank for uid, rank in ranking.ranks.items()} == {"1": 1, "0": 2}


async def test_one_answer_is_scored_not_ranked(tmp_path: Path) -> None:
    async with table(tmp_path, k=1) as t:
        assert "Score it 1-7" in t.line("todo")
        first = t.session.current
        await t.press("a", "7", "enter")
        assert [type(j) for j in t.live()] == [Rating] and t.session.current is not first


async def test_all_bad_scores_every_answer_one(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("x", "enter")
        assert [r.value for r in t.live()] == [1, 1, 1, 1]  # type: ignore[attr-defined]


async def test_skip_undo_and_redo(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        first = t.session.current
        await t.press("s")
        assert isinstance(t.live()[0], Skip) and t.session.current is not first
        await t.press("u")
        assert t.live() == [] and t.session.current is not None and first is not None and t.session.current.uid == first.uid
        assert "undone: the skip" in t.line("said")
        await t.press("U")
        assert isinstance(t.live()[0], Skip)


async def test_rewriting_and_writing_keep_drafts_until_saved(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("r")
        area = t.pilot.app.screen.query_one(TextArea)
        assert area.text == t.session.current.candidates[0].text  # type: ignore[union-attr]
        area.text = "A better story."
        await t.pilot.press("escape")
        await t.pilot.pause()
        assert t.live() == []
        await t.press("r")
        assert t.pilot.app.screen.query_one(TextArea).text == "A better story."
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        await t.press("w")
        t.pilot.app.screen.query_one(TextArea).text = "The ideal one."
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert [type(j) for j in t.live()] == [Correction, Demonstration]


async def test_a_typed_prompt_and_a_continued_conversation_open_sets(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("n")
        t.pilot.app.screen.query_one(TextArea).text = "Hello [/b] there"
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert t.session.current.prompt.text == "Hello [/b] there"  # type: ignore[union-attr]
        await t.session.sets.wait_ended()
        await t.press("l")
        t.pilot.app.screen.query_one(TextArea).text = "And then?"
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert [m.role for m in t.session.current.prompt.messages] == ["user", "assistant", "user"]  # type: ignore[union-attr]


async def test_hostile_text_is_shown_as_plain_text(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine((HOSTILE,)), size=(80, 24)) as t:
        await t.press("a")
        shown = t.arena.answers.panes[0].stream.text
        assert "[/b] and [@click=app.quit]x[/] [31mred[0m" in shown
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
        await t.pilot.resize_terminal(61, 20)
        await t.pilot.resize_terminal(200, 50)
        await t.press("n")
        await t.pilot.press("escape")
        assert t.pilot.app.is_running


async def test_a_dead_engine_shows_a_banner_judging_goes_on_and_r_restarts_it(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        t.engine.die()
        await t.pilot.pause()
        assert "R restarts it" in t.line("todo") and "R restart" in t.painted()
        await t.press("c", "enter")
        assert len(t.live()) == 1
        await t.press("R")
        await t.session.wait_ready()
        assert [type(c) for c in t.engine.received].count(protocol.Load) == 2


async def test_versions_roll_back_after_one_confirmation(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=1)) as t:
        await t.press("a", "enter")
        await t.pilot.pause()
        await t.press("V", "down", "enter")
        assert t.session.status.acting[0] == "v1", "enter alone does not roll back"
        await t.pilot.press("y")
        await t.pilot.pause()
        assert t.session.status.held and t.session.status.acting[0] == "base"
        await t.press("p")
        assert not t.session.status.held


async def test_machine_keys_reach_the_engine(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("B", "p", "T")
        sent = [c for c in t.engine.received if isinstance(c, protocol.Set)]
        assert protocol.Set(bias=False) in sent and protocol.Set(paused=True) in sent and protocol.Set(train_now=True) in sent
        await t.press("N")
        t.pilot.app.screen.query_one(TextArea).text = "eight"
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert "eight is not a number" in t.line("said")
        await t.press("N")
        t.pilot.app.screen.query_one(TextArea).text = "8"
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert t.session.status.nats == 8


async def test_before_the_model_is_there_the_screen_says_what_is_loading(tmp_path: Path) -> None:
    session = Session(SessionSettings("fake", PROMPTS), lambda: FakeEngine(ready=False), tmp_path / "a.db")
    await session.start()
    async with TamerApp(session).run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        arena = pilot.app.screen
        assert "Loading fake: weights 50 %" in str(arena.query_one("#todo", Static).content)
        await pilot.press("a", "enter", "s", "u", "r", "space", "v", "1")
        assert pilot.app.is_running
    await session.close()


async def test_what_is_typed_while_the_model_loads_opens_when_it_is_there(tmp_path: Path) -> None:
    engine = FakeEngine(ready=False)
    session = Session(SessionSettings("fake", PROMPTS), lambda: engine, tmp_path / "a.db")
    await session.start()
    async with TamerApp(session).run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("n", *"pm 1", "ctrl+s")
        await pilot.pause()
        arena = pilot.app.screen
        assert isinstance(arena, ArenaScreen) and arena.criterion == "overall" and not session.status.paused, "no letter was a command"
        assert "opens as soon as the model is loaded" in arena.said and "pm 1" in painted(pilot.app)
        engine.loads = True
        await session.engine.restart()
        await session.wait_ready()
        await pilot.pause()
        assert session.current is not None and session.current.prompt.text == "pm 1"
    await session.close()


async def test_figures_and_names_have_room_on_a_narrow_screen_too(tmp_path: Path) -> None:
    async with table(tmp_path, size=(80, 24)) as t:
        await t.press("a", "enter")
        assert "Ĥ" not in t.shown()
        await t.press("D")
        assert "β" in t.shown() and "nats" in t.shown()
        await t.press("D")
        assert t.pilot.app.screen is t.arena and len(t.live()) == 1


async def test_without_an_engine_nobody_is_said_to_answer_or_to_know_nothing(tmp_path: Path) -> None:
    async with table(tmp_path, size=(80, 24)) as t:
        await t.press("a", "enter")
        await t.until(lambda: "answers follow your 1 ranking" in t.shown())
        t.engine.die()
        await t.until(lambda: "1 judgement on disk" in t.shown())
        assert "nothing learned yet" not in t.shown() and "answering:" not in t.shown()


async def test_what_is_typed_while_an_engine_starts_again_opens_when_it_is_there(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        left = t.session.current
        t.engine.die()
        t.engine.loads = False
        await t.session.engine.restart()
        await t.session.sets.open_prompt("Once more")
        t.engine.loads = True
        await t.session.engine.restart()
        await t.session.wait_ready()
        await t.until(lambda: t.session.current is not left)
        assert t.session.current is not None and t.session.current.prompt.text == "Once more"


async def test_help_lists_every_binding_and_each_has_an_id_and_a_tooltip(tmp_path: Path) -> None:
    assert all(binding.id and binding.tooltip for binding in ARENA)
    assert len({binding.id for binding in ARENA}) == len(ARENA)
    keys = [key for binding in ARENA for key in binding.key.split(",")]
    assert len(set(keys)) == len(keys), "no key means two things"
    async with table(tmp_path) as t:
        await t.press("question_mark")
        page = "\n".join(str(static.content) for static in t.pilot.app.screen.query(Static))
        assert "Roll back" in page or "roll back" in page
        await t.pilot.press("escape")
        assert isinstance(t.pilot.app.screen, ArenaScreen)


async def test_the_card_says_where_everything_is_and_how_to_go_on(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("a", "enter")
        card = farewell(t.session)
        assert f"1 judgement in {t.path}" in card and f"tamer {t.path}" in card


async def test_only_keys_that_work_are_painted_and_enter_leads_back_from_a_comparison(tmp_path: Path) -> None:
    async with table(tmp_path, size=(200, 50)) as t:
        before = t.session.current
        await t.press("o")
        await t.session.sets.wait_ended()
        assert t.session.current is not before and "a-" not in t.painted() and "skip" not in t.painted() and "rewrite" not in t.painted()
        await t.press("a", "3", "x", "s", "r")
        assert not t.live() or not any(hasattr(judgement, "value") for judgement in t.live())
        await t.press("enter")
        assert t.session.current is before and "a-d rank" in t.painted()


async def test_the_mark_of_what_is_on_disk_shows_also_where_no_next_set_can_open(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        t.engine.die()
        await t.press("b", "a", "enter")
        assert t.line("said").startswith("✓ b > a on disk · the engine is not running")


async def test_panes_that_overflow_while_another_size_is_laid_out_stay_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with table(tmp_path, FakeEngine(("A short one.",)), size=(80, 24)) as t:
        await t.until(lambda: t.arena.answers.complete)
        answers, overflows = t.arena.answers, [True]
        monkeypatch.setattr(CandidatePane, "overflows", property(lambda pane: overflows[0]))
        with t.pilot.app.batch_update():
            answers.frame()
            overflows[0] = False
            answers.frame()
        await t.pilot.pause(0.2)
        assert not answers.has_class("tabs")
        overflows[0] = True
        await t.until(lambda: answers.has_class("tabs"))


@pytest.mark.parametrize("size", [(80, 24), (80, 40), (200, 50), (50, 20)])
async def test_of_a_long_prompt_the_end_is_seen_where_the_answers_begin(tmp_path: Path, size: tuple[int, int]) -> None:
    async with table(tmp_path, size=size) as t:
        await t.session.sets.open_prompt("There was a very long story. " * 40 + "And then the dog")
        for columns, rows in (size, (100, 30), (60, 50)):
            await t.pilot.resize_terminal(columns, rows)
            await t.pilot.pause()
            box = t.arena.query_one(PromptBox)
            lines = str(box.content).splitlines()
            assert lines[0].startswith("… ") and lines[-1].endswith("the dog")
            assert len(lines) == box.size.height and all(len(line) <= box.size.width for line in lines)


async def test_a_versions_reason_is_read_in_full_on_a_narrow_screen(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(publish_after=99), size=(80, 24)) as t:
        t.engine.publish("worse than the acting policy on 12 prompts, by more than one standard error", published=False)
        await t.pilot.pause(0.3)
        await t.press("V")
        assert "by more than one standard error" in str(t.pilot.app.screen.query_one("#hint", Static).content)


async def test_at_80_by_24_short_answers_are_a_grid_and_long_ones_rows_with_their_first_words(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(["A short one."] * 4), (80, 24)) as t:
        await t.press("b", "backspace")
        assert t.shown().count("A short one.") == 4 and not t.arena.answers.has_class("tabs")
        t.engine.texts = [f"Answer number {n} " + "goes on and on. " * 30 for n in range(4)]
        await t.press("a", "enter", "b", "backspace")
        await t.until(lambda: t.arena.answers.has_class("tabs"))
        await t.pilot.pause()
        assert all(f"Answer number {n}" in t.shown() for n in range(4))
        await t.pilot.click("#tabs", offset=(40, 2))
        assert t.arena.focused_slot == 2
        await t.press("a", "enter")
        assert t.arena.answers.has_class("tabs"), "the last ones were long"


async def test_prompts_that_were_typed_before_come_back_the_last_first(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for text in ("one", "two", "one"):
            await t.session.sets.open_prompt(text)
        await t.until(lambda: t.session.record.typed_prompts() == ["one", "two"])
        await t.press("n", *"new")
        area, found = t.pilot.app.screen.query_one(TextArea), []
        for _ in range(3):
            await t.pilot.press("ctrl+r")
            found.append(area.text)
        assert found == ["one", "two", "new"]
