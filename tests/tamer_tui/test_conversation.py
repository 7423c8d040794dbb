"""A conversation as it is painted: what grew is what was there at once, and complete answers are Markdown."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.app import App, ComposeResult
from textual.widgets import TextArea

from learners import protocol
from storage.records import Comment, Flag
from tamer_tui import clipboard
from tamer_tui.keys import MODES
from tamer_tui.screens.chat import ChatScreen
from tamer_tui.widgets.conversation import ConversationView, Spoken
from tamer_tui.widgets.finished_view import FinishedView
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table

WORDS = ["dog", "cat", "\n", " ", "漢字", "e\u0301", "a-very-long-word-that-is-wider-than-the-view", "# x", "[/b]", "שלום", "\n\n"]
MARKDOWN = "# Dogs\n\n- one **dog**\n- two\n\n```python\nx = 1\n```\n"


class Two(App[None]):
    CSS = "ConversationView { width: 30; }"

    def compose(self) -> ComposeResult:
        yield ConversationView(id="grew")
        yield ConversationView(id="given")


async def test_what_grew_word_by_word_is_painted_as_what_was_given_at_once() -> None:
    rng = random.Random(7)
    app = Two()
    async with app.run_test(size=(60, 20)) as pilot:
        grew, given = app.query_one("#grew", ConversationView), app.query_one("#given", ConversationView)
        turns: list[Spoken] = []
        for _ in range(4):
            asked, said = " ".join(rng.choices(WORDS, k=8)), ""
            for word in rng.choices(WORDS, k=40):
                said += word
                grew.show([*turns, Spoken(asked, said, False)])
            turns.append(Spoken(asked, said, True))
            grew.show(turns)
        given.show(turns)
        await pilot.pause()
        await app.workers.wait_for_complete()
        assert grew.text == given.text and grew.text.count("you ▸") == 4
        await pilot.resize_terminal(50, 12)
        await pilot.pause()
        grew.show(turns[:2])
        given.show(turns[:1])
        given.show(turns[:2])
        await app.workers.wait_for_complete()
        assert grew.text == given.text and grew.text.count("you ▸") == 2


async def test_a_complete_answer_of_a_chat_is_markdown_or_plain_and_is_copied_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    async def copy(app: object, text: str) -> None:
        copied.append(text)

    monkeypatch.setattr(clipboard, "copy", copy)
    engine = FakeEngine((MARKDOWN,), finish=False)
    async with table(tmp_path, engine, (80, 24)) as t:
        await t.press("j", MODES["chat"][0])
        await t.until(lambda: isinstance(t.pilot.app.screen, ChatScreen))
        await t.session.chat.say("Which dogs?")
        await t.until(lambda: "x = 1" in t.shown())
        assert "# Dogs" in t.shown() and "```" in t.shown(), "while it comes it is plain"
        engine.finish = True
        await t.session.chat.stop()
        await t.until(lambda: "• two" in t.shown())
        assert "```" not in t.shown() and "**" not in t.shown() and "# Dogs" not in t.shown()
        await t.press("escape", "y", "Y", "plus")
        assert copied.pop() == "x = 1"
        assert "▸▲ model ▸" in t.shown()
        await t.press("M", "y")
        await t.until(lambda: "```python" in t.shown() and "# Dogs" in t.shown())
        assert "▸▲ model ▸" in t.shown()
        assert copied[0] == copied[1] == MARKDOWN
        await t.press("i")
        await t.press(*"/markdown", "enter")
        await t.until(lambda: "• two" in t.shown())
        await t.session.chat.say("And?")
        await t.until(lambda: t.session.chat.turns[-1].ended)
        await t.until(lambda: t.shown().count("• two") == 2)


class Both(App[None]):
    def compose(self) -> ComposeResult:
        yield ConversationView()
        yield FinishedView()


def code_style(view: ConversationView | FinishedView) -> str:
    found = [segment.style for y in range(view.size.height) for segment in view.render_line(y) if segment.text == "x()"]
    return str(found[0].color) if found and found[0] is not None else ""


async def test_what_was_rendered_is_rendered_anew_for_a_theme_of_the_other_kind() -> None:
    app = Both()
    async with app.run_test(size=(60, 20)) as pilot:
        conversation, finished = app.query_one(ConversationView), app.query_one(FinishedView)
        conversation.show([Spoken("Which?", "call `x()` then", True)])
        finished.show("call `x()` then", True, True)
        for theme, colour in (("textual-dark", "cyan"), ("textual-light", "blue"), ("textual-dark", "cyan")):
            app.theme = theme
            for _ in range(50):
                await pilot.pause(0.02)
                if colour in code_style(conversation) and colour in code_style(finished):
                    break
            else:
                raise AssertionError(f"{theme}: {code_style(conversation)}, {code_style(finished)}")


async def test_a_thought_in_a_chat_is_one_line_until_it_is_unfolded(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(("<think>let me think of dogs</think>A dog.",)), (80, 24)) as t:
        await t.press("j", MODES["chat"][0])
        await t.session.chat.say("Which?")
        await t.until(lambda: "thought, 5 words" in t.shown())
        assert "let me think" not in t.shown() and "A dog." in t.shown()
        await t.press("escape", "Z")
        await t.until(lambda: "let me think" in t.shown())


async def test_a_turn_is_flagged_and_noted(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("j", MODES["chat"][0])
        await t.press("escape", "F")
        assert "there are no turns yet" in t.shown()
        await t.session.chat.say("Which?")
        await t.press("F", "r")
        answer = t.session.chat.turns[0].candidates[0]
        await t.until(lambda: t.live()[-1:] == [Flag(answer.set_uid, answer.uid, "refusal")])
        await t.press("C")
        await t.until(lambda: bool(t.pilot.app.screen.query(TextArea)))
        t.pilot.app.screen.query_one(TextArea).text = "too short"
        await t.pilot.press("ctrl+s")
        await t.until(lambda: t.live()[-1:] == [Comment(answer.set_uid, answer.uid, "too short")])


async def test_what_a_model_does_not_read_any_more_and_an_answer_that_was_cut_are_told(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(finish=False)) as t:
        await t.press("j", MODES["chat"][0])
        await t.session.chat.say("Which?")
        answer = t.session.chat.turns[0].candidates[0]
        await t.until(lambda: answer.started is not None)
        assert answer.started is not None
        answer.started = replace(answer.started, truncated=1200)
        t.engine.emit(protocol.Ended(uid=answer.uid, reason="length", text="A dog", n_tokens=2, kl=0.0, seconds=1.0))
        await t.until(lambda: "cut at the limit" in t.shown())
        assert "no longer reads the oldest 1,200 tokens" in t.shown()
