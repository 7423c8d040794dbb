"""From the commit of a ranking to the first displayed token of the next answers: this tree and an earlier commit in one run.

    python benchmarks/commit_latency.py [--model DIR] [--rounds 12] [--before ce5d47c] [--reading 4.0]

Each tree runs its own `tamer_tui` and its own engine process, without a screen; training is paused, since what it costs is measured by latency.py.
After the answers have ended the operator reads for `--reading` seconds, then ranks. Prints one JSON line a tree and one with the ratio; milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from before_and_after import extracted

ROOT = Path(__file__).resolve().parents[1]
STORIES = ROOT.parent / "shared" / "data" / "stories260k"
TOKENS = 64

# What runs in each tree: a sitting of parts, or as the earlier commit has it, all in one.
SITTING = """
import asyncio, json, sys, tempfile, time
from pathlib import Path
from storage.records import Prompt, Sampling
from tamer_tui.headless import make_session
from tamer_tui.views import Change, SessionSettings

model, rounds, reading, tokens = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
NOUNS = ("dog", "cat", "girl", "king", "frog", "bird", "boat", "tree", "boy", "bear", "ball", "star", "fish", "hen", "cow", "fox")
prompts = tuple(Prompt.of(f"Tell me a story about a little {noun} who went out for a walk one day and met a friend.") for noun in NOUNS)

async def main():
    with tempfile.TemporaryDirectory() as folder:
        settings = SessionSettings(model, prompts, sampling=Sampling(1.0, tokens), quantize="none", autostart=False)
        session = make_session(settings, Path(folder) / "a.db", None)
        if hasattr(session, "sets"):
            pause, rank, close = session.machine.set_paused, session.judging.rank, session.close
            open_next, wait_ended, stop = session.sets.open_next, session.sets.wait_ended, session.sets.stop
        else:
            pause, rank, close = session.set_paused, session.rank, session.stop
            open_next, wait_ended, stop = session.next_set, session.wait_set_ended, None
        began = time.perf_counter()
        await session.start()
        await session.wait_ready()
        loading, waits = time.perf_counter() - began, []
        await pause(True)
        await open_next()
        for _ in range(rounds):
            view = await wait_ended()
            await asyncio.sleep(reading)
            shown = asyncio.Event()
            session.observe(lambda change: shown.set() if change is Change.TOKENS else None)
            ranks = {c.uid: i + 1 for i, c in enumerate(sorted(view.candidates, key=lambda c: -c.text.count("e")))}
            committed = time.perf_counter()
            await rank(ranks)
            shown.clear()
            await open_next()
            await shown.wait()
            waits.append(1000 * (time.perf_counter() - committed))
        if stop is not None:
            await stop()
        await close()
    print(json.dumps({"loading_s": loading, "waits": waits}))

asyncio.run(main())
"""


def measure(tree: Path, model: str, rounds: int, reading: float) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", SITTING, model, str(rounds), str(reading), str(TOKENS)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    waits = sorted(found["waits"])
    return {
        "commit_to_first_token_ms_median": statistics.median(waits),
        "commit_to_first_token_ms_worst": waits[-1],
        "loading_s": found["loading_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(STORIES))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--before", default="ce5d47c", help="a commit; '' measures this tree alone")
    parser.add_argument("--reading", type=float, default=4.0)
    options = parser.parse_args()
    how = {"model": options.model, "rankings": options.rounds, "k": 4, "answer_tokens": TOKENS}
    found: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        before = {options.before: stack.enter_context(extracted(options.before))} if options.before else {}
        for name, tree in {**before, "now": ROOT}.items():
            found[name] = measure(tree, options.model, options.rounds, options.reading)
            print(json.dumps({"tree": name, **how, **{key: round(value, 2) for key, value in found[name].items()}}), flush=True)
    if options.before:
        ratios = {f"{key}_ratio": round(found[options.before][key] / found["now"][key], 2) for key in found["now"]}
        print(json.dumps({"before_over_now": ratios}))


if __name__ == "__main__":
    main()
