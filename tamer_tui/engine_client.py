"""The engine as a child process: commands out, events in. Of one elsewhere the child is what leads there: see remote_engine.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from learners import protocol
from learners.protocol import Command, Error, Event, Shutdown

LOCAL_ENGINE = (sys.executable, "-m", "learners.engine")
LAST_WORDS = 4
"""Lines of the log that are shown when the engine dies."""
LONGEST_LOG = 2**20
"""Bytes; a longer log is begun anew."""
SHUTDOWN_SECONDS = 0.4
"""The engine has this long to obey, and as long again after SIGTERM."""


class EngineLog:
    """What engines print, one after another, in one file."""

    def __init__(self, path: Path | None) -> None:
        """None discards it."""
        self.path = path
        self._start = 0  # where this engine's part begins

    def open(self) -> BinaryIO:
        """For another engine."""
        if self.path is None:
            return open(os.devnull, "ab")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > LONGEST_LOG:
            self.path.unlink()  # another program's engine may still write to the old one
        log = self.path.open("ab")
        self._start = log.tell()
        return log

    def why(self, code: int, what: str = "the engine stopped") -> str:
        """One line: how a process ended, and what it said last."""
        words = ""
        if self.path is not None and self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._start)
                last = [line.decode("utf-8", "replace").strip() for line in deque(file, LAST_WORDS)]
            words = next((line for line in reversed(last) if line), "")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        more = words[:200] or (f"its log is {self.path}" if self.path is not None else "")
        return f"{what} ({how}){': ' + more if more else ''}"


class EngineClient:
    """Starts the engine, decodes what it says, and ends it. All methods belong to one asyncio loop."""

    remote = False

    def __init__(self, command: Sequence[str] = LOCAL_ENGINE, log: Path | None = None) -> None:
        """`log` takes the engine's stderr; None discards it."""
        self.command, self.log = tuple(command), EngineLog(log)
        self.malformed = 0  # lines that were no event
        self.shutdown_seconds = SHUTDOWN_SECONDS
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closing = False
        self._heard = False

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        """Start the child. `on_exit` is told why it ended, in one line, unless `close` was called. Raises OSError."""
        with self.log.open() as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=protocol.MAX_LINE,
            )
        self._reader = asyncio.create_task(self._read(on_event, on_exit))

    def send(self, command: Command) -> None:
        """Queue a command; what is sent to an engine that is gone is lost, and replayed when it is started again. Raises LineTooLongError."""
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(protocol.encode_command(command))

    async def close(self) -> None:
        """Ask the engine to end, and make it."""
        self._closing = True
        process = self._process
        if process is None:
            return
        self.send(Shutdown())
        if process.stdin is not None:
            process.stdin.close()
        await self._make_end(process)
        if self._reader is not None:
            self._reader.cancel()

    async def _make_end(self, process: asyncio.subprocess.Process) -> None:
        """Wait for it to end, and see to it that it does."""
        for end in (lambda: None, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                end()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self.shutdown_seconds)
                break

    async def _read(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        assert self._process is not None
        try:
            await self._listen(on_event)
        except Exception as error:  # a listener's fault: without this line the screen would wait for ever
            why = f"the engine's line could not be taken ({_line(error)})"
        else:
            await self._make_end(self._process)  # one that cannot be heard any more, as where a link dropped, may live on
            why = self.log.why(await self._process.wait())
        if not self._closing:
            on_exit(why)

    async def _listen(self, on_event: Callable[[Event], None]) -> None:
        """Until the engine says no more."""
        assert self._process is not None and self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
                if not line:
                    return
                event = protocol.decode_event(line)
            except (ValueError, msgspec.DecodeError):  # longer than MAX_LINE, or no event
                self.malformed += 1
                if not self._heard:  # what ssh or a login shell says first is no concern
                    continue
                event = Error(what=f"{self.malformed} lines of the engine could not be read", hint="it must be of the terminal's version")
            self._heard = True
            on_event(event)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
