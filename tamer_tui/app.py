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
from tamer_tui.views import SessionSettings


class TamerApp(App[None]):
    """Shows a session that has been started."""

    TITLE = "tamer"
    ENABLE_COMMAND_PALETTE = True

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def on_mount(self) -> None:
        self.push_screen(ArenaScreen(self.session))
        gc.collect()
        gc.freeze()


def run(settings: SessionSettings, database: Path | None, command: tuple[str, ...] | None = None) -> int:
    """Open the Arena; the exit code. What cannot be opened is one line on stderr before any screen."""
    return asyncio.run(_run(make_session(settings, database, command)))


async def _run(session: Session) -> int:
    app = TamerApp(session)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, app.exit)
    try:
        await session.start()
    except SessionError as error:
        print(f"Error: {error}", file=sys.stderr)
        await session.close()
        return 1
    try:
        await app.run_async()
        card = farewell(session)
    finally:
        await session.close()
    with contextlib.suppress(OSError):
        print(card)
    return app.return_code or 0


def farewell(session: Session) -> str:
    """Where everything is, and how to go on."""
    if session.database is None:
        return session.notice or "nothing was judged"
    version = session.standing.acting[0]
    return "\n".join([
        f"{session.judged} judgements in {session.database}; acting: {version}",
        f"  go on      tamer {session.database} --model {session.settings.model}",
        f"  look       tamer stats {session.database}   tamer versions {session.database}",
        "  take out   it is an SQLite file: any tool opens it; adapters lie beside it as PEFT directories",
    ])  # fmt: skip
