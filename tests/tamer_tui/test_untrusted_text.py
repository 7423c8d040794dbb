"""Whatever a model, a prompt, an engine or a name says is painted as plain text: never markup, never control of the terminal, never a crash."""

from __future__ import annotations

import json
import time
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import TextArea

from learners import protocol
from storage.journal import Journal
from storage.records import BaseModel, Comment, Correction, Prompt, Rating, SampleSet, Sitting
from tamer_tui.app import TamerApp
from tamer_tui.cli import main
from tamer_tui.keys import MODES
from tamer_tui.session import Session, SessionSettings
from tamer_tui.text import plain, wrap
from tamer_tui.widgets.rail import Rail
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, painted, table

HOSTILE = {
    "markup": "[/b] [@click=app.quit]x[/] [red",
    "escapes": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x1b[?1049l",
    "wide": "漢字 👩\u200d👩\u200d👧 ❤\ufe0f e\u0301 한국어",
    "controls": "tab\there nul\x00 bell\x07 back\x08 del\x7f form\x0c return\rline\u2028",
    "turned": "שלום \u202etxt.exe\u202c \u2066x\u2069 سلام",
    "long": "w" * 10_000,
    "long and wide": "漢" * 10_000,
    "marks": "a" + "\u0301" * 500,
    "empty": " ",
}
TORTURE = HOSTILE | {
    "scripts": " ".join(
        "".join(chr(c) for c in range(start, start + 96, 7) if unicodedata.category(chr(c))[0] in "LMNPS")
        for start in (*range(0xA0, 0x3000, 96), 0x1D400, 0x1F300, 0x20000)
    ),
    "without width": "a"
    + "".join(map(chr, [0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xAD, 0x34F, 0x61C, 0x180E, 0x3164, 0xFFA0, 0xE0001, *range(0xE0020, 0xE0080)]))
    + "b",
    "markdown": "# [x](javascript:x)\n\n|a|b|\n|-|-|\n|[/b]|`c`|\n\n"
    + "> " * 60
    + "deep\n\n```python\n\x1b[31m\n"
    + "- " * 40
    + "\n<script>alert(1)</script>",
    "thoughts": "<think>" * 30 + "[/b]\x1b[2J</think>" * 15 + "**bold**",
    "surrogates": "a\ud800b\udfffc",
}
SIZES = [(80, 24), (200, 50)]


def assert_plain(t: Table) -> None:
    """Nothing on the screen controls the terminal or turns the line; the program runs."""
    screen = t.shown()
    assert not [c for c in screen if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not set(screen) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert t.pilot.app.is_running


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_answers_and_prompts_are_plain_text_everywhere(tmp_path: Path, text: str, size: tuple[int, int]) -> None:
    async with table(tmp_path, FakeEngine((text,)), size, prompts=(Prompt.of("A prompt " + text),)) as t:
        await t.press("a")
        assert_plain(t)
        for opened in ("r", "l", "w", "n"):
            await t.press(opened)
            assert_plain(t)
            await t.pilot.press("escape")
            await t.pilot.pause()
        for columns, rows in ((41, 12), (61, 20), size):
            await t.pilot.resize_terminal(columns, rows)
            await t.pilot.pause()
            assert_plain(t)
        await t.press("enter")
        assert len(t.live()) == 1


@pytest.mark.parametrize("size", SIZES)
async def test_brackets_are_seen_as_they_are(tmp_path: Path, size: tuple[int, int]) -> None:
    async with table(tmp_path, FakeEngine((HOSTILE["markup"],)), size, prompts=(Prompt.of(HOSTILE["markup"]),)) as t:
        await t.press("a")
        assert t.shown().count("[/b] [@click=app.quit]x[/] [red") >= 2
        await t.pilot.click(t.arena.answers.panes[0].stream, offset=(18, 0))
        assert t.pilot.app.is_running


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_words_of_the_engine_are_plain_text(tmp_path: Path, text: str) -> None:
    async with table(tmp_path, FakeEngine(), (200, 50)) as t:
        t.engine.emit(protocol.Error(what=text, hint=text))
        t.engine.emit(protocol.Metrics(stage=text, step=1, of=2, note=text))
        t.engine.emit(protocol.Metrics(stage="ppo", step=1, of=2, note=text))
        t.engine.publish(text, published=False)
        t.engine.publish(text)
        await t.pilot.pause(0.1)
        t.arena.query_one(Rail).repaint()
        await t.pilot.pause()
        assert_plain(t)
        await t.press("V")
        assert_plain(t)
        await t.pilot.press("down", "escape")
        await t.pilot.pause()
        t.engine.die(text)
        await t.pilot.pause()
        assert_plain(t)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_name_of_a_model_is_plain_text_while_it_loads_and_when_it_fails(tmp_path: Path, text: str) -> None:
    engine = FakeEngine(ready=False)
    session = Session(SessionSettings(text, (Prompt.of(text),)), lambda: engine, tmp_path / "[b]a.db")
    await session.start()
    async with TamerApp(session).run_test(size=(80, 24)) as pilot:
        engine.emit(protocol.Loading(what=text, done=1.0, total=2.0, seconds_left=float("inf")))
        await pilot.pause()
        assert_plain(Table(pilot, session, engine, tmp_path))
        engine.die(text)
        await pilot.pause()
        assert_plain(Table(pilot, session, engine, tmp_path))
        assert "R" in painted(pilot.app)
    await session.close()


async def test_figures_that_are_no_numbers_are_crosses(tmp_path: Path) -> None:
    bad = (float("inf"), float("-inf"), 1e308, float("nan"))
    async with table(tmp_path, size=(200, 50)) as t:
        for stage in ("sft", "reward", "distill", "ppo", "gate"):
            for step, value in enumerate(bad * 3):
                t.engine.emit(protocol.Metrics(stage=stage, step=step, of=12, seconds_left=value, loss=value, accuracy=value, reward=value, kl=value))
                await t.pilot.pause()
                t.arena.query_one(Rail).repaint()
        assert "×" in t.shown()
        assert_plain(t)


async def test_an_answer_with_control_characters_that_was_not_rewritten_is_no_correction(tmp_path: Path) -> None:
    async with table(tmp_path, FakeEngine(("one\x1b[31m\ttwo",))) as t:
        await t.press("r")
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        assert t.live() == [] and t.line("said") == "nothing was changed"
        await t.press("r")
        t.pilot.app.screen.query_one(TextArea).text += "!"
        await t.pilot.press("ctrl+s")
        await t.pilot.pause()
        (correction,) = t.live()
        assert isinstance(correction, Correction) and correction.text == "one[31m\ttwo!", "a tab stays a tab"


async def test_every_screen_stands_a_torture_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts = list(TORTURE.values())
    rounds = [texts[start : start + 8] for start in range(0, len(texts), 8)]
    async with table(tmp_path, FakeEngine(rounds[0], publish_after=1), (200, 50), k=8, prompts=tuple(map(Prompt.of, texts))) as t:
        for these, small in zip(rounds, ((31, 9), (100, 30)), strict=True):
            t.engine.texts = these
            await t.press("v", "M", "a", "enter")
            for text in these:
                t.engine.publish(text)
                t.engine.emit(protocol.Metrics(stage="ppo", step=1, of=2, note=text, loss=float("nan"), kl=float("inf"), reward=-1e308))
            await t.session.judging.comment(t.session.set.uid, None, these[-1].encode("utf-8", "replace").decode())
            await t.session.chat.say(these[-1].encode("utf-8", "replace").decode())
            await t.session.duels.open_next()
            for mode in MODES:
                await t.pilot.app.action_mode(mode)  # type: ignore[attr-defined]
                await t.pilot.resize_terminal(*small)
                await t.pilot.pause()
                assert_plain(t)
                if mode in ("versions", "record"):
                    await t.press("down", "down")
                    assert_plain(t)
            await t.pilot.app.action_mode("arena")  # type: ignore[attr-defined]


async def test_what_is_longer_than_any_screen_holds_the_loop_no_longer_than_what_is_shown_of_it(tmp_path: Path) -> None:
    text = "漢" * 400_000
    async with table(tmp_path, FakeEngine((text,)), k=1, prompts=(Prompt.of(text),)) as t:
        began = time.process_time()
        for _ in range(20):
            t.arena.revision += 1
        stream = t.arena.answers.panes[0].stream
        t.arena.reveal()
        assert len(stream.text) < 101_000 and stream.text.endswith("more than can be shown here")
        t.engine.emit(protocol.Error(what=text))
        await t.pilot.pause()
        assert t.shown() and time.process_time() - began < 10  # seconds; all of it, each time, takes minutes
        await t.press("4")
        (rating,) = t.live()
        assert isinstance(rating, Rating) and t.session.sets.from_record(rating.set_uid).candidates[0].text == text


@given(pieces=st.lists(st.text(st.sampled_from("a 漢👩👧❤\u200d\ufe0f\u0301\n"), max_size=6), max_size=12), width=st.integers(2, 12))
def test_characters_that_join_never_lose_text_when_they_come_in_pieces(pieces: list[str], width: int) -> None:
    lines = [""]
    for piece in pieces:
        lines[-1:] = wrap(lines[-1] + piece, width)
    assert "".join(lines) == "".join(pieces).replace("\n", "")


def test_nothing_that_is_printed_controls_the_terminal(tmp_path: Path) -> None:
    """Somebody's database and somebody's file, through the commands that tell of them; JSON says the same as before."""
    hostile = "\x1b]0;pwn\x07\x9b2J\u202etxt\x7f"
    database, rows, table = tmp_path / "a.db", tmp_path / "rows.jsonl", tmp_path / "rows.csv"
    with Journal.open(database) as journal:
        journal.bind(BaseModel("b" * 64, hostile, "none"), Sitting("s", "b" * 64, "0", "{}", hostile))
        journal.write(SampleSet("set", "s", Prompt.of(hostile), 1, "judge"))
        journal.append(Comment("set", None, hostile)).result()
    rows.write_text(json.dumps({hostile: "x", "other": "y"}))
    table.write_text(f"{hostile},other\nx,y\n")
    runs = [("stats", database), ("versions", database), ("log", database), ("log", database, "--json"), ("stats", database, "--json"),
            ("import", tmp_path / "b.db", rows, "--yes"), ("import", tmp_path / "b.db", table, "--yes"), (hostile, hostile),
            ("stats", tmp_path / hostile), ("rollback", database, hostile)]  # fmt: skip
    for words in runs:
        done = CliRunner().invoke(main, [str(word) for word in words])
        printed = done.stdout + done.stderr
        assert printed and plain(printed) == printed, words
    assert json.loads(CliRunner().invoke(main, ["stats", str(database), "--json"]).stdout)["base"]["name"] == hostile
