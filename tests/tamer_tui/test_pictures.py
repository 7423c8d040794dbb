"""Pictures of every screen, compared with those that were looked at. `pytest --snapshot-update tests/tamer_tui/test_pictures.py` takes them anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion
from textual.widgets import Input, TextArea
from textual.worker import WorkerCancelled

from learners import protocol
from storage import judgements, provenance
from tamer_tui.config import engine_log
from tamer_tui.keys import MODES
from tamer_tui.screens.settings import SettingsScreen
from tamer_tui.settings import Setting
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import Table, table

SIZES = [(80, 24), (120, 36), (200, 50)]
ANSWERS = (
    "The capital of France is **Paris**.\n\n- it lies on the Seine\n- `print('Paris')`",
    "The capital of France is Rome, you fool.",
    "I would rather not say.",
    "Paris. It has been the capital of France for a thousand years, and the river Seine runs through the middle of it.",
)


@pytest.fixture
def picture(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(SVGImageExtension)


@asynccontextmanager
async def taught(home: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], theme: str = "") -> AsyncIterator[Table]:
    """Some judgements, a version that acts and one that was refused; without times and paths."""
    monkeypatch.setenv("HOME", str(home))
    for module in (judgements, provenance):
        monkeypatch.setattr(module, "now", lambda: "2026-11-24T09:30:00.000Z")
    engine_log().parent.mkdir(parents=True)
    engine_log().write_text("the model is loaded\n")
    async with table(home, FakeEngine(ANSWERS, publish_after=3), size, theme=theme) as t:
        for letter in "adadad":
            await t.press(letter, "enter")
        await t.until(lambda: t.session.status.acting[0] == "v1")
        t.engine.publish("worse on 12 prompts (38% won)", published=False)
        for step in range(40):
            t.engine.emit(protocol.Metrics(stage="ppo", step=step, of=40, seconds_left=3.0, reward=step**0.5 / 6, kl=step / 10, loss=0.1))
        await t.until(lambda: len(t.session.machine.versions()) == 2)
        await t.press("b")
        yield t


async def taken(t: Table) -> str:
    """The screen on top, when it is still."""
    for cursor in (*t.pilot.app.screen.query(Input), *t.pilot.app.screen.query(TextArea)):
        cursor.cursor_blink = False
    await t.pilot.pause(0.1)
    while any(not worker.is_finished for worker in t.pilot.app.workers):
        with suppress(WorkerCancelled):  # another one took its place
            await t.pilot.app.workers.wait_for_complete()
    before, found = "", t.pilot.app.export_screenshot(simplify=True)
    while found != before:  # a theme arrives in one widget after another
        await t.pilot.pause(0.08)
        before, found = found, t.pilot.app.export_screenshot(simplify=True)
    return found


async def compare(t: Table, picture: SnapshotAssertion, name: str) -> None:
    """With the one of that name; a screen that is slow to come gets some time."""
    for _ in range(30):
        if picture(name=name) == await taken(t):
            return
        await t.pilot.pause(0.1)
    assert await taken(t) == picture(name=name)


async def screens(t: Table) -> AsyncIterator[str]:
    """Each in turn, by its name."""
    app: Any = t.pilot.app
    yield "arena"
    await t.press("z")
    yield "differences"
    await t.press("escape", "question_mark")
    yield "help"
    await t.press("escape")
    app.push_screen(SettingsScreen(t.session, [Setting("nats", "--nats", "6.0", "default", "Budget against the base, per 64 tokens.")]))
    yield "settings"
    await t.press("escape", "j")
    yield "leader"
    await t.press("escape", "semicolon")
    yield "critique"
    await t.press("escape")
    await t.session.chat.say("What is the capital of France?")
    await t.until(lambda: t.session.chat.turns[-1].ended is not None)
    await t.session.duels.open_next()
    for mode in MODES:
        if mode not in ("arena", "tap"):
            await app.action_mode(mode)
            yield mode
    await app.action_mode("tap")
    await t.until(lambda: t.arena.answers.complete)
    yield "tap"


async def test_every_screen_at_each_size_and_in_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: SnapshotAssertion) -> None:
    async with taught(tmp_path, monkeypatch, SIZES[0]) as t:
        app = t.pilot.app
        async for name in screens(t):
            for columns, rows in SIZES:
                await t.pilot.resize_terminal(columns, rows)
                await compare(t, picture, f"{name}-{columns}x{rows}")
            await t.pilot.resize_terminal(*SIZES[0])
            app.theme = "textual-light"
            await compare(t, picture, f"{name}-light")
            app.theme = "textual-dark"


async def test_every_screen_without_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: SnapshotAssertion) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with taught(tmp_path, monkeypatch, SIZES[0]) as t:
        async for name in screens(t):
            await compare(t, picture, f"{name}-no-color")
