"""Progress of long work in one line: how far, how long it will still take. Of a command ctrl+c cancels it whole, of a screen `cancel`."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from storage.progress import CancelledError
from tamer_tui.text import duration

EVERY_SECONDS = 0.2
QUIET_SECONDS = 0.5
"""What takes less says nothing."""


def paint(line: str) -> None:
    """One line on a terminal's stderr, over the last one."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)


class Progress:
    """`with Progress("copying") as step: …` gives the step to be called. A second ctrl+c ends the program as ever."""

    def __init__(self, what: str, every: float = EVERY_SECONDS, quiet: float = QUIET_SECONDS) -> None:
        self._what, self._every = what, every
        self._began = time.monotonic()
        self._next = self._began + quiet
        self._cancelled = self._painted = False

    def __enter__(self) -> Progress:
        self._before: Any = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        if self._painted:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def stage(self, what: str, done: int, of: int) -> None:
        """The same of work in stages, each with a pace of its own."""
        if what != self._what:
            self._what, self._began = what, time.monotonic()
        self(done, of)

    def __call__(self, done: int, of: int) -> None:
        """Also from another thread. Raises CancelledError."""
        if self._cancelled:
            raise CancelledError
        now = time.monotonic()
        if now < self._next or not sys.stderr.isatty():
            return
        self._next, self._painted = now + self._every, True
        print(f"\r{self._what} {line(done, of, now - self._began)} · ctrl+c cancels\x1b[K", end="", file=sys.stderr, flush=True)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._cancelled = True
        signal.signal(signal.SIGINT, self._before)


class ScreenProgress:
    """The same for a screen: `say` is called in the loop, and the step from the thread that works."""

    def __init__(self, what: str, say: Callable[[str], None], every: float = EVERY_SECONDS) -> None:
        self._what, self._say, self._every = what, say, every
        self._loop = asyncio.get_running_loop()
        self._began = self._next = time.monotonic()
        self._cancelled = False

    def __call__(self, done: int, of: int) -> None:
        """Raises CancelledError."""
        if self._cancelled:
            raise CancelledError
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._every
            self._loop.call_soon_threadsafe(self._say, f"{self._what} {line(done, of, now - self._began)} · esc cancels")

    def cancel(self) -> None:
        """At the next step."""
        self._cancelled = True


def line(done: int, of: int, seconds: float) -> str:
    """'1,200 of 8,000 · 12 s left'."""
    if not of:
        return f"{done:,}"
    left = f" · {duration(seconds * (of - done) / done)} left" if 0 < done <= of else ""
    return f"{done:,} of {of:,}{left}"
