"""`tamer engine` on the far side of an ssh: bytes between its pipes and the socket of an engine that outlives them.

An engine that is started so has a socket of its own, in a folder of this user, named by the terminal's secret; when the link breaks it goes on, and
the terminal that comes back finds it there. Where nobody comes, it ends after `KEPT_SECONDS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from learners.engine.sockets import READ_BYTES, SocketError, connect

KEPT_SECONDS = 600.0
"""How long an engine that was started over a link waits for its terminal to come back."""
START_SECONDS = 20.0
"""Until it listens; the model is loaded later."""
LONGEST_HELLO = 64 * 1024
LAST_WORDS = 4
"""Lines of an engine's log that are passed on when it ends."""


def to_socket(path: Path, stdin: BinaryIO, out: BinaryIO) -> None:
    """To an engine that listens. Raises SocketError."""
    _relay(connect(path), b"", stdin, out)


def to_own_engine(stdin: BinaryIO, out: BinaryIO) -> None:
    """To the engine of the terminal that says hello in the first line of stdin; started where it does not run. Raises SocketError."""
    line = stdin.readline(LONGEST_HELLO)
    name = str(json.loads(line)["terminal"])  # by hand: the protocol takes a while to import
    path = runtime_folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.sock"
    log = path.with_suffix(".log")
    try:
        connection = connect(path)
    except SocketError:
        connection = _started(path, log)
    _relay(connection, line, stdin, out)
    with contextlib.suppress(OSError):  # it ended: its last words go to the log of the terminal
        sys.stderr.write("".join(log.read_text("utf-8", "replace").splitlines(keepends=True)[-LAST_WORDS:]))


def runtime_folder() -> Path:
    """Where this user's sockets are, for nobody else to open. Raises SocketError."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "tamer" if base and os.path.isdir(base) else Path(f"/tmp/tamer-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SocketError(f"{folder} cannot be made: {error.strerror}") from None
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SocketError(f"{folder} can be opened by others: remove it")
    return folder


def stop(path: Path) -> str:
    """End the engine that listens there; what it answers, in words. Raises SocketError."""
    from learners import protocol
    from learners.link import Hello, decode_from_engine, fingerprint, package_version

    hello = Hello(protocol=fingerprint(), package=package_version(), terminal="", role="stop")
    with connect(path) as connection:
        connection.sendall(protocol.encode(hello))
        answer = decode_from_engine(connection.makefile("rb").readline(protocol.MAX_LINE))
    if isinstance(answer, protocol.Error):
        raise SocketError(f"{answer.what}: {answer.hint}")
    return f"the engine at {path} ends"


def _started(path: Path, log: Path) -> socket.socket:
    command = [sys.executable, "-m", "learners.engine", "--listen", f"unix:{path}", "--keep", str(KEPT_SECONDS)]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(SocketError):
            return connect(path)
        if process.poll() is not None:  # another attempt of the same terminal may have been quicker
            with contextlib.suppress(SocketError):
                return connect(path)
            words = log.read_text("utf-8", "replace").strip().splitlines()
            raise SocketError(words[-1] if words else "the engine could not be started")
        time.sleep(0.02)
    raise SocketError("the engine did not listen in time")


def _relay(connection: socket.socket, first: bytes, stdin: BinaryIO, out: BinaryIO) -> None:
    """Until either side ends."""
    connection.sendall(first)

    def commands() -> None:
        with contextlib.suppress(OSError):
            while data := stdin.read1(READ_BYTES):  # type: ignore[attr-defined]
                connection.sendall(data)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=commands, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := connection.recv(READ_BYTES):
            out.write(data)
            out.flush()
