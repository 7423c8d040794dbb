"""An engine elsewhere, with small programs in the place of what leads there: what goes wrong is one line, and a link comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from learners import protocol
from learners.link import Welcome, fingerprint, package_version
from learners.protocol import Error, Event, Load, Loading
from tamer_tui import remote_engine
from tamer_tui.remote_engine import RemoteEngine

SAYS = "import sys; sys.stdin.readline(); sys.stdout.buffer.write({!r}); sys.stdout.flush(); sys.stdin.read()"
WELCOME = Welcome(protocol=fingerprint(), package=package_version())
LOADING = Loading(what="weights")
SCRIPTED = (sys.executable, "-m", "tests.tamer_tui.scripted_engine")


class Ear:
    """Keeps what an engine tells."""

    def __init__(self, command: tuple[str, ...], log: Path | None = None) -> None:
        self.engine = RemoteEngine(command, log)
        self.engine.on_link = lambda why, lost: self._hear((why, lost))
        self.heard: list[Event | tuple[str, bool]] = []
        self.why: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def _hear(self, what: Event | tuple[str, bool]) -> None:
        self.heard.append(what)
        self._changed.set()

    async def start(self) -> Ear:
        await self.engine.start(self._hear, self.why.set_result)
        return self

    async def ended(self) -> str:
        return await asyncio.wait_for(self.why, 30)

    async def until(self, what: Event | tuple[str, bool]) -> None:
        while what not in self.heard:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 30)


def saying(*lines: Welcome | Event | bytes) -> tuple[str, ...]:
    said = b"".join(line if isinstance(line, bytes) else protocol.encode(line) for line in lines)
    return (sys.executable, "-c", SAYS.format(said))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([Welcome(protocol="x", package="9.9")], f"the engine is of tamer-tui 9.9, and this terminal of {package_version()}: install"),
        ([Welcome(protocol="x", package=package_version())], "engine and terminal are of one version and speak differently"),
        ([b"Last login: Monday\n", Error(what="another terminal judges", hint="watch", fatal=True)], "another terminal judges: watch"),
        ([Error(what="not a command: Invalid value 'hello'")], "the engine there is of an older version of tamer-tui"),
        ([b"<html>\n" * 2000], "what answers is no engine"),
    ],
)
async def test_what_does_not_fit_is_told_in_one_line(said: list[Welcome | Event | bytes], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "LONGEST_GREETING", 1000)
    ear = await Ear(saying(*said)).start()
    assert (await ear.ended()).startswith(why)
    await ear.engine.close()


async def test_what_leads_nowhere_is_told_with_its_last_words(tmp_path: Path) -> None:
    words = "ssh: connect to host gpu-box port 22: Connection refused"
    ear = await Ear((sys.executable, "-c", f"import sys; print({words!r}, file=sys.stderr); sys.exit(255)"), tmp_path / "e.log").start()
    assert await ear.ended() == f"no engine answered (exit code 255): {words}"
    with pytest.raises(FileNotFoundError):
        await Ear(("no-such-command",)).start()


async def test_what_is_heard_before_and_behind_the_greeting_is_told_apart(tmp_path: Path) -> None:
    ear = await Ear(saying(b"\xff\nMotd {}\n", WELCOME, LOADING)).start()
    await ear.until(LOADING)
    await ear.engine.close()
    assert ear.heard == [LOADING] and not ear.why.done()


async def test_a_line_that_is_damaged_breaks_the_link_and_not_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "LIFE_SECONDS", 0.0)
    marker = tmp_path / "second"
    first, second = protocol.encode(WELCOME) + b"\xff\xff garbage\n", protocol.encode(WELCOME) + protocol.encode(LOADING)
    script = (
        f"import os, sys; sys.stdin.readline(); known = os.path.exists({str(marker)!r}); open({str(marker)!r}, 'w')\n"
        f"sys.stdout.buffer.write({second!r} if known else {first!r}); sys.stdout.flush(); sys.stdin.read()"
    )
    ear = await Ear((sys.executable, "-c", script)).start()
    await ear.until(LOADING)
    assert ear.heard[-2:] == [("", True), LOADING] and isinstance(ear.heard[0], tuple) and ear.heard[0][0]
    await ear.engine.close()


async def test_a_link_on_which_nothing_is_heard_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(remote_engine, "HEARTBEAT_SECONDS", 0.1)
    ear = await Ear(saying(WELCOME)).start()
    assert (await ear.ended()).startswith("the engine was lost, and the one before it as soon"), "each is new, and says no more"
    assert ear.heard[0] == ("nothing came for 0 s", False)


async def test_an_engine_that_is_lost_is_replaced_once_and_not_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "LIFE_SECONDS", 0.0)
    ear = await Ear(SCRIPTED).start()
    ear.engine.send(Load(model="m"))
    await ear.until(Loading(what="libraries"))
    assert ear.engine.link is not None
    os.kill(ear.engine.link.process.pid, signal.SIGKILL)
    await ear.until(("", True))
    ear.heard.clear()
    ear.engine.send(Load(model="m"))
    await ear.until(Loading(what="libraries"))
    monkeypatch.setattr(remote_engine, "LIFE_SECONDS", 60.0)
    os.kill(ear.engine.link.process.pid, signal.SIGKILL)
    assert (await ear.ended()).startswith("the engine was lost")
    await ear.engine.close()


async def test_a_fault_of_the_listener_is_told(tmp_path: Path) -> None:
    ear = Ear(saying(WELCOME, LOADING))

    def deaf(event: Event) -> None:
        raise RuntimeError("no room")

    await ear.engine.start(deaf, ear.why.set_result)
    assert await ear.ended() == "the engine's line could not be taken (RuntimeError: no room)"
    await ear.engine.close()
