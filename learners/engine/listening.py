"""Links to terminals over a Unix socket that only its owner may open. One thread takes connections; each link has one to read and one to write."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time

import msgspec

from learners import protocol
from learners.engine.sockets import READ_BYTES
from learners.engine.terminals import Hub, Terminal
from learners.link import HEARTBEAT_SECONDS, Attach, Framing, Hello, LinkError, Received, decode_from_terminal
from learners.protocol import Command, Error

GREETING_SECONDS = 20.0
"""Until a terminal has said what it wants: the link may be slow."""
LONGEST_HELLO = 64 * 1024


class Unsaid(Exception):
    """A connection that ended without a word."""


class Listener:
    """Takes connections until the process ends."""

    def __init__(self, hub: Hub, listening: socket.socket) -> None:
        self._hub, self._socket = hub, listening

    def run(self) -> None:
        """Never returns."""
        while True:
            connection, _ = self._socket.accept()
            if _own(connection):
                link = Link(self._hub, connection)
                threading.Thread(target=link.run, name="link", daemon=True).start()
            else:
                connection.close()


def _own(connection: socket.socket) -> bool:
    """Whether the other side is this user's process, where the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (os.geteuid(), 0)


class Link:
    """One connection, from hello to its end. What it cannot read ends it: the terminal comes back, and is told from where."""

    def __init__(self, hub: Hub, connection: socket.socket) -> None:
        self._hub, self._connection = hub, connection
        self._framing = Framing()
        self._ended = False
        self.heard = time.monotonic()

    def run(self) -> None:
        """Its reading thread."""
        try:
            self._connection.settimeout(GREETING_SECONDS)
            opened = self._open()
            self._connection.settimeout(None)
            if opened is not None:
                self._serve(*opened)
        except Unsaid:  # somebody looked whether an engine listens
            pass
        except (OSError, LinkError, msgspec.DecodeError) as error:
            print(f"a terminal's link ended: {error}", flush=True)
        finally:
            self.end()
            self._connection.close()

    def end(self) -> None:
        """From any thread."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    # --- greeting ----------------------------------------------------------------------------------------------------------

    def _open(self) -> tuple[Terminal, Attach, list[bytes]] | None:
        line, rest = self._first_line(b"")
        hello = decode_from_terminal(line)
        if not isinstance(hello, Hello):
            raise LinkError("its first line is no hello")
        answer = self._hub.answer(hello)
        self._connection.sendall(protocol.encode(answer))
        if isinstance(answer, Error) or hello.role == "look":
            return None
        if hello.role == "stop":
            self._hub.stop()
            return None
        line, rest = self._first_line(rest)
        attach = decode_from_terminal(line)
        if not isinstance(attach, Attach):
            raise LinkError("its second line does not attach")
        self._framing = Framing(answer.compression, rest)
        taken = self._hub.attach(hello, attach, self)
        if isinstance(taken, Error):
            self._connection.sendall(self._framing.pack(protocol.encode(taken)))
            return None
        return taken[0], attach, taken[1]

    def _first_line(self, data: bytes) -> tuple[bytes, bytes]:
        while b"\n" not in data:
            more = self._connection.recv(READ_BYTES)
            if not more or len(data) > LONGEST_HELLO:
                raise Unsaid if not data and not more else LinkError("its first line is no line")
            data += more
        line, _, rest = data.partition(b"\n")
        return line, rest

    # --- after it ----------------------------------------------------------------------------------------------------------

    def _serve(self, terminal: Terminal, attach: Attach, lines: list[bytes]) -> None:
        threading.Thread(target=self._write, args=(terminal, lines), name="link writer", daemon=True).start()
        number = attach.first - 1
        try:
            data = b""  # the first time, what came behind `attach`
            while not self._ended:
                for line in self._framing.unpack(data):
                    said = decode_from_terminal(line)
                    if isinstance(said, Received):
                        self._hub.acknowledge(terminal, self, said.n)
                    elif isinstance(said, Command):
                        number += 1
                        self._hub.take(terminal, self, number, said)
                data = self._connection.recv(READ_BYTES)
                self.heard = time.monotonic()
                if not data:
                    return
        finally:
            self._hub.leave(terminal, self)

    def _write(self, terminal: Terminal, lines: list[bytes]) -> None:
        """Its writing thread. Lines were taken before they are written: what is lost on the way is among those that are sent again."""
        said = 0.0
        with contextlib.suppress(OSError):
            while not self._ended:
                if time.monotonic() - said >= HEARTBEAT_SECONDS:
                    said = time.monotonic()
                    lines = [protocol.encode(Received(n=terminal.received)), *lines]
                self._connection.sendall(self._framing.pack(b"".join(lines)))
                lines = self._hub.next_lines(terminal, self, said + HEARTBEAT_SECONDS)
        self.end()
