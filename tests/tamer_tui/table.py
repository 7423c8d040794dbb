"""A running Arena under a real Session and database, with a scripted engine, and what tests ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from storage.queries import Record
from storage.records import Prompt
from tamer_tui.app import TamerApp
from tamer_tui.screens.arena import ArenaScreen
from tamer_tui.session import Session, SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine

PROMPTS = tuple(Prompt.of(f"Once upon a time, there was a {noun}") for noun in ("dog", "cat", "frog", "king"))


class Table:
    """A running Arena with what a test asks of it."""

    def __init__(self, pilot: Pilot[None], session: Session, engine: FakeEngine, path: Path) -> None:
        self.pilot, self.session, self.engine, self.path = pilot, session, engine, path

    @property
    def arena(self) -> ArenaScreen:
        assert isinstance(self.pilot.app, TamerApp)
        return self.pilot.app.arena

    async def press(self, *keys: str) -> None:
        """After the grace of a new set; waits until everything has settled."""
        self.arena._opened = 0.0
        for key in keys:
            await self.pilot.press(key)
            await self.pilot.pause()
            self.arena._opened = 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for frames, not for time."""
        for _ in range(500):
            if condition():
                return
            await self.pilot.pause(0.01)
        raise TimeoutError

    async def until_pressed(self, condition: Callable[[], bool], *keys: str) -> None:
        """Press these again and again."""
        for _ in range(100):
            await self.press(*keys)
            if condition():
                return
        raise TimeoutError

    def line(self, name: str) -> str:
        return str(self.arena.query_one(f"#{name}", Static).content)

    def painted(self) -> str:
        return str(self.arena.query_one("KeyLine", Static).content)

    def subtitle(self, slot: int) -> str:
        """What stands under an answer."""
        return str(self.arena.answers.panes[slot].border_subtitle)

    def shown(self) -> str:
        """The screen on top, as it is painted."""
        return painted(self.pilot.app)

    def live(self) -> list[object]:
        with Record(self.path) as record:
            return [logged.judgement for logged in record.live()]


def painted(app: App[None]) -> str:
    """The screen on top, line by line."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


@asynccontextmanager
async def table(
    tmp_path: Path,
    engine: FakeEngine | None = None,
    size: tuple[int, int] = (120, 36),
    k: int = 4,
    prompts: tuple[Prompt, ...] = PROMPTS,
    model: str = "fake",
    theme: str = "",
) -> AsyncIterator[Table]:
    engine = engine or FakeEngine()
    session = Session(SessionSettings(model, prompts, k=k), lambda: engine, tmp_path / "a.db")
    app = TamerApp(session, theme)
    faults: list[object] = []  # in callbacks of the loop, which nobody awaits
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context.get("exception", context)))
    await session.start()
    async with app.run_test(size=size) as pilot:
        await session.wait_ready()
        await pilot.pause()
        if engine.finish and session.current is not None:
            await session.sets.wait_ended()
        await pilot.pause()
        yield Table(pilot, session, engine, tmp_path / "a.db")
    await session.close()
    assert not faults, faults
