"""An engine behind a real sshd and a slow link that breaks; and an engine that listens, which terminals leave and come back to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.records import Prompt, Sampling
from tamer_tui import remote_engine
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


@pytest.fixture
def link(server: SshServer) -> Iterator[SlowLink]:
    with slow_link(server.port) as link:
        yield link


async def test_a_link_that_breaks_while_answers_are_drawn_and_a_version_is_sent_loses_nothing(
    stories260k: Path, tmp_path: Path, server: SshServer, link: SlowLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_engine, "SILENCE_SECONDS", 1.5)
    path = tmp_path / "a.db"
    session, engines = session_over(stories260k, path, server.tamer("engine", link.port), sampling=Sampling(1.0, 200))
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
    granted = asyncio.create_task(session.evaluation.grant(steps=40))
    await granted
    published = asyncio.create_task(session.evaluation.grant(flush=True))
    await until(session, lambda: engines[0].blobs > 5)
    before = engines[0].blobs
    link.cut()
    await until(session, lambda: session.engine.away != "")
    link.mend()
    await asyncio.wait_for(published, 120)
    version = next(v for v in session.machine.versions() if v.published)
    await until(session, lambda: session.status.acting[0] == version.id)
    files = path.with_name("a.db.versions") / version.sha256
    pieces = sum(-(-file.stat().st_size // 4096) for file in files.iterdir())
    assert before < pieces and engines[0].blobs == pieces, "those that had come were not sent again"
    assert len(engines) == 1 and len(engines[0].seconds_down) == 3
    await session.close()
    assert not [*server.folder.glob("tamer/*.sock")], "an engine of one terminal ends with it"
