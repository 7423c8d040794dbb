"""The engine as a child process: commands out, events in. The one place that knows of pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from learners import protocol
from learners.protocol import Command, Event, Shutdown

LOCAL_ENGINE = (sys.executable, "-m", "learners.engine")
LAST_WORDS = 4
"""Lines of the log that are shown when the engine dies."""
SHUTDOWN_SECONDS = 2.0


class EngineClient:
    """Starts the engine, decodes what it says, and ends it. All methods belong to one asyncio loop."""

    def __init__(self, command: Sequence[str] = LOCAL_ENGINE, log: Path | None = None) -> None:
        """`log` takes the engine's stderr; None discards it. The command may reach another machine: ssh gpu-box tamer engine."""
        self.command, self.log = tuple(command), log
        self.malformed = 0  # lines that were no event
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        """Start the child. `on_exit` is told why it ended, in one line, unless `close` was called. Raises OSError."""
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log or os.devnull, "ab") as log:  # noqa: ASYNC230 a local file
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=protocol.MAX_LINE,
            )
        self._reader = asyncio.create_task(self._read(on_event, on_exit))

    def send(self, command: Command) -> None:
        """Queue a command; what is sent to an engine that is gone is lost, and replayed when it is started again."""
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(protocol.encode(command))

    async def close(self) -> None:
        """Ask the engine to end, and make it."""
        self._closing = True
        process = self._process
        if process is None:
            return
        self.send(Shutdown())
        if process.stdin is not None:
            process.stdin.close()
        for end in (lambda: None, process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                end()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), SHUTDOWN_SECONDS)
                break
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        assert self._process is not None and self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than MAX_LINE: the rest of it is passed over
                self.malformed += 1
                continue
            if not line:
                break
            try:
                event = protocol.decode_event(line)
            except msgspec.DecodeError:
                self.malformed += 1
                continue
            on_event(event)
        code = await self._process.wait()
        if not self._closing:
            on_exit(self._why(code))

    def _why(self, code: int) -> str:
        words = ""
        if self.log is not None and self.log.exists():
            with self.log.open(encoding="utf-8", errors="replace") as file:
                words = next(iter(line.strip() for line in reversed(deque(file, LAST_WORDS)) if line.strip()), "")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the engine stopped ({how}){': ' + words[:200] if words else ''}"
