"""How soon a tap acts: from the key to the first displayed token that it changed, and how long Ĥ takes to learn from it.

    python benchmarks/tap_latency.py [--taps 100] [--model DIR|pocket] [--quantize none]

Drives the real tap view (headless Textual) over the real engine process with keys at reading pace, six tokens a second, training on. A tap counts
80 ms after its key, when it is known that the key was not held. Prints one JSON line: milliseconds over all taps, Ĥ's over the last fifth of
them, when nearly all taps are known; and decode speed with the bias as a share of that without it, in the same tree, alternately.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from latency import MODEL, percentile
from tastes import story_prompts

from storage.records import Prompt, Sampling
from tamer_tui.app import TamerApp
from tamer_tui.headless import make_session
from tamer_tui.session import Session
from tamer_tui.views import SessionSettings

DRAWN = 12
"""Answers drawn at a time, to compare speeds."""
ROUNDS = 7


async def until(met: object, longest: float = 30.0) -> bool:
    """Whether it came to be so in time."""
    started = time.perf_counter()
    while not met():  # type: ignore[operator]
        if time.perf_counter() - started > longest:
            return False
        await asyncio.sleep(0.002)
    return True


async def one_tap(session: Session, press: object, sign: str) -> tuple[float, float] | None:
    """Milliseconds from the key to the first token of the new rest on the screen, and of the fit; None where the answer had ended."""
    answer, learned = session.taps.answer, session.status.learned
    if answer is None:
        return None
    known, began = len(session.taps.marks()), time.perf_counter()
    await press(sign)  # type: ignore[operator]
    if not await until(lambda: len(session.taps.marks()) > known, 5.0):
        return None
    shown = len(answer.shown)
    if session.taps.complete or not await until(lambda: len(answer.shown) > shown or session.taps.complete, 5.0) or len(answer.shown) == shown:
        return None
    waited = 1000 * (time.perf_counter() - began)
    await until(lambda: session.status.learned is not learned, 5.0)
    return (waited, session.status.learned.milliseconds) if session.status.learned is not None else None


async def speeds(session: Session) -> float:
    """Tokens a second of the acting policy with Ĥ's bias against the same policy without it: the median of alternate draws."""
    prompt, found = session.split.train[0], []
    for i in range(ROUNDS):
        speed = {}
        for bias in (True, False) if i % 2 else (False, True):
            await session.machine.set_bias(bias)
            started = time.perf_counter()
            views = await session.evaluation.draw([prompt] * DRAWN, ["acting"] * DRAWN, list(range(i * DRAWN, (i + 1) * DRAWN)))
            speed[bias] = max(len(view.token_ids) for view in views) / (time.perf_counter() - started)  # steps: a batch is as slow as its longest
        found.append(speed[True] / speed[False])
    return statistics.median(found)


async def measure(model: str, quantize: str, taps: int) -> dict[str, float]:
    rng, waits, fits, training = random.Random(0), [], [], 0
    prompts = tuple(Prompt.of(text) for text in story_prompts())
    with tempfile.TemporaryDirectory() as folder:
        session = make_session(SessionSettings(model, prompts, sampling=Sampling(1.0, 64), quantize=quantize), Path(folder) / "a.db", None)
        app = TamerApp(session)
        await session.start()
        async with app.run_test(size=(100, 40)) as pilot:
            await session.wait_ready()
            await pilot.press("k")
            while len(waits) < taps:
                await until(lambda: session.taps.answer is not None and len(session.taps.answer.shown) > 4)
                await asyncio.sleep(rng.uniform(0.1, 0.5))
                training += any(stage.active for stage in session.status.learning.values())
                found = None if session.taps.complete else await one_tap(session, pilot.press, rng.choice(("plus", "minus")))
                if found is not None:
                    waits.append(found[0])
                    fits.append(found[1])
                elif session.taps.complete:
                    await pilot.press("enter")
            await session.machine.set_paused(True)
            await session.taps.finish()
            ratio = await speeds(session)
    late = fits[-max(1, taps // 5) :]
    return {
        "taps": len(waits), "while_training": round(training / len(waits), 2),
        "tap_to_token_ms": round(statistics.median(waits)), "tap_to_token_p95_ms": round(percentile(waits, 0.95)),
        "human_reward_ms": round(statistics.median(late), 1), "human_reward_p95_ms": round(percentile(late, 0.95), 1),
        "decode_with_bias": round(ratio, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--taps", type=int, default=100)
    chosen = parser.parse_args()
    print(json.dumps(asyncio.run(measure(chosen.model, chosen.quantize, chosen.taps))))


if __name__ == "__main__":
    main()
