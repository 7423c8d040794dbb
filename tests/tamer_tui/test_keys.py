"""Keys: one meaning each, all of them named, as the design says; what is painted works and can be clicked."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.events import Key, Paste
from textual.message_pump import MessagePump
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from learners import protocol
from storage.records import Critique, Ranking, Rating
from tamer_tui.app import TamerApp
from tamer_tui.keys import ARENA, EDITOR, LETTERS, MODES, NUMBER, SECTIONS, painted, sections
from tamer_tui.screens.arena import PACES, ArenaScreen
from tamer_tui.widgets.lines import KeyLine
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, table

LONG = ["A word comes after a word. " * 20] * 4
DESIGN = (
    *LETTERS, "t", "x", "backspace", *"1234567", "0", "m", "enter", "right", "left", "up", "down", "tab", "r", "w", "n", "l", "s", "u", "U", "space",
    "less_than_sign", "greater_than_sign", "o", "p", "T", "B", "N", "V", "R", "escape", "question_mark", "f1", "ctrl+p",
)  # fmt: skip
TAKEN_BY_OTHERS = {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+h", "ctrl+j", "ctrl+k", "ctrl+l", "ctrl+z", "ctrl+c"}


def test_every_key_of_the_design_is_bound_once_with_a_name_and_a_meaning() -> None:
    keys = [key for binding in ARENA for key in binding.key.split(",")]
    assert set(DESIGN) <= set(keys) and len(keys) == len(set(keys))
    assert len({binding.id for binding in ARENA}) == len(ARENA)
    assert all(binding.id and binding.tooltip and binding.description for binding in ARENA)
    assert all(binding.id and binding.tooltip for binding in (*EDITOR, *NUMBER))


def test_no_command_needs_a_key_that_a_multiplexer_takes() -> None:
    for binding in (*ARENA, *EDITOR, *NUMBER):
        assert set(binding.key.split(",")) - TAKEN_BY_OTHERS, binding


def test_every_action_exists() -> None:
    for binding in ARENA:
        name = binding.action.split("(")[0]
        assert hasattr(TamerApp if name.startswith("app.") else ArenaScreen, f"action_{name.removeprefix('app.')}"), name


def test_the_help_page_has_every_key_under_a_heading() -> None:
    rows = [row for found in sections().values() for row in found]
    assert len(rows) == len(ARENA) - (len(LETTERS) - 1) - 6
    assert set(sections()) == set(SECTIONS.values())


async def click_key(t: Table, identity: str) -> None:
    """On its name, where it is painted."""
    line = t.arena.query_one(KeyLine)
    text = " ".join(painted(identity))
    for row, shown in enumerate(str(line.content).split("\n")):
        if (column := shown.find(text)) >= 0:
            await t.pilot.click(KeyLine, offset=(1 + column + len(text) - 1, row))
            await t.pilot.pause()
            return
    raise AssertionError(f"{text} is not painted")


async def test_painted_keys_can_be_clicked(tmp_path: Path) -> None:
    async with table(tmp_path, size=(200, 50)) as t:
        first = t.session.current
        await t.press("b")
        await click_key(t, "rank.tie")
        await t.press("c")
        await click_key(t, "set.commit")
        (ranking,) = t.live()
        assert isinstance(ranking, Ranking) and ranking.keys == "b=c" and t.session.current is not first
        await click_key(t, "machine.versions")
        assert t.pilot.app.screen is not t.arena


async def test_a_click_looks_at_an_answer_and_one_on_its_letter_ranks_it(tmp_path: Path) -> None:
    async with table(tmp_path, size=(200, 50)) as t:
        pane = t.arena.answers.panes[2]
        await t.pilot.click(pane.stream, offset=(10, 5))
        assert t.arena.focused_slot == 2 and t.arena.ballot.empty
        await t.pilot.click(pane, offset=(3, 0))
        await t.pilot.click(t.arena.answers.panes[1], offset=(3, 0))
        assert t.arena.ballot.keys() == "cb"


async def test_tabs_can_be_clicked(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(LONG), size=(80, 20)) as t:
        await t.press("b", "backspace")
        strip = str(t.arena.query_one("#tabs", Static).content)
        await t.pilot.click("#tabs", offset=(1 + strip.index("c"), 0))
        assert t.arena.focused_slot == 2
        assert [pane.display and pane.region.width > 0 for pane in t.arena.answers.panes] == [False, False, True, False]


async def test_what_fits_80_columns_is_what_is_needed_most(tmp_path: Path) -> None:
    async with table(tmp_path, size=(80, 24)) as t:
        assert all(words in t.painted() for words in ("a-d rank", "1-7 score", "enter commit", "s skip", "? help", "^q quit"))
        assert "\n" not in t.painted() and len(t.painted()) <= 78


async def test_at_200_columns_every_key_that_works_is_painted(tmp_path: Path) -> None:
    async with table(tmp_path, size=(200, 50)) as t:
        await t.press("a", "enter", "a")
        named = {b.id or "" for b in ARENA if (b.id or "").split(".")[1] not in (*LETTERS, *"1234567")}
        unpainted = {identity for identity in named if " ".join(painted(identity)) not in t.painted()}
        of_the_tap_view = {"tap.plus", "tap.minus", "learn.silence"}
        other = {f"screen.{mode}" for mode in MODES}  # k, V and the leader key are painted
        assert unpainted - other == {"focus.previous", "scroll.up", "scroll.page_up", "scroll.page_down", "machine.restart"} | of_the_tap_view


async def test_with_two_answers_t_calls_them_equal(tmp_path: Path) -> None:
    async with table(tmp_path, k=2) as t:
        await t.press("t")
        assert "a = b" in t.line("todo")
        await t.press("backspace")
        assert t.arena.ballot.empty
        await t.press("a", "t", "enter")
        (ranking,) = t.live()
        assert isinstance(ranking, Ranking) and list(ranking.ranks.values()) == [1, 1]


async def test_the_reading_pace_goes_up_to_at_once_and_down_again(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press(*["greater_than_sign"] * 9)
        assert PACES[t.arena.pace] == float("inf") and t.line("said") == "tokens show at once"
        await t.press(*["less_than_sign"] * 9)
        assert t.line("said") == "reading pace: 3 tokens a second"


async def test_esc_peels_one_layer_at_a_time(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(finish=False)) as t:
        await t.press("b", "space")
        await t.press("escape")
        assert t.arena.ballot.empty and t.arena.frozen
        await t.press("escape")
        assert not t.arena.frozen and not any(isinstance(c, protocol.Stop) for c in t.engine.received)
        await t.press("escape")
        assert t.session.current is not None and [c.ended for c in t.session.current.candidates] == ["stopped"] * 4
        await t.press("b", "enter")
        assert len(t.live()) == 1, "what was stopped can be judged"


async def test_a_paste_opens_as_a_prompt_beside_the_draft_that_there_is(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("n")
        t.pilot.app.screen.query_one(TextArea).text = "My draft."
        await t.pilot.press("escape")
        await t.pilot.pause()
        t.pilot.app.post_message(Paste("pasted \x1b[2J[/b]"))
        await t.pilot.pause()
        area = t.pilot.app.screen.query_one(TextArea)
        assert area.text == "My draft.\npasted [2J[/b]"
        t.pilot.app.post_message(Paste("\x1b[31m\tmore"))
        await t.pilot.pause()
        assert area.text == "My draft.\npasted [2J[/b][31m\tmore"
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert t.session.current is not None and t.session.current.prompt.source == "typed"


async def test_enter_saves_a_number_and_esc_leaves_it(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("N")
        await t.pilot.press("9", "enter")
        await t.pilot.pause()
        assert t.session.status.nats == 9 and protocol.Set(nats=9.0) in t.engine.received
        await t.press("N")
        await t.pilot.press("4", "escape")
        await t.pilot.pause()
        assert t.session.status.nats == 9


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_one_to_nine_answers_are_judged_at_both_sizes(tmp_path: Path, k: int, size: tuple[int, int]) -> None:
    async with table(tmp_path, size=size, k=k) as t:
        assert len(t.arena.answers.panes) == k
        await t.press("5" if k == 1 else LETTERS[k - 1], "enter")
        (judgement,) = t.live()
        assert isinstance(judgement, Rating if k == 1 else Ranking)


async def test_the_palette_finds_a_command_by_what_it_does(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.pilot.press("ctrl+p")
        await t.pilot.pause()
        await t.pilot.press(*"steering")
        for _ in range(50):
            await t.pilot.pause(0.02)
            if "steering  (B)" in t.shown():
                break
        await t.pilot.press("enter")
        for _ in range(50):
            await t.pilot.pause(0.02)
            if not t.session.status.bias:
                break
        assert not t.session.status.bias


async def burst(t: Table, *keys: str) -> None:
    """What a slow connection brings at once: nothing is painted between these. What is longer than the name of a key is pasted."""
    t.arena._opened = 0.0
    for key in keys:
        pasted = " " in key
        t.pilot.app.post_message(Paste(key) if pasted else Key(key, {"space": " ", "semicolon": ";"}.get(key, key if len(key) == 1 else None)))
    await t.pilot.pause()
    await t.until(lambda: not t.pilot.app._typed and t.pilot.app._handled is None)  # type: ignore[attr-defined]
    await t.pilot.pause()


def said(t: Table) -> list[tuple[str, str]]:
    return [(each.text, each.scope) for each in t.live() if isinstance(each, Critique)]


@pytest.mark.parametrize("opened", [False, True], ids=["with the key that opens it", "in an open box"])
async def test_a_line_that_comes_in_one_burst_is_whole_and_in_order(tmp_path: Path, opened: bool) -> None:
    async with table(tmp_path) as t:
        first = ["semicolon"]
        if opened:
            await t.press(*first)
            first = []
        await burst(t, *first, *"abcs", "space", *"usnx", "enter")
        assert said(t) == [("abcs usnx", "prompt")]
        await burst(t, "semicolon", *"left", "escape")
        assert len(t.live()) == 1
        await t.press("semicolon", "enter")
        assert said(t)[1:] == [("left", "prompt")]
        await burst(t, "n", *"tell", "ctrl+s")
        assert t.session.set.prompt.text == "tell"


async def test_what_follows_in_the_same_burst_is_for_what_is_there_then(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await burst(t, "semicolon", *"shorter", "enter", "tab", "semicolon", *"warm", "tab", "enter", "b")
        assert said(t) == [("shorter", "prompt"), ("warm", "all")] and not t.arena.ballot.empty
        await burst(t, "n", *"so ", "pasted words", *"x", "ctrl+s")
        assert t.session.set.prompt.text == "so pasted wordsx"
        await burst(t, "a pasted prompt", "y", "ctrl+s", "question_mark", "escape", "c")
        assert t.session.set.prompt.text == "a pasted prompty" and isinstance(t.pilot.app.screen, ArenaScreen) and not t.arena.ballot.empty
        await burst(t, "n", *("abcdefghij" * 30), "ctrl+s", "b")
        assert t.session.set.prompt.text == "abcdefghij" * 30 and not t.arena.ballot.empty
        await burst(t, "f5", *"hello", "enter")
        await t.until(lambda: bool(t.session.chat.turns))
        assert t.session.chat.turns[0].prompt.text == "hello"


class Leaving(ModalScreen[None]):
    """Goes away by itself, with what it has not handled yet."""

    def on_mount(self) -> None:
        self.dismiss(None)


async def test_keys_go_on_where_what_one_opened_or_was_sent_to_is_gone_before_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamer_tui.app.PATIENCE_SECONDS", 0.05)
    async with table(tmp_path) as t:
        monkeypatch.setattr(ArenaScreen, "action_critique", lambda self: self.app.push_screen(Leaving()))
        await burst(t, "semicolon", "a", "semicolon", "semicolon", "b")
        assert isinstance(t.pilot.app.screen, ArenaScreen) and not t.arena.ballot.empty
        monkeypatch.setattr(MessagePump, "call_later", lambda *_: True)  # nothing ever says so
        t.pilot.app.post_message(Key("c", "c"))
        monkeypatch.undo()
        await t.pilot.pause(0.3)
        await burst(t, "n", *"still", "ctrl+s")
        assert t.session.set.prompt.text == "still"
