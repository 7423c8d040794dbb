"""How long the terminal's loop is held, and a key waits: a scripted engine writes six answers at once, 40 tokens a second each, at once readable.

    python benchmarks/terminal.py [--seconds 20]

Prints one JSON line. `lag` is by how much a timer of 10 ms comes late; `key` is from a pressed key to the end of the frame that shows it; `markdown`
is the longest that the loop was held while an answer of 500 lines was rendered. CPU seconds are of this process, the scripted engine included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from latency import percentile

from storage.records import Prompt
from tamer_tui.app import TamerApp
from tamer_tui.session import Session, SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine

ANSWERS, WORDS, TOKENS_PER_SECOND = 6, 4000, 40
TICK = 0.01
LONG = "\n".join(f"## Part {n}\n\n- one **bold** `code`\n\n```python\nprint({n})\n```" for n in range(72))


class Lag:
    """A timer that notes how late it comes, and the CPU milliseconds of each callback of the loop: they do not grow with the machine's load."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.held: list[float] = []
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run(handle)
            self.held.append(1000 * (time.thread_time() - began))

        asyncio.Handle._run = timed  # type: ignore[method-assign]

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self.late.append(1000 * (time.perf_counter() - due))


async def measure(seconds: float) -> dict[str, float]:
    words = " ".join(f"word{n % 97}" for n in range(WORDS))
    with tempfile.TemporaryDirectory() as folder:
        engine = FakeEngine([words] * ANSWERS, token_seconds=1 / TOKENS_PER_SECOND)
        session = Session(SessionSettings("fake", (Prompt.of("Once"),) * 3, k=ANSWERS), lambda: engine, Path(folder) / "a.db")
        await session.start()
        async with TamerApp(session).run_test(size=(200, 50)) as pilot:
            await session.wait_ready()
            await pilot.press(*["greater_than_sign"] * 9)
            await asyncio.sleep(2.0)
            lag, keys, began = Lag(), [], time.process_time()
            task = asyncio.create_task(lag.run())
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                await asyncio.sleep(0.2)
                pressed = time.perf_counter()
                await pilot.press("tab")
                keys.append(1000 * (time.perf_counter() - pressed))

            busy = time.process_time() - began
            streamed, held = list(lag.late), list(lag.held)
            await pilot.press("escape")
            await session.sets.wait_ended()
            pane = pilot.app.arena.answers.panes[0]  # type: ignore[attr-defined]
            lag.late.clear()
            lag.held.clear()
            pane.reading.display = False
            pane._finished.display = True
            pane._finished.show(LONG, True, False)
            await asyncio.sleep(3.0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            rendered = len(pane._finished._strips)
        await session.close()
    return {
        "lag_p95_ms": round(percentile(streamed, 0.95), 1), "lag_p99_ms": round(percentile(streamed, 0.99), 1),
        "key_p50_ms": round(percentile(keys, 0.5), 1), "key_p99_ms": round(percentile(keys, 0.99), 1),
        "markdown_lines": rendered, "markdown_held_ms": round(max(lag.late), 1),
        "callback_p99_cpu_ms": round(percentile(held, 0.99), 1), "callback_max_cpu_ms": round(max(held), 1),
        "markdown_callback_max_cpu_ms": round(max(lag.held), 1), "cpu_share": round(busy / seconds, 2), "load": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    print(json.dumps(asyncio.run(measure(parser.parse_args().seconds))))


if __name__ == "__main__":
    main()
