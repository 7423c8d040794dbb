"""An engine elsewhere, behind a child process that leads there (ssh) and may break at any moment: the link is made anew, and goes on where it was.

While it is down nothing is lost: what is sent is kept, numbered, and sent again from where the engine heard it last; the engine does the same.
Attempts are begun one after another without waiting for the one before, since one that was begun a moment too early may hang for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec

from learners import protocol
from learners.link import (
    COMPRESSION,
    HEARTBEAT_SECONDS,
    LONGEST_GREETING,
    SILENCE_SECONDS,
    Attach,
    Framing,
    Hello,
    LinkError,
    Received,
    Role,
    Unacknowledged,
    Welcome,
    decode_from_engine,
    fingerprint,
    package_version,
)
from learners.protocol import Command, Error, Event, Shutdown
from tamer_tui.engine_client import SHUTDOWN_SECONDS, EngineLog

FIRST_SECONDS = 60.0
"""Until an engine elsewhere has said welcome, the first time."""
RETRY_SECONDS = 0.5
"""Between the beginnings of two attempts to come back."""
MOST_ATTEMPTS = 24
"""At the same time, so that each has twelve seconds; an ssh over 200 ms takes two and a half."""
GIVE_UP_SECONDS = 3600.0
"""After so long without a link the engine counts as lost: R starts another."""
LIFE_SECONDS = 60.0
"""An engine that is found to be gone so soon after it was begun is not begun again by itself."""
READ_BYTES = 64 * 1024


class Refused(Exception):
    """The engine says why not."""


@dataclass
class Link:
    """One connection: a child process and how lines are framed."""

    process: asyncio.subprocess.Process
    welcome: Welcome
    framing: Framing
    heard: float = field(default_factory=time.monotonic)
    silent: bool = False  # nothing came for too long

    def write(self, lines: bytes) -> None:
        """What goes to a link that is broken is lost here, and sent again over the next one."""
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            with contextlib.suppress(ConnectionError, RuntimeError):
                stdin.write(self.framing.pack(lines))

    def cut(self) -> None:
        """The child process ends."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class RemoteEngine:
    """As EngineClient, for an engine elsewhere. All methods belong to one asyncio loop."""

    remote = True

    def __init__(self, command: Sequence[str], log: Path | None = None, role: Role = "judge") -> None:
        """`command` leads to a `tamer engine`; `log` takes what it prints."""
        self.command, self.log, self.role = tuple(command), EngineLog(log), role
        self.base_hash = ""  # of the base that the database was taught with, where that is known
        self.on_link: Callable[[str, bool], None] = lambda why, lost: None
        self.link: Link | None = None
        self._terminal = uuid4().hex
        self._said = Unacknowledged()
        self._received = 0
        self._fatal = self._closing = False
        self._begun = 0.0  # monotonic seconds: when the engine was found to be new
        self._work: list[asyncio.Task[None]] = []
        self._emptied = asyncio.Event()  # all that was said has arrived
        self.seconds_down: list[float] = []  # of each time that the link was down
        self.blobs = 0  # pieces of versions that came

    @property
    def stays(self) -> bool:
        """Whether the engine goes on when this terminal leaves."""
        return self.link is not None and self.link.welcome.stays

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        """Make the first link, in the background. `on_exit` is told why there is no engine any more, unless `close` was called; `on_link` why the
        link is down, '' once it is back, and whether an engine that knows nothing is there now. Raises OSError where there is no such command."""
        if shutil.which(self.command[0]) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.command[0])
        self._on_event, self._on_exit = on_event, on_exit
        self.log.open().close()
        self._work = [asyncio.create_task(self._run()), asyncio.create_task(self._beat())]

    async def ask(self) -> Welcome:
        """Only what the engine answers to hello. Raises Refused, OSError."""
        link = await self._attempt()
        link.cut()
        await link.process.wait()
        _check(link.welcome)
        return link.welcome

    def send(self, command: Command) -> None:
        """Now, or as soon as the link is back. Raises LineTooLongError."""
        line = protocol.encode_command(command)
        self._said.add(line)
        self._emptied.clear()
        if self.link is not None:
            self.link.write(line)

    async def close(self) -> None:
        """Ask the engine to end, or leave one that stays; wait a little until it knows all that was said."""
        if self._closing:
            return
        self._closing = True
        if self.link is not None:
            if not self.stays:
                self.send(Shutdown())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone(), SHUTDOWN_SECONDS)
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self.link is not None:
            self.link.cut()
            await self.link.process.wait()

    async def _gone(self) -> None:
        assert self.link is not None
        if self.stays:
            if self._said.waiting():
                await self._emptied.wait()
        else:
            await self.link.process.wait()

    # --- the link ----------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            link = await asyncio.wait_for(self._attempt(), FIRST_SECONDS)
            while True:
                self._attach(link)
                why = await self._listen(link)
                self.link = None
                link.cut()
                await link.process.wait()
                if self._closing:
                    return
                if self._fatal:
                    raise Refused("the engine stopped")
                self.on_link(why, False)
                link = await self._come_back()
        except TimeoutError:
            why = f"no engine answered within {FIRST_SECONDS:.0f} s"
        except (Refused, OSError) as error:
            why = str(error)
        except Exception as error:  # a listener's fault: without this line the screen would wait for ever
            why = f"the engine's line could not be taken ({type(error).__name__}: {error})"
        if not self._closing:
            self._on_exit(why)

    async def _attempt(self) -> Link:
        """Raises Refused with the reason why there is no link, OSError."""
        with self.log.open() as log:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # ctrl+c is the terminal's; and ssh asks nothing on a screen that is painted
            )
        assert process.stdin is not None and process.stdout is not None
        hello = Hello(
            protocol=fingerprint(),
            package=package_version(),
            terminal=self._terminal,
            role=self.role,
            base_hash=self.base_hash,
            compression=() if socket_of(self.command) else COMPRESSION,
        )
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(protocol.encode(hello))
            welcome, rest = await _welcome(process.stdout)
            if welcome is None:
                raise Refused(self.log.why(await process.wait(), "no engine answered"))
            return Link(process, welcome, Framing(welcome.compression, rest))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise

    def _attach(self, link: Link) -> None:
        """Go on over this link, or begin anew where the engine knows nothing of what was said."""
        welcome, first_time = link.welcome, self._begun == 0
        _check(welcome)
        if not welcome.known:
            if not first_time and time.monotonic() - self._begun < LIFE_SECONDS:
                raise Refused("the engine was lost, and the one before it as soon: its log has the reason")
            self._begun = time.monotonic()
            self._received = 0
            if not first_time:  # what was meant for the one that is lost is no use to this one
                self._said = Unacknowledged()
        else:
            self._said.acknowledge(welcome.received)
        assert link.process.stdin is not None
        link.process.stdin.write(protocol.encode(Attach(received=self._received, first=self._said.acknowledged + 1)))
        if waiting := self._said.waiting():
            link.write(b"".join(waiting))
        self.link = link
        if not first_time:
            self.on_link("", not welcome.known)

    async def _come_back(self) -> Link:
        """The first attempt that is answered; the others end. Raises Refused."""
        began, told = time.monotonic(), ""
        attempts: list[asyncio.Task[Link]] = []
        try:
            while time.monotonic() - began < GIVE_UP_SECONDS:
                attempts.append(asyncio.create_task(self._attempt()))
                deadline = time.monotonic() + RETRY_SECONDS
                while attempts and (left := deadline - time.monotonic()) > 0:
                    done, _ = await asyncio.wait(attempts, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    attempts = [attempt for attempt in attempts if attempt not in done]
                    for attempt in done:
                        error = attempt.exception()
                        if error is None:
                            self.seconds_down.append(time.monotonic() - began)
                            return attempt.result()
                        if isinstance(error, Turned):
                            raise error
                        if str(error) != told:
                            told = str(error)
                            self.on_link(told, False)
                await asyncio.sleep(max(0.0, deadline - time.monotonic()))
                if len(attempts) == MOST_ATTEMPTS:
                    attempts.pop(0).cancel()
            raise Refused(f"the link to the engine was down for {GIVE_UP_SECONDS / 60:.0f} min")
        finally:
            for attempt in attempts:
                attempt.cancel()
            for finished in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(finished, Link):
                    finished.cut()

    async def _listen(self, link: Link) -> str:
        """Until the link breaks; why it did."""
        assert link.process.stdout is not None
        try:
            data = b""
            while True:
                for line in link.framing.unpack(data):
                    self._take(decode_from_engine(line))
                data = await link.process.stdout.read(READ_BYTES)
                link.heard = time.monotonic()
                if not data:
                    code = await link.process.wait()
                    return f"nothing came for {SILENCE_SECONDS:.0f} s" if link.silent else self.log.why(code, "the link broke")
        except (LinkError, msgspec.DecodeError) as error:
            return str(error)

    def _take(self, said: Welcome | Received | Event) -> None:
        if isinstance(said, Received):
            self._said.acknowledge(said.n)
            if not self._said.waiting():
                self._emptied.set()
        elif not isinstance(said, Welcome):
            self._received += 1
            if isinstance(said, protocol.Blob):
                self.blobs += 1
                self._say_received()
            self._fatal |= isinstance(said, Error) and said.fatal
            self._on_event(said)

    async def _beat(self) -> None:
        """Say what came, so that the engine hears; and cut a link on which nothing is heard any more."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            link = self.link
            if link is not None:
                self._say_received()
                if time.monotonic() - link.heard > SILENCE_SECONDS:
                    link.silent = True
                    link.cut()

    def _say_received(self) -> None:
        if self.link is not None:
            self.link.write(protocol.encode(Received(n=self._received)))


def socket_of(command: Sequence[str]) -> str:
    """unix:PATH, where the command leads no further than to a socket of this machine; else ''."""
    return command[-1] if command[0] == sys.executable and command[-1].startswith("unix:") else ""


class Turned(Refused):
    """An engine is there and will not have this terminal: it is of no use to try again."""


async def _welcome(stdout: asyncio.StreamReader) -> tuple[Welcome | None, bytes]:
    """The engine's first line, and what came behind it; None where the other side ends before. Raises Turned with what it has against us."""
    data, read = b"", 0
    while read < LONGEST_GREETING:
        more = await stdout.read(READ_BYTES)
        if not more:
            return None, b""
        read += len(more)
        *lines, data = (data + more).split(b"\n")
        for i, line in enumerate(lines):
            try:
                said = decode_from_engine(line)
            except (msgspec.DecodeError, UnicodeDecodeError):  # what a login shell says first is no concern
                continue
            if isinstance(said, Error):
                old = said.what.startswith("not a command")
                raise Turned("the engine there is of an older version of tamer-tui: install the same on both machines" if old else _words(said))
            if isinstance(said, Welcome):
                return said, b"\n".join([*lines[i + 1 :], data])
    raise Turned("what answers is no engine")


def _check(welcome: Welcome) -> None:
    """Engine and terminal speak alike. Raises Refused."""
    here, there = package_version(), welcome.package
    if here != there:
        raise Refused(f"the engine is of tamer-tui {there}, and this terminal of {here}: install the same version on both machines")
    if welcome.protocol != fingerprint():
        raise Refused("engine and terminal are of one version and speak differently: install the same commit on both machines")


def _words(error: Error) -> str:
    return f"{error.what}: {error.hint}" if error.hint else error.what
