"""A line between two places as a program: every byte takes its time, there is a narrowest part, and it can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

ROUTER_BYTES = 128 * 1024
"""What waits before the narrowest part, each way; more is not read yet."""
CHUNK = 1024


class SlowLink:
    """Forwards TCP connections to a port of this machine. Belongs to a thread of its own; `down` may be set from any."""

    def __init__(self, target: int, one_way: float, bytes_per_second: float) -> None:
        """one_way: seconds."""
        self._target, self._one_way, self._rate = target, one_way, bytes_per_second
        self.port = 0
        self.down = False
        self.bytes = {"there": 0, "back": 0}
        self._free = {"there": 0.0, "back": 0.0}  # when the narrowest part has sent all that waits
        self._held: set[asyncio.Task[None] | None] = set()
        self._epoch = 0  # connections from before a cut stay dead, as behind a router that has forgotten them

    def cut(self) -> None:
        """Nothing comes through any more."""
        self.down = True
        self._epoch += 1

    def mend(self) -> None:
        """What is connected from now on comes through."""
        self.down = False

    async def serve(self, ready: threading.Event) -> None:
        """Until `end`."""
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._ended.wait()
        server.close()

    def end(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        epoch = self._epoch
        self._held.add(asyncio.current_task())  # nobody else holds it once the other side has gone
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.down:
                await asyncio.sleep(3600)  # the other side waits for an answer that never comes
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, back, "there", epoch), self._pump(there, writer, "back", epoch))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, epoch: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await reader.read(CHUNK)
            if epoch != self._epoch:
                return  # and the connections stay open, unheard
            now = time.monotonic()
            self._free[way] = max(now, self._free[way]) + len(data) / self._rate
            self.bytes[way] += len(data)
            loop.call_later(self._free[way] + self._one_way - now, self._arrive, writer, data, epoch)
            if not data:
                return
            await asyncio.sleep(max(0.0, self._free[way] - now - ROUTER_BYTES / self._rate))

    def _arrive(self, writer: asyncio.StreamWriter, data: bytes, epoch: int) -> None:
        if epoch != self._epoch:
            return
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(data) if data else writer.close()


@contextmanager
def slow_link(target: int, one_way: float = 0.1, bytes_per_second: float = 125_000.0) -> Iterator[SlowLink]:
    """As it is by default: 200 ms there and back, 1 Mbit/s."""
    link, ready = SlowLink(target, one_way, bytes_per_second), threading.Event()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(link.serve(ready))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield link
    link.end()
    thread.join(10)
