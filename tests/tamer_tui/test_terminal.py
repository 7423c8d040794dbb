"""A terminal that vanishes ends the program and its engine."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

COLUMNS, ROWS = 80, 24


@pytest.mark.parametrize("controlling", [True, False])
@pytest.mark.parametrize("seconds", [0.8, 2.0])
def test_a_closed_window_ends_both_processes(tmp_path: Path, controlling: bool, seconds: float) -> None:
    engine_pid = tmp_path / "engine.pid"
    engine = f"sh -c 'echo $$ >{engine_pid}; cat >/dev/null'"
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def take_the_terminal() -> None:
        os.setsid()
        if controlling:  # closing it sends SIGHUP; otherwise only writing fails
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "tamer_tui.cli", str(tmp_path / "a.db"), "--model", "m", "--engine", engine]
    environment = os.environ | {"TERM": "xterm-256color"}
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, preexec_fn=take_the_terminal)
    os.close(theirs)
    try:
        assert _read(ours, 20.0, b"Starting the engine"), "nothing was painted"
        _read(ours, seconds)
        os.write(ours, b"???")
        os.close(ours)
        child.wait(15)
    finally:
        child.kill()
    _wait_until_gone(int(engine_pid.read_text()))
    assert not (tmp_path / "a.db.lock").exists()


def _read(descriptor: int, seconds: float, until: bytes = b"") -> bool:
    """What is painted, for so long or until it holds some words."""
    seen, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            seen += os.read(descriptor, 65536)
            if until and until in seen:
                return True
    return not until


def _wait_until_gone(pid: int) -> None:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} is still there")


def test_alt_enter_is_one_key_in_terminals_that_send_it_as_escape_and_return() -> None:
    from textual._xterm_parser import XTermParser

    import tamer_tui.terminal  # noqa: F401

    keys = [getattr(event, "key", None) for event in XTermParser(debug=False).feed("\x1b\rx\r")]
    assert keys == ["alt+enter", "x", "enter"]
