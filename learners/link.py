"""What a connection to an engine elsewhere is made of, and what is said on it beside the protocol; it reads and writes nothing. Torch-free.

A link may break at any moment and be made anew, so lines are numbered and kept until the other side says that it has them: whoever comes back says
how far it got, and the rest is sent again (as in Eternal Terminal's protocol). Blobs of versions are many, and must not stand in the way of tokens:
they are sent as LEDBAT sends (RFC 6817), only as long as that makes no queue.
"""

from __future__ import annotations

import functools
import hashlib
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from learners import protocol
from learners.protocol import Command, Event, Load

Role = Literal["judge", "watch", "look", "stop"]
"""What a terminal comes for: to judge, to watch, to learn what is loaded, or to end the engine."""
HEARTBEAT_SECONDS = 1.0
"""Each side says `received` this often, whether anything came or not."""
SILENCE_SECONDS = 8.0
"""Of a link on which nothing came for so long nothing is expected any more. Importing torch may hold the interpreter for some seconds."""
LONGEST_GREETING = 2**20
"""Bytes before the first line that is one: what ssh and a login shell say."""
COMPRESSION = ("zlib",)
"""What this side understands, the best first."""
QUEUE_SECONDS = 0.03
"""How much later tokens may be for blobs that are under way (LEDBAT's target)."""


class LinkError(Exception):
    """What came cannot be of this link, in one line."""


class Hello(protocol._Line, frozen=True, kw_only=True):
    """A terminal's first line. It commits nobody to anything: only `attach` does."""

    protocol: str
    package: str  # version of tamer-tui
    terminal: str  # a secret of this terminal, the same each time it comes back
    role: Role = "judge"
    base_hash: str = ""  # of the base that its database was taught with, where that is known
    compression: tuple[str, ...] = ()  # it understands


class Welcome(protocol._Line, frozen=True, kw_only=True):
    """The engine's answer, or a fatal `error` with the reason why not."""

    protocol: str
    package: str
    known: bool = False  # this terminal was here before, and nothing that was said between the two is lost
    received: int = 0  # the last line of the terminal that came
    compression: str = ""  # of all that follows, both ways
    stays: bool = False  # it goes on without a terminal until it is told to end
    load: Load | None = None  # the model that it has loaded, or is loading
    place: str = ""  # where the database lies that it teaches


class Attach(protocol._Line, frozen=True, kw_only=True):
    """From here on lines are numbered, each way from 1: the terminal has all up to `received` and goes on with line `first`."""

    received: int
    first: int


class Received(protocol._Line, frozen=True, kw_only=True):
    """All lines up to `n` are here. Not numbered itself, and said every second, so that either side hears that the other is there."""

    n: int


_from_terminal = msgspec.json.Decoder(Hello | Attach | Received | Command)
_from_engine = msgspec.json.Decoder(Welcome | Received | Event)


def decode_from_terminal(line: bytes) -> Hello | Attach | Received | Command:
    """What comes over a link. Raises msgspec.DecodeError."""
    return _from_terminal.decode(line)


def decode_from_engine(line: bytes) -> Welcome | Received | Event:
    """The same the other way. Raises msgspec.DecodeError."""
    return _from_engine.decode(line)


@functools.cache
def fingerprint() -> str:
    """What both sides of a link must agree in: a hash over the names of all lines and of their fields, in hex."""
    named = {**vars(protocol), **globals()}.values()
    lines = [kind for kind in named if isinstance(kind, type) and issubclass(kind, Struct) and kind.__module__ in (protocol.__name__, __name__)]
    names = sorted(f"{kind.__name__}({','.join(field.name for field in msgspec.structs.fields(kind))})" for kind in lines)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


