"""Unix sockets: where an engine listens, and the way to it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

READ_BYTES = 64 * 1024
LONGEST_PATH = 100
"""Bytes of a socket's path: the system takes a few more."""


class SocketError(Exception):
    """Why a socket cannot be had, in one line."""


def open_socket(path: Path) -> socket.socket:
    """Listening at `path`, which only its owner may open; one that an engine has left behind is taken over. Raises SocketError."""
    if not hasattr(socket, "AF_UNIX"):
        raise SocketError("this system has no Unix sockets")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise SocketError(f"{path} is too long for a socket: choose a path of at most {LONGEST_PATH} bytes")
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_room(path)
        before = os.umask(0o177)
        try:
            found.bind(str(path))
        finally:
            os.umask(before)
        found.listen()
    except OSError as error:
        found.close()
        raise SocketError(f"{path} cannot be listened at: {error.strerror}") from None
    except SocketError:
        found.close()
        raise
    return found


def connect(path: Path) -> socket.socket:
    """To an engine. Raises SocketError."""
    if not hasattr(socket, "AF_UNIX"):
        raise SocketError("this system has no Unix sockets")
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.connect(str(path))
    except OSError as error:
        found.close()
        raise SocketError(f"no engine listens at {path}: {error.strerror or error}") from None
    return found


def _make_room(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} is there and is no socket")
    try:
        connect(path).close()
    except SocketError:
        path.unlink()  # an engine that was killed left it behind
    else:
        raise SocketError(f"an engine listens at {path} already: tamer attach unix:{path}")
