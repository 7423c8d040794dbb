"""A version that passed the gate while the operator went back to another: record and engine agree on who acts, whatever overtakes what."""

from __future__ import annotations

import asyncio
import random
from contextvars import Context
from pathlib import Path

import pytest

from learners import protocol
from learners.protocol import Command, Event
from storage.queries import Record
from storage.records import BASE_VERSION
from tamer_tui.session import Session
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.test_session import sitting, until


class SlowEngine(FakeEngine):
    """What it says about versions arrives when it is told to. As the real one it does not act with what it proposed before a rollback."""

    def __init__(self) -> None:
        super().__init__()
        self.on_the_way: list[Event] = []
        self.held = self.slow = False
        self._proposed: set[str] = set()
        self._withdrawn: set[str] = set()

    def emit(self, event: Event) -> None:
        if isinstance(event, protocol.Gated):
            self._proposed.add(event.sha256)
        if self.slow and isinstance(event, protocol.Blob | protocol.Gated | protocol.Acting | protocol.Trained):
            self.on_the_way.append(event)
        else:
            super().emit(event)

    def send(self, command: Command) -> None:
        match command:
            case protocol.Load():
                self.held, self.on_the_way = False, []
                self._proposed, self._withdrawn = set(), set()
            case protocol.Rollback():
                self.held, self._withdrawn, self._proposed = True, self._withdrawn | self._proposed, set()
            case protocol.Set(paused=False):
                self.held = False
            case protocol.PublishAck(sha256=sha256, version=version) if self.held or sha256 in self._withdrawn:
                self.received.append(command)
                self.emit(protocol.Acting(version=self.version, beta=0.1, h_epoch=self.epoch, refused=version))
                return
        super().send(command)

    async def arrive(self, session: Session) -> None:
        """All that is on the way, what the terminal makes of it, and what comes back."""
        while self.on_the_way or session._tasks:
            for event in self.on_the_way:
                Context().run(self._emit_now, event)
            self.on_the_way = []
            await session.settle()


@pytest.mark.parametrize("seed", range(12))
async def test_the_record_ends_with_what_the_engine_acts_with(tmp_path: Path, seed: int) -> None:
    choice = random.Random(seed)
    engine = SlowEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        engine.slow = True
        for _ in range(12):
            match choice.choice(["publish", "publish", "arrive", "go back", "resume", "restart"]):
                case "publish" if not engine.held:
                    engine.publish()
                case "arrive":
                    await engine.arrive(session)
                case "go back":
                    published = [version.id for version in session.machine.versions() if version.published]
                    await session.machine.rollback(choice.choice([BASE_VERSION, *published]))
                case "resume":
                    await session.machine.set_paused(False)
                case "restart":
                    engine.slow = False
                    await session.engine.restart()
                    await session.wait_ready()
                    engine.slow = True
        await engine.arrive(session)
        with Record(tmp_path / "a.db") as record:
            acting = record.acting_version()
            assert (acting.id if acting else BASE_VERSION, record.held()) == (engine.version, engine.held)


async def test_a_version_that_is_written_down_while_the_operator_goes_back_does_not_act_for_a_moment(tmp_path: Path) -> None:
    engine = SlowEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        engine.slow = True
        engine.publish()
        going_back = asyncio.create_task(session.machine.rollback(BASE_VERSION))
        await asyncio.sleep(0)  # the rollback is on its way to the disk
        await engine.arrive(session)
        await going_back
        with Record(tmp_path / "a.db") as record:
            assert [version.published for version in record.versions()] == [True], "it is kept"
            assert record.acting_version() is None and record.held()
            assert [why for (why,) in record._connection.execute("SELECT why FROM activations ORDER BY id")] == ["rollback"]


async def test_learning_that_is_resumed_while_the_engine_is_away_goes_on_from_the_version_that_acted(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with sitting(tmp_path / "a.db", engine) as session:
        engine.publish()
        await until(session, lambda: session.status.acting[0] == "v1")
        await session.machine.rollback("v1")
        engine.die()
        await session.machine.set_paused(False)
        with Record(tmp_path / "a.db") as record:
            acting = record.acting_version()
            assert acting is not None and acting.id == "v1" and not record.held()
