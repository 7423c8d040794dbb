"""The scripted engine as a process, which needs no model: python -m tests.tamer_tui.scripted_engine [seconds a token [words an answer]]"""

from __future__ import annotations

import asyncio
import sys

from learners import protocol
from learners.link import Attach, Hello, Received, Welcome, decode_from_terminal, fingerprint, package_version
from tests.tamer_tui.fake_engine import STORIES, FakeEngine


def say(event: protocol.Event | Welcome | Received) -> None:
    sys.stdout.buffer.write(protocol.encode(event))
    sys.stdout.buffer.flush()


async def heartbeat() -> None:
    """Over a link that never breaks nothing need be acknowledged."""
    while True:
        await asyncio.sleep(1)
        say(Received(n=0))


async def serve(token_seconds: float, words: int) -> None:
    """Until it is told to end, or nobody is left to tell it."""
    engine = FakeEngine([" ".join((story.split() * words)[:words]) for story in STORIES], token_seconds=token_seconds)
    await engine.start(say, lambda why: None)
    commands = asyncio.StreamReader(limit=protocol.MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    beating = None
    while line := await commands.readline():
        command = decode_from_terminal(line)
        if isinstance(command, protocol.Shutdown):
            return
        if isinstance(command, Hello):
            say(Welcome(protocol=fingerprint(), package=package_version()))
        elif isinstance(command, Attach):
            beating = asyncio.create_task(heartbeat())
        elif not isinstance(command, Received):
            engine.send(command)
    del beating


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.02, int(sys.argv[2]) if len(sys.argv) > 2 else 100))
