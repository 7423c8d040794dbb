"""Does `tamer train` make of a database what the sitting that made it came to, in the same time? And the same bytes, twice and with kills?

    python benchmarks/training_alone.py [--taste cheerful] [--seed 0] [--rounds 50] [--seconds 60] [--iterations 6] [--kills 10] [--folder DIR]

A simulated operator ranks ROUNDS sets over stories260k. Of that database one copy goes on as a sitting: the live learner trains for SECONDS, metered.
On another copy `tamer train --record` rebuilds a policy from nothing but the judgements. Both are then asked for answers to the same held-out
prompts, with the adapter alone (`--no-bias`), and the operator's own function compares them with the base's. Prints one JSON line: the win rates and
nats of both, their ratio, seconds and CPU seconds of the rebuilding beside the plan's estimate, whether a second run gave the same hash, and whether
one that was killed KILLS times at random moments did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tastes import write_prompts
from teaching import HERE, MODEL

NATS = "12"


def tamer(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tamer_tui.cli", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"tamer {arguments[0]}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.strip()


class Bench:
    """One database, and copies of it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.prompts = folder / "prompts.txt"
        write_prompts(str(self.prompts))

    def simulate(self, database: Path, *more: str) -> dict[str, Any]:
        o = self.options
        return json.loads(tamer(
            "simulate", str(database), "--model", str(MODEL), "--prompts", str(self.prompts), "--operator", f"{HERE / 'tastes.py'}:{o.taste}",
            "-k", "4", "--max-new-tokens", "64", "--seed", str(o.seed), "--quantize", "none", "--nats", NATS, "--json", *more,
        ))  # fmt: skip

    def copy(self, name: str) -> Path:
        copy = self.folder / name
        shutil.copy(self.folder / "record.db", copy)
        return copy

    def train(self, out: str, *more: str) -> list[str]:
        """The command that rebuilds, from the copy that nobody writes to."""
        return ["train", str(self.folder / "rebuilt.db"), "--out", str(self.folder / out), "--no-bias", "--iterations", str(self.options.iterations),
                "--seed", str(self.options.seed), *more]  # fmt: skip


def evaluated(outcome: dict[str, Any]) -> dict[str, Any]:
    return {"win_rate": round(outcome["win_rate"], 3), "nats": round(outcome["kl_per_response"], 2)}


def killed(bench: Bench, kills: int, seconds: float, seed: int) -> tuple[str, int]:
    """The hash of a run whose processes are killed at random moments, and how many kills there were."""
    choice, done = random.Random(seed), 0
    while True:
        process = subprocess.Popen([sys.executable, "-m", "tamer_tui.cli", *bench.train("killed", "--json")], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        moment = choice.uniform(0.2, 2.0) * seconds / kills if done < kills else None
        try:
            out, _ = process.communicate(timeout=moment)
            return json.loads(out)["adapter_sha256"], done
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--taste", default="cheerful")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", default="60")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="kept, with a record.db in it that is taken as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options.folder or Path(scratch), options)
        if not (bench.folder / "record.db").exists():
            bench.simulate(bench.folder / "record.db", "--rounds", str(options.rounds), "--train-seconds", "0")
        again = ["--resume", "--rounds", "0", "--no-bias"]
        live = bench.simulate(bench.copy("live.db"), *again, "--train-seconds", options.seconds)
        rebuilt = bench.copy("rebuilt.db")
        plan = json.loads(tamer(*bench.train("plan", "--dry-run", "--json")))
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        first = json.loads(tamer(*bench.train("first", "--json")))
        seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        second = json.loads(tamer(*bench.train("second", "--json")))
        after_kills, kills = killed(bench, options.kills, seconds, options.seed) if options.kills else ("", 0)
        tamer(*bench.train("first", "--record"))
        trained = bench.simulate(rebuilt, *again, "--train-seconds", "0")
        print(json.dumps({
            "live": evaluated(live), "rebuilt": evaluated(trained), "win_rate_ratio": round(trained["win_rate"] / max(1e-9, live["win_rate"]), 3),
            "seconds": round(seconds, 1), "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
            "planned_seconds": round(sum(stage["seconds"] for stage in plan["stages"]), 1),
            "gates": [f"{gate['stage']}: {gate['reason']}" for gate in first["gated"]],
            "same_hash_twice": first["adapter_sha256"] == second["adapter_sha256"] != "",
            "kills": kills, "same_hash_after_kills": after_kills == first["adapter_sha256"] if kills else None,
            "load": round(os.getloadavg()[0], 1),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
