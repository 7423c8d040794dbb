"""The program in a terminal of its own, as a person starts it: keys in, what is painted out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

SECONDS = 30.0
"""To wait for what must come."""
LEAVES = b"\x1b[?1049l"
"""What gives the terminal's own screen back."""


def arena_command(database: Path, engine: str = "", model: str = "m") -> list[str]:
    """The program over the scripted engine, or another one."""
    engine = engine or f"{sys.executable} -m tests.tamer_tui.scripted_engine"
    return [sys.executable, "-m", "tamer_tui.cli", str(database), "--model", model, "--engine", engine]


class PseudoTerminal:
    """A child with a terminal of `columns` by `rows`, its controlling one where `controlling`."""

    def __init__(self, command: Sequence[str], columns: int = 80, rows: int = 24, controlling: bool = True) -> None:
        self.ours, theirs = pty.openpty()
        self._resize(columns, rows)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.painted = b""

        def take_the_terminal() -> None:
            os.setsid()
            if controlling:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": os.getcwd()}
        self.child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=take_the_terminal)

    def _resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """As bytes that a terminal sends."""
        os.write(self.ours, keys.encode())

    def wait_for(self, words: str | bytes, seconds: float = SECONDS) -> bytes:
        """Until these are painted; what was painted since the last call, up to then. Raises TimeoutError."""
        wanted, end = words.encode() if isinstance(words, str) else words, time.monotonic() + seconds
        while wanted not in self.painted:
            if not self.read(end - time.monotonic()):
                raise TimeoutError(f"{wanted!r} never came after {self.painted[-2000:]!r}")
        at = self.painted.index(wanted) + len(wanted)
        seen, self.painted = self.painted[:at], self.painted[at:]
        return seen

    def rest(self, seconds: float) -> None:
        """Let it be for a while, painting taken."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def read(self, seconds: float) -> bool:
        """Take what has been painted; whether anything came."""
        if self.ours < 0:  # it has vanished
            time.sleep(max(0.0, seconds))
            return False
        if not select.select([self.ours], [], [], max(0.0, seconds))[0]:
            return False
        try:
            came = os.read(self.ours, 65536)
        except OSError:  # the child closed the last end of it
            return False
        self.painted += came
        return bool(came)

    def restored(self) -> bool:
        """Whether lines are edited, echoed and signalled as they were."""
        return termios.tcgetattr(self._theirs) == self.before

    def wait(self) -> int:
        """The exit code, painting taken meanwhile."""
        end = time.monotonic() + SECONDS
        while self.child.poll() is None and time.monotonic() < end:
            self.read(0.05)
        while self.read(0.05):
            pass
        return self.child.wait(1)

    def vanish(self) -> None:
        """The window is closed."""
        for descriptor in (self.ours, self._theirs):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.ours = self._theirs = -1  # another file may get these numbers

    def close(self) -> None:
        """Nothing is left of it."""
        self.child.kill()
        self.child.wait()
        self.vanish()
