"""An engine behind a real sshd and a slow link that breaks; and an engine that listens, which terminals leave and come back to."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learners import protocol
from storage.records import Prompt, Sampling
from tamer_tui import remote_engine
from tamer_tui.attaching import look
from tamer_tui.options import engine_command
from tamer_tui.remote_engine import RemoteEngine
from tamer_tui.session import EngineState, Session, SessionError, SessionSettings
from tests.slow_link import SlowLink, slow_link
from tests.ssh_server import MISSING, SshServer, ssh_server

PROMPTS = tuple(
    Prompt.of(f"Once upon a time, there was a {adjective} {noun}") for adjective in ("little", "big", "old") for noun in ("dog", "cat", "girl", "boy")
)


def session_over(model: Path, path: Path, command: tuple[str, ...], **settings: object) -> tuple[Session, list[RemoteEngine]]:
    engines: list[RemoteEngine] = []

    def engine() -> RemoteEngine:
        engines.append(RemoteEngine(command, path.with_suffix(".log")))
        return engines[-1]

    defaults = {"sampling": Sampling(1.0, 24), "metered": True, "autostart": False, "k": 3, "stages": ("sft", "distill", "reward")}
    return Session(SessionSettings(str(model), PROMPTS, **(defaults | settings)), engine, path), engines  # type: ignore[arg-type]


async def rank(session: Session) -> None:
    await session.sets.open_next()
    view = await asyncio.wait_for(session.sets.wait_ended(), 60)
    order = sorted(view.candidates, key=lambda c: len(c.text))
    await session.judging.rank({c.uid: i + 1 for i, c in enumerate(order)})


async def until(session: Session, condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    session.observe(lambda change: changed.set())
    while not condition():
        await asyncio.wait_for(changed.wait(), 60)
        changed.clear()


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if MISSING:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("ssh")
    folder.chmod(0o700)
    with ssh_server(folder) as server:
        yield server
    for left in folder.glob("tamer/*.sock"):  # of a test that failed: it would wait for its terminal
        tamer("engine", "--stop", f"unix:{left}")


@pytest.fixture
def link(server: SshServer) -> Iterator[SlowLink]:
    with slow_link(server.port) as link:
        yield link


async def test_a_link_that_breaks_while_answers_are_drawn_and_a_version_is_sent_loses_nothing(
    stories260k: Path, tmp_path: Path, server: SshServer, link: SlowLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_engine, "SILENCE_SECONDS", 1.5)
    path = tmp_path / "a.db"
    session, engines = session_over(stories260k, path, server.tamer("engine", link.port), sampling=Sampling(1.0, 60))
    await session.start()
    await session.wait_ready()
    for _ in range(2):
        await rank(session)

    # while answers are drawn
    await session.sets.open_next()
    view = session.set
    await until(session, lambda: any(len(c.pieces) > 3 for c in view.candidates))
    link.cut()
    await until(session, lambda: session.engine.away != "")
    assert session.engine_state is EngineState.READY and "judging goes on" in session.notice
    link.mend()
    await asyncio.wait_for(session.sets.wait_ended(), 60)
    assert session.engine.away == "" and session.notice == "the link to the engine is back" and session.set is view
    assert all(c.ended in ("eos", "length") and "".join(c.pieces).strip() == c.text.strip() for c in view.candidates)
    assert [len(c.token_ids) for c in view.candidates] == [len(c.logprobs) for c in view.candidates]

    # while nothing is there, judging goes on
    link.cut()
    await session.judging.rank({c.uid: i + 1 for i, c in enumerate(view.candidates)})
    await until(session, lambda: session.engine.away != "")
    link.mend()
    await until(session, lambda: session.status.known == 3)

    # while a version is on its way
    received, receive = asyncio.Event(), session.opened.receive

    def receive_some(blob: protocol.Blob) -> None:
        receive(blob)
        if engines[0].blobs == 9:
            link.cut()
            received.set()

    monkeypatch.setattr(session.opened, "receive", receive_some)
    await session.evaluation.grant(steps=8)
    published = asyncio.create_task(session.evaluation.grant(flush=True))
    await asyncio.wait_for(received.wait(), 60)
    await until(session, lambda: session.engine.away != "")
    before = engines[0].blobs
    link.mend()
    await asyncio.wait_for(published, 60)
    version = next(v for v in session.machine.versions() if v.published)
    await until(session, lambda: session.status.acting[0] == version.id)
    files = path.with_name("a.db.versions") / version.sha256
    pieces = sum(-(-file.stat().st_size // 4096) for file in files.iterdir())
    assert before < pieces and engines[0].blobs == pieces, "those that had come were not sent again"
    assert len(engines) == 1 and len(engines[0].seconds_down) >= 3
    await session.close()
    assert not [*server.folder.glob("tamer/*.sock")], "an engine of one terminal ends with it"


class Watcher:
    """A terminal that looks on."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self.engine = RemoteEngine(command, role="watch")
        self.events: list[protocol.Event] = []
        self.why = ""
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await self.engine.start(self._take, self._end)

    def _take(self, event: protocol.Event) -> None:
        self.events.append(event)
        self._changed.set()

    def _end(self, why: str) -> None:
        self.why = why
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 60)

    def saw(self, kind: type[protocol.Event]) -> list[protocol.Event]:
        return [event for event in self.events if isinstance(event, kind)]


