"""A session without a screen: for simulate and generate."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tamer_tui.config import default_database, engine_log
from tamer_tui.engine_client import EngineClient
from tamer_tui.prompts import starter_prompts
from tamer_tui.remote_engine import RemoteEngine
from tamer_tui.session import Change, Session
from tamer_tui.text import one_line
from tamer_tui.views import SessionSettings

T = TypeVar("T")


def make_session(settings: SessionSettings, database: Path | None, command: tuple[str, ...] | None) -> Session:
    """A session over the real engine; without a database, over the one of the model."""
    return Session(
        settings,
        lambda: RemoteEngine(command, engine_log()) if command else EngineClient(log=engine_log()),
        database if database is not None else default_database,
        lambda chat: starter_prompts(chat, settings.system),
    )


async def with_session(
    settings: SessionSettings,
    database: Path,
    command: tuple[str, ...] | None,
    work: Callable[[Session], Coroutine[Any, Any, T]],
    tell: Callable[[str], None] = lambda line: None,
) -> T:
    """Work over a session of its own: see `within`. `tell` takes what the engine remarks, a line each."""
    session = make_session(settings, database, command)
    tell_notes(session, tell)
    return await within(session, work)


def tell_notes(session: Session, tell: Callable[[str], None]) -> None:
    """Each as it comes: there is no screen that shows them."""
    told = 0

    def look(change: Change) -> None:
        nonlocal told
        if change is Change.NOTICE:
            for note in session.notes[told:]:
                tell(one_line(note))
            told = len(session.notes)

    session.observe(look)


async def within(session: Session, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """Start, wait for the model, work, close; SIGTERM and SIGHUP end it as ctrl+c does. Raises KeyboardInterrupt then."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGHUP"):
        with contextlib.suppress(NotImplementedError, RuntimeError, AttributeError):  # what this system does not have
            loop.add_signal_handler(getattr(signal, name), task.cancel if task else loop.stop)
    try:
        await session.start()
        await session.wait_ready()
        return await work(session)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        await session.close()
