"""How long the operator waits: from the commit of a ranking to the first displayed token that it steered, and how the terminal keeps up.

    python benchmarks/latency.py [--rounds 50] [--model DIR]

Drives the real Arena (headless Textual) over the real engine process with keys, four panes, training on. Prints one JSON line: medians and
percentiles in milliseconds; decode speed while training as a share of the idle speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tastes import story_prompts
from textual.events import Key

from storage.records import Prompt, Sampling
from tamer_tui.app import TamerApp
from tamer_tui.headless import make_session
from tamer_tui.views import SessionSettings

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
HEARTBEAT_SECONDS = 0.01
LONGEST_WAIT = 60.0
"""Seconds, for a version after the last ranking."""


def percentile(values: list[float], share: float) -> float:
    """By nearest rank: the smallest value that this share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else float("nan")


async def heartbeat(lags: list[float]) -> None:
    """How late the loop gets to a timer."""
    while True:
        due = time.perf_counter() + HEARTBEAT_SECONDS
        await asyncio.sleep(HEARTBEAT_SECONDS)
        lags.append(1000 * (time.perf_counter() - due))


async def handled(app: TamerApp, arena: Any, key: str) -> float:
    """Seconds from a key's arrival until it stands in the ranking."""
    letters, began = len(arena.ballot.keys()), time.perf_counter()
    app.post_message(Key(key, key))
    while len(arena.ballot.keys()) == letters:
        await asyncio.sleep(0)
    return time.perf_counter() - began


async def measure(model: str, rounds: int) -> dict[str, float]:
    prompts = tuple(Prompt.of(text) for text in story_prompts())
    with tempfile.TemporaryDirectory() as folder:
        settings = SessionSettings(model, prompts, sampling=Sampling(1.0, 64), quantize="none")
        session = make_session(settings, Path(folder) / "a.db", None)
        app = TamerApp(session)
        waits: list[float] = []
        presses: list[float] = []
        speeds: dict[bool, list[float]] = {True: [], False: []}
        lags: list[float] = []
        committed = shown = 0.0
        await session.start()
        async with app.run_test(size=(200, 50)) as pilot:
            await session.wait_ready()
            beat = asyncio.create_task(heartbeat(lags))
            for _ in range(rounds):
                view = await session.sets.wait_ended()
                await pilot.pause(0.3)
                training = any(stage.active for stage in session.status.learning.values())
                arena = app.screen
                for key in "ba":
                    presses.append(1000 * await handled(app, arena, key))
                arena._opened = 0.0  # type: ignore[attr-defined]
                committed = time.perf_counter()
                app.post_message(Key("enter", "\r"))  # pilot.press would come back only once nothing is being drawn
                while session.current is view or not any(pane.stream.text for pane in arena.answers.panes):  # type: ignore[attr-defined]
                    await asyncio.sleep(0.002)
                shown = time.perf_counter()
                current = await session.sets.wait_ended()
                if not all(candidate.times for candidate in current.candidates):
                    continue  # a repeat: its answers were there
                waits.append(1000 * (shown - committed))
                tokens = sum(len(c.token_ids) for c in current.candidates) / len(current.candidates)
                longest = max(c.times[-1] - c.times[0] for c in current.candidates if c.times)
                speeds[training].append(tokens / max(1e-6, longest))
            beat.cancel()
            last, acting = committed, session.status.acting[0]
            while session.status.acting[0] == acting and time.perf_counter() - last < LONGEST_WAIT:
                await asyncio.sleep(0.02)
            published = time.perf_counter() - last if session.status.acting[0] != acting else float("nan")
        await session.close()
    idle = statistics.median(speeds[False]) if speeds[False] else float("nan")
    busy = statistics.median(speeds[True]) if speeds[True] else float("nan")
    return {
        "rankings": rounds,
        "commit_to_first_displayed_token_ms_median": statistics.median(waits),
        "at_last_10_rankings_ms_median": statistics.median(waits[-10:]),
        "commit_to_first_token_ms_p95": percentile(waits, 0.95),
        "last_commit_to_published_s": published,
        "loop_lag_ms_p50": percentile(lags, 0.5),
        "loop_lag_ms_p99": percentile(lags, 0.99),
        "key_handled_ms_p95": percentile(presses, 0.95),
        "decode_steps_per_s_idle": idle,
        "decode_steps_per_s_training": busy,
        "decode_training_over_idle": busy / idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--model", default=str(MODEL))
    options = parser.parse_args()
    figures = asyncio.run(measure(options.model, options.rounds))
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}))


if __name__ == "__main__":
    main()
