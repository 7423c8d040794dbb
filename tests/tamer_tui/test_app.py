"""Opening and leaving the program: exit codes, and the one line that says why it could not open."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from learners.protocol import Error
from storage.records import Prompt
from tamer_tui.app import TamerApp, _run, farewell
from tamer_tui.cli import main
from tamer_tui.options import session_settings
from tamer_tui.session import Session, SessionSettings
from tamer_tui.settings import described
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table

PROMPTS = (Prompt.of("Once upon a time"),)


def session_over(engine: FakeEngine, path: Path) -> Session:
    return Session(SessionSettings("fake", PROMPTS), lambda: engine, path)


async def test_a_model_that_cannot_be_loaded_leaves_the_screen_with_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(ready=False)
    session = session_over(engine, tmp_path / "a.db")
    asyncio.get_running_loop().call_soon(lambda: engine.emit(Error(what="no config.json in fake", hint="pass a directory", fatal=True)))
    assert await asyncio.wait_for(_run(session, headless=True), 20) == 1
    assert capsys.readouterr().err == "Error: no config.json in fake: pass a directory\n"
    assert not (tmp_path / "a.db").exists()


async def test_a_database_of_another_base_model_leaves_the_screen_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = session_over(FakeEngine(), tmp_path / "a.db")
    await session.start()
    await session.wait_ready()
    await session.close()
    assert await asyncio.wait_for(_run(session_over(FakeEngine(base_hash="e" * 64), tmp_path / "a.db"), headless=True), 20) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1 and "fake" in said


async def test_an_engine_that_dies_while_it_loads_leaves_the_screen_to_the_operator(tmp_path: Path) -> None:
    engine = FakeEngine(ready=False)
    session = session_over(engine, tmp_path / "a.db")
    await session.start()
    async with TamerApp(session).run_test() as pilot:
        engine.die()
        await pilot.pause()
        assert pilot.app.is_running and session.engine.refused == "" and "signal 9" in session.notice
    await session.close()


def test_without_a_terminal_the_program_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tamer_tui.cli", "run", str(tmp_path / "a.db")], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: the Arena needs a terminal") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-k", "2", "--max-new-tokens", "40"],
        ["--stop", "a b", "--stop", "c"],
        ["--temperatures", "0.6,1.2", "--no-bias"],
        ["--top-k", "0", "--system", "say 'it'"],
        ["--adapter", "some where"],
    ],
)
async def test_the_line_that_goes_on_says_what_the_command_line_said(tmp_path: Path, words: list[str]) -> None:
    with main.commands["run"].make_context("run", ["a b.db", "--model", "some model", *words]) as context:
        session = Session(session_settings(context.params), FakeEngine, tmp_path / "a b.db")
        await session.start()
        await session.wait_ready()
        card = farewell(session, described(context))
        await session.close()
    line = next(each for each in card.splitlines() if "go on" in each)
    typed = shlex.split(line.removeprefix("  go on"))
    assert typed[:4] == ["tamer", str(tmp_path / "a b.db"), "--model", "some model"]
    with main.commands["run"].make_context("run", typed[1:]) as again:
        assert again.params == {**context.params, "database": tmp_path / "a b.db"}


async def test_the_line_that_goes_on_with_an_engine_that_goes_on_says_what_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with main.commands["run"].make_context("run", ["a.db", "--model", "m", "-k", "2", "--seed", "4", "--name", "Jo"]) as context:
        session = Session(session_settings(context.params), FakeEngine, tmp_path / "a.db")
        await session.start()
        await session.wait_ready()
        monkeypatch.setattr(type(session.engine), "goes_on", ("ssh", "box", "tamer engine --attach unix:/x"))
        card = farewell(session, described(context))
        await session.close()
    line = next(each for each in card.splitlines() if "go on" in each)
    typed = shlex.split(line.removeprefix("  go on").removesuffix("(the engine learns on)"))
    assert typed == ["tamer", "attach", "ssh box 'tamer engine --attach unix:/x'", str(tmp_path / "a.db"), "-k", "2", "--name", "Jo"]


async def test_a_sitting_that_never_began_says_what_is_on_disk_and_names_no_file_that_is_gone(tmp_path: Path) -> None:
    session = Session(SessionSettings("fake", PROMPTS), FakeEngine, tmp_path / "a.db")
    assert farewell(session) == "nothing was judged"
    await session.start()
    try:
        await session.wait_ready()
        await session.sets.open_next()
        view = await session.sets.wait_ended()
        await session.judging.rank({view.candidates[0].uid: 1})
    finally:
        await session.close()
    again = Session(SessionSettings("fake", PROMPTS), lambda: FakeEngine(ready=False), tmp_path / "a.db")
    await again.start()
    try:
        assert again.judged == 1 and farewell(again).startswith("1 judgement")
    finally:
        await again.close()


@pytest.mark.parametrize("keys", [(), ("question_mark",), ("W",), ("D",), ("x",), ("f3",), ("f3", "question_mark")])
async def test_ctrl_q_leaves_from_wherever_one_is(tmp_path: Path, keys: tuple[str, ...]) -> None:
    async with table(tmp_path, size=(80, 24)) as t:
        await t.press(*keys, "ctrl+q")
        assert not t.pilot.app.is_running


async def test_ctrl_q_does_not_lose_what_is_typed(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await t.press("n", "a", "b", "ctrl+q", "c", "ctrl+s")
        assert t.session.set.prompt.text == "abc"
