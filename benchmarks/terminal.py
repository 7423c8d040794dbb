"""How long the terminal's loop is held, how long a key waits to be painted, how long leaving takes.

    python benchmarks/terminal.py [streaming|training|keys] [--seconds 20] [--times 3]

`streaming`: a script writes six answers at once, 40 tokens a second each, at once readable; then one of 500 lines is rendered as Markdown.
`training`: the real engine over Pocket draws and trains while somebody judges. `keys`: the program in a pseudo-terminal of its own under six such
answers; a key is written to it and its effect read back; then it is left, also when its engine obeys nothing.

Prints a JSON line a run, and one of medians. `lag` is by how much a timer of 10 ms comes late, which grows with whatever else the machine does;
`turn` is the CPU time of one turn of the loop, the most that a key could have waited without other programs; `frame` is that of a painting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.base_events import BaseEventLoop
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from latency import percentile
from textual.screen import Screen

from storage.records import Prompt, Sampling
from tamer_tui.app import TamerApp
from tamer_tui.headless import make_session
from tamer_tui.session import Session, SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.pseudo_terminal import PseudoTerminal, arena_command

ANSWERS, WORDS, TOKENS_PER_SECOND = 6, 4000, 40
TICK = 0.01
LONG = "\n".join(f"## Part {n}\n\n- one **bold** `code`\n\n```python\nprint({n})\n```" for n in range(72))
DEAF = """python -c 'import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(60)'"""


class Watch:
    """Notes how late a timer of the loop comes, and CPU milliseconds of its turns and of the screen's paintings. Made before there is a screen."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.turns: list[float] = []
        self.frames: list[float] = []
        turn, paint = BaseEventLoop._run_once, Screen._on_timer_update

        def timed_turn(loop: BaseEventLoop) -> None:
            began = time.thread_time()
            turn(loop)
            self.turns.append(1000 * (time.thread_time() - began))

        def timed_paint(screen: Screen[None]) -> None:
            began = time.thread_time()
            paint(screen)
            self.frames.append(1000 * (time.thread_time() - began))

        BaseEventLoop._run_once = timed_turn  # type: ignore[method-assign]
        Screen._on_timer_update = timed_paint  # type: ignore[method-assign]
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self.late.append(1000 * (time.perf_counter() - due))

    def begin(self) -> None:
        """From here on."""
        for noted in (self.late, self.turns, self.frames):
            noted.clear()

    def figures(self) -> dict[str, float]:
        """Since then."""
        return {
            "lag_p95_ms": percentile(self.late, 0.95), "lag_p99_ms": percentile(self.late, 0.99),
            "turn_p99_ms": percentile(self.turns, 0.99), "turn_max_ms": max(self.turns),
            "frame_mean_ms": statistics.fmean(self.frames), "frame_p95_ms": percentile(self.frames, 0.95), "frame_max_ms": max(self.frames),
        }  # fmt: skip

    async def end(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def streaming(seconds: float, folder: Path) -> dict[str, float]:
    """Six answers from a script, the focus going from one to the next; then Markdown."""
    words = " ".join(f"word{n % 97}" for n in range(WORDS))
    engine = FakeEngine([words] * ANSWERS, token_seconds=1 / TOKENS_PER_SECOND)
    session = Session(SessionSettings("fake", (Prompt.of("Once"),) * 3, k=ANSWERS), lambda: engine, folder / "a.db")
    watch = Watch()
    await session.start()
    async with TamerApp(session).run_test(size=(200, 50)) as pilot:
        await session.wait_ready()
        await pilot.press(*["greater_than_sign"] * 9)
        await asyncio.sleep(2.0)
        watch.begin()
        began = time.process_time()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await asyncio.sleep(0.5)
            await pilot.press("tab")
        found = watch.figures() | {"cpu_share": (time.process_time() - began) / seconds}
        await pilot.press("escape")
        await session.sets.wait_ended()
        pane = pilot.app.arena.answers.panes[0]  # type: ignore[attr-defined]
        await pilot.pause(0.5)
        watch.begin()
        pane.reading.display = False
        pane._finished.display = True
        pane._finished.show(LONG, True, False)
        await asyncio.sleep(3.0)
        found |= {"markdown_lines": len(pane._finished._strips), "markdown_turn_max_ms": max(watch.turns), "markdown_lag_max_ms": max(watch.late)}
        await watch.end()
    await session.close()
    return found


async def training(seconds: float, folder: Path) -> dict[str, float]:
    """The real engine over Pocket: a set is ranked as soon as it is there."""
    session = make_session(SessionSettings("pocket", k=4, sampling=Sampling(1.0, 64), quantize="none"), folder / "a.db", None)
    watch = Watch()
    await session.start()
    async with TamerApp(session).run_test(size=(200, 50)) as pilot:
        await session.wait_ready()
        await session.sets.wait_ended()
        watch.begin()
        arena, sets, active = pilot.app.arena, 0, 0  # type: ignore[attr-defined]
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            view = await session.sets.wait_ended()
            await pilot.pause(0.3)
            arena._opened = 0.0
            await pilot.press("b", "a", "enter")
            while session.current is view:
                await asyncio.sleep(0.01)
            sets, active = sets + 1, active + any(stage.active for stage in session.status.learning.values())
        found = watch.figures() | {"sets": sets, "sets_while_training": active}
        await watch.end()
    await session.close()
    return found


def keys(seconds: float, folder: Path) -> dict[str, float]:
    """A person's side of the terminal. The database's second start finds everything compiled and cached."""
    engine = f"{sys.executable} -m tests.tamer_tui.scripted_engine {1 / TOKENS_PER_SECOND} {WORDS}"
    waits: list[float] = []
    began = time.perf_counter()
    terminal = PseudoTerminal([*arena_command(folder / "a.db", engine), "-k", str(ANSWERS)], 200, 50)
    try:
        terminal.wait_for("tamer")
        painted = time.perf_counter() - began
        terminal.wait_for("Best first")
        terminal.press(">" * 9)
        terminal.rest(2.0)
        until, place = time.perf_counter() + seconds, 0
        while time.perf_counter() < until:
            terminal.rest(0.2)
            place = (place + 1) % ANSWERS
            terminal.painted, pressed = b"", time.perf_counter()
            terminal.press("\t")
            terminal.wait_for(f"▸ {'abcdef'[place]}")
            waits.append(1000 * (time.perf_counter() - pressed))
        left = _left(terminal)
    finally:
        terminal.close()
    terminal = PseudoTerminal(arena_command(folder / "b.db", DEAF), 200, 50)
    try:
        terminal.wait_for("Starting")
        deaf = _left(terminal)
    finally:
        terminal.close()
    return {
        "keys": len(waits), "key_to_paint_p50_ms": percentile(waits, 0.5), "key_to_paint_p99_ms": percentile(waits, 0.99),
        "first_paint_s": painted, "quit_s": left, "quit_from_a_deaf_engine_s": deaf,
    }  # fmt: skip


def _left(terminal: PseudoTerminal) -> float:
    """Seconds from the key until the shell would be back."""
    pressed = time.perf_counter()
    terminal.press("\x11")
    terminal.wait()
    return time.perf_counter() - pressed


def measured(what: str, seconds: float) -> dict[str, float]:
    """One run, in a folder of its own."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        work = {"streaming": streaming, "training": training}.get(what)
        found = asyncio.run(work(seconds, Path(folder))) if work is not None else keys(seconds, Path(folder))
    return {name: round(value, 2) for name, value in (found | {"load": (load + os.getloadavg()[0]) / 2}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("streaming", "training", "keys"), default="streaming")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    runs = []
    for _ in range(options.times):
        runs.append(measured(options.what, options.seconds))
        print(json.dumps(runs[-1]), flush=True)
    if len(runs) > 1:
        print(json.dumps({"median of": len(runs)} | {name: statistics.median(run[name] for run in runs) for name in runs[0]}))
        print(json.dumps({"best of": len(runs)} | {name: min(run[name] for run in runs) for name in runs[0]}))


if __name__ == "__main__":
    main()
