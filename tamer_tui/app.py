"""The Textual application: one Session, one screen at first, and a card on leaving."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from pathlib import Path

from textual.app import App

from tamer_tui.headless import make_session
from tamer_tui.screens.arena import ArenaScreen
from tamer_tui.session import Session, SessionError
from tamer_tui.tapping import TapSession
from tamer_tui.terminal import TerminalDriver
from tamer_tui.views import SessionSettings


class TamerApp(App[None]):
    """Shows a session that has been started."""

    TITLE = "tamer"
    ENABLE_COMMAND_PALETTE = True

    def __init__(self, session: TapSession) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.session = session

    async def on_mount(self) -> None:
        await self.push_screen(ArenaScreen(self.session))
        self.run_worker(self._leave_if_refused())
        gc.collect()
        gc.freeze()

    async def _leave_if_refused(self) -> None:
        """A sitting that cannot begin is no screen to stay on; one whose engine died is: R restarts it."""
        with contextlib.suppress(SessionError):
            await self.session.wait_ready()
        if self.session.refused:
            self.exit(return_code=1)


def run(settings: SessionSettings, database: Path | None, command: tuple[str, ...] | None = None) -> int:
    """Open the Arena; the exit code. What cannot be opened is one line on stderr."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _failed("the Arena needs a terminal: tamer simulate and tamer generate work without one")
    return asyncio.run(_run(make_session(settings, database, command)))


async def _run(session: TapSession, headless: bool = False) -> int:
    app = TamerApp(session)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, app.exit)
    try:
        await session.start()
    except SessionError as error:
        await session.close()
        return _failed(str(error))
    try:
        await app.run_async(headless=headless)
        card = farewell(session)
    finally:
        await session.close()
    if session.refused:
        return _failed(session.refused)
    with contextlib.suppress(OSError):
        print(card, flush=True)
    return app.return_code or 0


def _failed(why: str) -> int:
    print(f"Error: {why}", file=sys.stderr)
    return 1


def farewell(session: Session) -> str:
    """Where everything is, and how to go on."""
    if session.database is None or (session.ready is None and not session.judged):
        return session.notice or "nothing was judged"
    version = session.status.acting[0]
    adapter = f" --adapter {session.settings.peft_adapter}" if session.settings.peft_adapter else ""
    return "\n".join([
        f"{session.judged} judgement{'s' if session.judged != 1 else ''} in {session.database}; acting: {version}",
        f"  go on      tamer {session.database} --model {session.settings.model}{adapter}",
        f"  look       tamer stats {session.database}   tamer versions {session.database}",
        "  take out   it is an SQLite file: any tool opens it; adapters lie beside it as PEFT directories",
    ])  # fmt: skip