def tamer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tamer_tui.cli", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    place = f"unix:{tmp_path / 'e.sock'}"
    with (tmp_path / "engine.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "tamer_tui.cli", "engine", "--listen", place], stdout=log, stderr=log)
    while not (tmp_path / "e.sock").exists():
        assert process.poll() is None, (tmp_path / "engine.log").read_text()
        time.sleep(0.05)
    yield place
    process.terminate()
    process.wait()
    assert not (tmp_path / "e.sock").exists()


async def test_an_engine_that_listens_learns_on_while_nobody_is_there(stories260k: Path, tmp_path: Path, listening: str) -> None:
    command = engine_command({"engine": listening})
    assert command is not None
    assert stat.S_IMODE((tmp_path / "e.sock").stat().st_mode) == 0o600
    path = tmp_path / "a.db"
    session, _ = session_over(stories260k, path, command)
    await session.start()
    await session.wait_ready()
    watcher = Watcher(command)
    await watcher.start()
    await watcher.until(lambda: bool(watcher.saw(protocol.Ready)))
    for _ in range(3):
        await rank(session)
    await until(session, lambda: session.status.known == 3)
    asked = watcher.saw(protocol.Asked)[-1]
    assert isinstance(asked, protocol.Asked) and [each.uid for each in asked.requests] == [c.uid for c in session.set.candidates]

    refused, _ = session_over(stories260k, tmp_path / "b.db", command)
    await refused.start()
    with pytest.raises(SessionError, match="another terminal judges at this engine"):
        await refused.wait_ready()
    await refused.close()

    # the terminal goes, and what was granted is trained without it
    session.engine.send(protocol.Set(train_steps=8, flush=True))
    await session.close()
    await watcher.until(lambda: bool(watcher.saw(protocol.Gated)))
    assert not watcher.saw(protocol.Acting) and not watcher.saw(protocol.Blob)

    other, _ = session_over(stories260k, tmp_path / "b.db", command)
    await other.start()
    with pytest.raises(SessionError, match=f"teaches another database: {path}"):
        await other.wait_ready()
    await other.close()
    assert not (tmp_path / "b.db").exists()

    # as it is found again
    chosen = {"k": 3, "best_of": None, "temperatures": (), "system": None, "name": "o"}
    found_command, settings, found = await asyncio.to_thread(look, listening, chosen)
    assert found == path and found_command == command and settings.model == str(stories260k) and {*settings.prompts} == {*PROMPTS}
    sent: list[protocol.Command] = []
    session, engines = session_over(stories260k, path, command)
    await session.start()
    engines[0].send, send = lambda said: (sent.append(said), send(said))[-1], engines[0].send  # type: ignore[func-returns-value, method-assign]
    await session.wait_ready()
    assert session.status.acting[0] == "base" and session.ready is not None and session.ready.taught is not None
    await until(session, lambda: session.status.acting[0] == "v1")
    assert session.machine.versions()[0].acting and session.machine.versions()[0].published and session.status.known == 3
    assert not [lesson for said in sent if isinstance(said, protocol.Replay) for lesson in said.lessons], "it knows them"
    assert {run.uid for run in session.record.runs()} == {*session.machine.versions()[0].runs}
    await rank(session)
    await until(session, lambda: session.status.known == 4)
    await session.close()

    strange, _ = session_over(stories260k, path, command, seed=1)
    await strange.start()
    with pytest.raises(SessionError, match="seed 0 is loaded, and 1 is asked for"):
        await strange.wait_ready()
    await strange.close()
    assert tamer("engine", "--listen", listening).stderr.startswith("Error: an engine listens at")
    assert "ends" in tamer("engine", "--stop", listening).stdout
    await watcher.until(lambda: watcher.why != "")
    await watcher.engine.close()