@functools.cache
def package_version() -> str:
    """Of tamer-tui, as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tamer-tui")
    except PackageNotFoundError:
        return "unknown"


def runs_of(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as runs, the first and the last of each."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return tuple((first, last) for first, last in runs)


class Unacknowledged:
    """Lines of one direction that the other side may not have yet. The first line is number 1."""

    def __init__(self) -> None:
        self.acknowledged = 0  # the last number that the other side has
        self._lines: deque[bytes] = deque()

    @property
    def last(self) -> int:
        """The number of the last line."""
        return self.acknowledged + len(self._lines)

    def add(self, line: bytes) -> int:
        """The number that it gets."""
        self._lines.append(line)
        return self.last

    def acknowledge(self, n: int) -> None:
        """All up to `n` are there. An old `n` says nothing new. Raises LinkError for one that was never sent."""
        if n > self.last:
            raise LinkError(f"line {n} was acknowledged, and {self.last} were sent")
        while self.acknowledged < n:
            self._lines.popleft()
            self.acknowledged += 1

    def waiting(self) -> list[bytes]:
        """All that the other side may lack, in order."""
        return list(self._lines)


class Framing:
    """Lines as bytes of one connection, and back."""

    def __init__(self, compression: str = "", rest: bytes = b"") -> None:
        """`rest` is what has come already of what is framed so."""
        self._deflate = zlib.compressobj(6, wbits=-15) if compression else None
        self._inflate = zlib.decompressobj(-15) if compression else None
        self._buffer = bytearray()
        self._rest = rest
        self.packed = self.said = 0  # bytes that went out, and what they stand for
        self.taken = self.heard = 0  # the same of what came

    def pack(self, lines: bytes) -> bytes:
        """Whole lines, so that they can be read at once at the other side."""
        packed = self._deflate.compress(lines) + self._deflate.flush(zlib.Z_SYNC_FLUSH) if self._deflate else lines
        self.said += len(lines)
        self.packed += len(packed)
        return packed

    def unpack(self, data: bytes) -> list[bytes]:
        """The lines that are complete now. Raises LinkError for what is not of this framing, and for a line that is too long."""
        self.taken += len(data)
        data, self._rest = self._rest + data, b""
        lines: list[bytes] = []
        while data:
            if self._inflate is None:
                plain, data = data, b""
            else:
                try:
                    plain = self._inflate.decompress(data, protocol.MAX_LINE)
                except zlib.error as error:
                    raise LinkError(f"what came over the link is damaged ({error})") from None
                if self._inflate.eof:
                    raise LinkError("what came over the link is damaged (it ends)")
                data = self._inflate.unconsumed_tail
            self.heard += len(plain)
            *whole, last = (self._buffer + plain).split(b"\n")
            lines += (bytes(line) for line in whole)
            self._buffer = last
            if len(last) > protocol.MAX_LINE:
                raise LinkError(f"a line is longer than {protocol.MAX_LINE:,} bytes")
        return lines


class BulkWindow:
    """How many bytes of blobs may be under way. Grows while they do not queue, and shrinks by as much as they do (RFC 6817)."""

    def __init__(self, piece: float = 1.4 * protocol.LINK_BLOB_CHUNK, now: Callable[[], float] = time.monotonic) -> None:
        """piece: bytes of about one line (base64 and names included); one is always allowed."""
        self._piece, self._now = piece, now
        self.bytes = piece
        self._flying: deque[tuple[int, int, float]] = deque()  # number, bytes, when
        self._in_flight = 0
        self._least = float("inf")  # seconds there and back

    @property
    def open(self) -> bool:
        """Whether another line may be sent."""
        return self._in_flight < self.bytes

    def sent(self, number: int, size: int) -> None:
        """A line of a blob went out."""
        self._flying.append((number, size, self._now()))
        self._in_flight += size

    def acknowledged(self, number: int) -> None:
        """The other side has all lines up to this one."""
        freed, since = 0, 0.0
        while self._flying and self._flying[0][0] <= number:
            _, size, since = self._flying.popleft()
            freed += size
        if not freed:
            return
        self._in_flight -= freed
        seconds = self._now() - since
        self._least = min(self._least, seconds)
        room = 1 - (seconds - self._least) / QUEUE_SECONDS
        grown = self.bytes + max(-0.5 * self.bytes, room * freed * self._piece / self.bytes)
        self.bytes = max(self._piece, min(grown, self._in_flight + freed + 2 * self._piece))  # no larger than it was of use
