"""The pipes to the engine, with small programs in its place: what it says, how it ends, and what is told of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from learners import protocol
from learners.protocol import Error, Event, Loading
from tamer_tui.engine_client import LONGEST_LOG, EngineClient

SAYS = "import sys; sys.stdout.write({!r}); sys.stdout.flush()"
READS = "import sys\nfor line in sys.stdin: pass\n"
LOADING = protocol.encode(Loading(what="weights", done=1.0, total=2.0)).decode()


class Ear:
    """Keeps what a client tells."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.why: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Event()

    def event(self, event: Event) -> None:
        self.events.append(event)
        self.heard.set()

    async def ended(self) -> str:
        return await asyncio.wait_for(self.why, 20)


async def listen(script: str, log: Path | None = None, on_event: Callable[[Event], None] | None = None) -> tuple[EngineClient, Ear]:
    client, ear = EngineClient((sys.executable, "-c", script), log), Ear()
    await client.start(on_event or ear.event, ear.why.set_result)
    return client, ear


async def test_lines_that_are_no_events_are_counted_and_told_and_the_rest_is_heard() -> None:
    client, ear = await listen(SAYS.format("Last login: Monday\n" + LOADING + '{"type":"nonsense"}\n\xff\n' + LOADING))
    await ear.ended()
    assert ear.events.count(Loading(what="weights", done=1.0, total=2.0)) == 2
    told = [event for event in ear.events if isinstance(event, Error)]
    assert client.malformed == 3 and len(told) == 2, "what a login shell says before the engine speaks is passed over"
    assert not any(error.fatal for error in told) and told[-1].what.startswith("3 lines")


async def test_a_line_beyond_the_limit_is_passed_over() -> None:
    script = f"import sys; sys.stdout.write('x' * {protocol.MAX_LINE + 10} + '\\n' + {LOADING!r})"
    client, ear = await listen(script)
    await ear.ended()
    assert client.malformed >= 1 and Loading(what="weights", done=1.0, total=2.0) in ear.events


async def test_death_is_told_with_the_signal_and_the_last_line_of_this_engine_s_log(tmp_path: Path) -> None:
    log = tmp_path / "state" / "engine.log"
    _, ear = await listen("import os, sys; print('CUDA is on fire', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)", log)
    assert await ear.ended() == "the engine stopped (signal 9): CUDA is on fire"
    _, ear = await listen("import sys; sys.exit(3)", log)
    assert await ear.ended() == f"the engine stopped (exit code 3): its log is {log}", "not the last words of the one before"


async def test_an_engine_that_cannot_be_heard_any_more_and_lives_on_is_ended_and_told() -> None:
    client = EngineClient((sys.executable, "-c", "import os, sys\nos.close(1)\n" + READS))
    client.shutdown_seconds, ear = 0.2, Ear()
    await client.start(ear.event, ear.why.set_result)
    assert await ear.ended() == "the engine stopped (signal 15)"


async def test_an_old_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * (LONGEST_LOG + 1))
    _, ear = await listen("import sys; sys.stderr.write('new')", log)
    await ear.ended()
    assert log.read_bytes() == b"new"


async def test_what_a_listener_cannot_take_ends_the_engine_s_life_and_is_told(tmp_path: Path) -> None:
    def deaf(event: Event) -> None:
        raise RuntimeError("no room\nfor this")

    client, ear = await listen(SAYS.format(LOADING) + "\n" + READS, on_event=deaf)
    assert await ear.ended() == "the engine's line could not be taken (RuntimeError: no room)"
    await client.close()


async def test_closing_ends_an_engine_that_obeys_and_tells_nobody() -> None:
    client, ear = await listen("import sys\nassert 'shutdown' in sys.stdin.readline()\n")
    await client.close()
    assert client._process is not None and client._process.returncode == 0 and not ear.why.done()


async def test_closing_ends_an_engine_that_does_not_listen() -> None:
    script = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAYS.format(LOADING) + "\nwhile True: time.sleep(60)\n"
    client, ear = await listen(script)
    await asyncio.wait_for(ear.heard.wait(), 20)
    client.shutdown_seconds = 0.05
    await client.close()
    assert client._process is not None and client._process.returncode == -9


async def test_what_is_sent_to_an_engine_that_is_gone_is_dropped_in_silence() -> None:
    client, ear = await listen("pass")
    await ear.ended()
    for _ in range(3):
        client.send(protocol.Stop())
    await client.close()
    EngineClient().send(protocol.Stop())


async def test_an_engine_outlives_neither_the_pipe_nor_a_flood(tmp_path: Path) -> None:
    """More than a pipe holds, both ways, while nobody waits."""
    script = "import sys\nfor line in sys.stdin:\n    sys.stdout.write(" + repr(LOADING) + " * 20)\nsys.stdout.flush()\n"
    client, ear = await listen(script)
    for _ in range(2000):
        client.send(protocol.Stop(uids=("u" * 40,)))
    assert client._process is not None and client._process.stdin is not None
    client._process.stdin.close()
    await ear.ended()
    assert len(ear.events) == 40_000 and client.malformed == 0
