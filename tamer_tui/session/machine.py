"""What the operator sets: the budget, steering, when adapters learn, and which version acts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from learners import protocol
from storage.records import BASE_VERSION
from storage.rows import MarkedVersion
from tamer_tui.session_store import SessionError, blobs_in
from tamer_tui.views import Change

if TYPE_CHECKING:
    from tamer_tui.session.session import Session


class Machine:
    """Tells the engine, and remembers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lent: tuple[protocol.Ready | None, tuple[str, ...]] = (None, ())  # to which engine

    async def set_nats(self, nats: float) -> None:
        """Budget of the acting policy against the base, per 64 tokens."""
        if not 0 <= nats <= 1000:
            raise SessionError("the budget is a number of nats from 0 to 1000")
        self._session.status.nats = nats
        self._session.engine.send(protocol.Set(nats=nats))
        self._session.tell(Change.MACHINE)

    async def set_bias(self, on: bool) -> None:
        """Steering by Ĥ on or off."""
        self._session.status.bias = on
        self._session.engine.send(protocol.Set(bias=on))
        self._session.tell(Change.MACHINE)

    async def set_paused(self, paused: bool) -> str:
        """Hold or resume the learning of adapters; resuming also ends the hold after a rollback. Says what becomes of it."""
        status = self._session.status
        resumed = status.held and not paused
        if resumed:
            await self._session.opened.activate(self._session.opened.acts_with(), "resumed")
            status.held = False
        status.paused = paused
        self._session.engine.send(protocol.Set(paused=paused))
        self._session.tell(Change.MACHINE)
        left = await self._session.judging.leave_stale(words=self._session.in_words > 0) if resumed else ""
        return "learning is paused: p resumes it" if paused else f"learning goes on{left}"

    async def train_now(self) -> None:
        """Start a round of training, even with little new to learn."""
        if self._session.status.held:
            raise SessionError("learning is held after the rollback", "press p to resume it")
        self._session.status.paused = False
        self._session.engine.send(protocol.Set(train_now=True))
        self._session.tell(Change.MACHINE)

    async def rollback(self, version: str) -> None:
        """Act with an earlier version, 'base' for none; learning is held until the operator resumes it."""
        store, status = self._session.opened, self._session.status
        found = next((v for v in self.versions() if v.id == version and v.published), None)
        if found is None and version != BASE_VERSION:
            raise SessionError(f"there is no published version {version}")
        blobs = store.blobs_of(found.sha256) if found is not None else []
        before, status.held = status.held, True  # at once: a version that passed the gate before does not act any more
        try:
            await store.activate(version, "rollback")
        except SessionError:
            status.held = before
            raise
        for blob in blobs:
            self._session.engine.send(blob)
        self._session.engine.send(protocol.Rollback(version=version, sha256=found.sha256 if found is not None else None))
        status.paused = True
        self._session.tell(Change.VERSION)

    async def lend(self, hashes: Sequence[str]) -> None:
        """The engine gets the files of these published versions, two at most, to draw by their adapters whichever acts. Raises SessionError."""
        engine, store = self._session.ready, self._session.opened
        if not (self._lent[0] is engine and set(hashes) <= set(self._lent[1])):
            for sha256 in hashes:
                for blob in await asyncio.to_thread(store.blobs_of, sha256):
                    self._session.engine.send(blob)
            self._lent = engine, tuple(hashes)

    async def act_with(self, version: str, sha256: str, root: Path) -> None:
        """Act with a version of another database, whose versions lie under `root`; nothing is recorded."""
        for blob in blobs_in(root, sha256):
            self._session.engine.send(blob)
        self._session.engine.send(protocol.Rollback(version=version, sha256=sha256))

    def versions(self) -> list[MarkedVersion]:
        """Newest first."""
        return self._session.record.versions() if self._session.store is not None else []
