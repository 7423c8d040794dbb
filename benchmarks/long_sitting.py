"""Whether a sitting of thousands of sets costs more at its end than at its beginning: memory of the terminal, and CPU time of its loop's turns.

    python benchmarks/long_sitting.py [--sets 2000]

The scripted engine is a process of its own; the terminal is real but for the glass (headless Textual at 120x36), with a real database and real keys.
Prints a JSON line for each tenth of the sitting: resident memory, and the turns that its keys and answers took. The first tenth warms caches up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from latency import percentile
from terminal import Watch
from textual.events import Key

from storage.records import Prompt
from tamer_tui.app import TamerApp
from tamer_tui.engine_client import EngineClient
from tamer_tui.session import Session, SessionSettings

PARTS = 10


def resident_mb() -> float:
    """Of this process."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) / 1024


async def sitting(sets: int, database: Path) -> list[dict[str, float]]:
    """A line for each tenth."""
    command = (sys.executable, "-m", "tests.tamer_tui.scripted_engine", "0", "40")
    prompts = tuple(Prompt.of(f"Tell me about number {n}.") for n in range(sets + PARTS))
    session = Session(SessionSettings("fake", prompts, k=4), lambda: EngineClient(command), database)
    watch, lines = Watch(), []
    await session.start()
    app = TamerApp(session)
    async with app.run_test(size=(120, 36)):
        await session.wait_ready()
        while session.current is None:
            await asyncio.sleep(0.01)
        for part in range(PARTS):
            watch.begin()
            for n in range(sets // PARTS):
                view = await session.sets.wait_ended()
                for key in ("abcd"[n % 4], "enter"):
                    app.arena._opened = 0.0
                    app.post_message(Key(key, key if len(key) == 1 else "\r"))
                while session.current is view:
                    await asyncio.sleep(0.002)
            turns = watch.turns
            lines.append({
                "sets": (part + 1) * (sets // PARTS), "judged": session.judged, "resident_mb": round(resident_mb(), 1),
                "turn_p95_ms": round(percentile(turns, 0.95), 2), "turn_p99_ms": round(percentile(turns, 0.99), 2),
                "turn_max_ms": round(max(turns), 1), "cpu_ms_a_set": round(sum(turns) / (sets // PARTS), 1),
            })  # fmt: skip
            print(json.dumps(lines[-1]), flush=True)
        await watch.end()
    await session.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    with tempfile.TemporaryDirectory() as folder:
        lines = asyncio.run(sitting(parser.parse_args().sets, Path(folder) / "a.db"))
    first, last = lines[0], lines[-1]
    more = round(last["resident_mb"] - first["resident_mb"], 1)
    print(json.dumps({"more_mb": more} | {name: round(last[name] / first[name], 2) for name in ("turn_p95_ms", "turn_p99_ms", "cpu_ms_a_set")}))


if __name__ == "__main__":
    main()
