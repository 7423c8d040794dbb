"""An engine behind a real sshd and a line of 200 ms and 1 Mbit/s: how late tokens come, what is sent, and how soon a cut line is in use again.

python benchmarks/remote.py [--seconds 30] [--cuts 3]
The line is a program (tests/slow_link.py); engine, terminal and line share this machine. How late a token comes over the line is told by a second
terminal that watches the same engine without it: the difference, less the line's own 100 ms one way. Connections from before a cut stay dead.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from learners import protocol
from storage.records import Prompt, Sampling
from tamer_tui.options import engine_command
from tamer_tui.remote_engine import RemoteEngine
from tamer_tui.session import Session, SessionSettings
from tests.slow_link import SlowLink, slow_link
from tests.ssh_server import MISSING, SshServer, ssh_server

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
ONE_WAY, BYTES_PER_SECOND = 0.1, 125_000.0
PROMPTS = tuple(Prompt.of(f"Once upon a time, there was a {a} {n}") for a in ("little", "big", "old") for n in ("dog", "cat", "girl", "boy"))


class Arrivals:
    """When each batch of tokens came, by answer and first token."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, int], float] = {}
        self.versions = 0
        self.ready = asyncio.Event()

    def take(self, event: protocol.Event) -> None:
        now = time.monotonic()
        if isinstance(event, protocol.Ready):
            self.ready.set()
        if isinstance(event, protocol.Tokens):
            for piece in event.pieces:
                self.at.setdefault((piece.uid, piece.start), now)


class Measured:
    """A sitting over the line, and a terminal beside the engine."""

    def __init__(self, folder: Path, server: SshServer, link: SlowLink, place: str) -> None:
        self.far, self.near, self.engines = Arrivals(), Arrivals(), []
        self.server, self._link, self._place, self._folder = server, link, place, folder
        settings = SessionSettings(
            str(MODEL), PROMPTS, k=4, sampling=Sampling(1.0, 200), metered=True, autostart=False, stages=("sft", "distill", "reward")
        )
        self.session = Session(settings, self._make, folder / "a.db")
        local = engine_command({"engine": place})
        assert local is not None
        self.watcher = RemoteEngine(local, role="watch")

    def _make(self) -> RemoteEngine:
        engine = RemoteEngine(self.server.tamer(f"engine --attach {self._place}", self._link.port), self._folder / "engine.log")
        take = engine._take

        def heard(said: protocol.Event) -> None:
            self.far.take(said)
            take(said)

        engine._take = heard  # type: ignore[method-assign, assignment]
        self.engines.append(engine)
        return engine

    async def start(self) -> None:
        await self.session.start()
        await self.session.wait_ready()
        await self.watcher.start(self.near.take, lambda why: None)
        await self.near.ready.wait()

    async def draw(self) -> None:
        await self.session.sets.open_next()
        await self.session.sets.wait_ended()

    async def rank(self) -> None:
        await self.draw()
        view = self.session.set
        await self.session.judging.rank({c.uid: i + 1 for i, c in enumerate(sorted(view.candidates, key=lambda c: len(c.text)))})

    def late(self, since: float) -> list[float]:
        """Milliseconds beyond the line's own delay of all tokens that came after `since`."""
        both = [key for key, at in self.near.at.items() if at > since and key in self.far.at]
        return sorted(1000 * (self.far.at[key] - self.near.at[key] - ONE_WAY) for key in both)


def told(name: str, late: list[float]) -> None:
    at = [statistics.median(late), late[int(0.95 * len(late))], late[-1]]
    print(f"{name}, later than the line itself: median {at[0]:.0f} ms, 95 % {at[1]:.0f} ms, latest {at[2]:.0f} ms ({len(late)} batches)", flush=True)


async def measure(measured: Measured, link: SlowLink, seconds: float, cuts: int) -> None:
    await measured.start()
    session, engine = measured.session, measured.engines[0]
    for _ in range(2):
        await measured.rank()
    link.bytes.update(there=0, back=0)
    began = time.monotonic()
    for _ in range(5):
        await measured.rank()
    took = time.monotonic() - began
    there, back = (n / 5 / 1000 for n in link.bytes.values())
    assert engine.link is not None
    framing = engine.link.framing
    print(f"a set of 4 answers: {back:.1f} kB come and {there:.1f} kB go, ssh's own share included; {took / 5:.1f} s a set", flush=True)
    print(f"what goes is compressed to {framing.packed / framing.said:.0%}, what comes to {framing.taken / framing.heard:.0%}", flush=True)
    told("tokens", measured.late(began))

    await session.evaluation.grant(steps=30)
    link.bytes.update(there=0, back=0)
    engine.blobs, began = 0, time.monotonic()
    published = asyncio.create_task(session.evaluation.grant(flush=True))
    while not engine.blobs:
        await asyncio.sleep(0.05)
    since = time.monotonic()
    await measured.draw()
    drawn = time.monotonic()
    await published
    version = next(v for v in session.machine.versions() if v.published)
    size = sum(file.stat().st_size for file in (measured._folder / "a.db.versions" / version.sha256).iterdir())
    print(f"a version of {size / 1000:.0f} kB: {link.bytes['back'] / 1000:.0f} kB came with the answers, in {time.monotonic() - since:.1f} s")
    told(f"tokens beside it ({drawn - since:.1f} s)", measured.late(since))

    alone, back = [], []
    for _ in range(cuts):
        began = time.monotonic()
        await (await asyncio.create_subprocess_exec(*measured.server.command("true", link.port))).wait()
        alone.append(time.monotonic() - began)
        print(f"an ssh by itself: {alone[-1]:.1f} s")
        await session.sets.open_next()
        link.cut()
        await asyncio.sleep(seconds)
        assert session.engine.away
        link.mend()
        mended = time.monotonic()
        while session.engine.away:
            await asyncio.sleep(0.01)
        back.append(time.monotonic() - mended)
        await session.sets.wait_ended()
        whole = all(c.ended in ("eos", "length") for c in session.set.candidates)
        print(f"cut for {seconds:.0f} s: in use again {back[-1]:.1f} s after it was mended; the set went on: {whole}", flush=True)
    print(f"slowest of {cuts}: {max(back):.1f} s; median {statistics.median(back):.1f} s, of which ssh {statistics.median(alone):.1f} s")
    await session.close()
    await measured.watcher.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0, help="of each cut")
    parser.add_argument("--cuts", type=int, default=3)
    asked = parser.parse_args()
    if MISSING or not MODEL.is_dir():
        sys.exit(MISSING or f"the model is not at {MODEL}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = f"unix:{folder / 'e.sock'}"
        process = subprocess.Popen([sys.executable, "-m", "tamer_tui.cli", "engine", "--listen", place])
        while not (folder / "e.sock").exists():
            time.sleep(0.1)
        try:
            with ssh_server(folder) as server, slow_link(server.port, ONE_WAY, BYTES_PER_SECOND) as link:
                asyncio.run(measure(Measured(folder, server, link, place), link, asked.seconds, asked.cuts))
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
