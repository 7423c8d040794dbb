"""Does tapping work? Simulated operators tap words of stories260k on a simulated clock, through `tamer simulate`, engine and database.

    python benchmarks/taps.py [--seeds 5] [--tastes cheerful,animals] [--jobs 2] [--out taps.jsonl]

After 10, 30 and 100 taps, no adapter: the win rate of 4 answers against 4 of the base on held-out prompts and the nats spent; after 30 also with the
window misplaced ([0.2, 4.0] s), with silence counted, and with no credit assignment (the word on the screen). Prints one JSON line of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tastes import story_prompts

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "shared" / "data" / "stories260k"
RECIPES = {
    "10": ["--taps", "10", "--nats", "3"],
    "30": ["--taps", "30", "--nats", "4"],
    "100": ["--taps", "100", "--nats", "4.7"],
    "30-wide": ["--taps", "30", "--nats", "4", "--window", "0.2", "4.0"],
    "30-silence": ["--taps", "30", "--nats", "4", "--silence"],
    "30-none": ["--taps", "30", "--nats", "4", "--window", "0.0", "0.001"],
}


def simulate(recipe: str, taste: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("\n".join(story_prompts()) + "\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "tamer_tui.cli", "simulate", f"{folder}/record.db", "--model", str(MODEL), "--prompts", str(prompts),
            "--feedback", "taps", "--operator", f"{HERE / 'tappers.py'}:{taste}", "--judge", f"{HERE / 'tastes.py'}:{taste}",
            "--rounds", "400", "--train-seconds", "0", "--max-new-tokens", "64", "--seed", str(seed), "--json", *RECIPES[recipe],
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1:] or ["failed"]}
        return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tastes", default="cheerful,animals")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default="taps.jsonl", help="where finished runs are kept")
    options = parser.parse_args()
    out = Path(options.out)
    done = {row["key"]: row for row in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    keys = [(r, t, s) for r in options.recipes.split(",") for s in range(options.seeds) for t in options.tastes.split(",")]

    def run(key: tuple[str, str, int]) -> None:
        name = "/".join(map(str, key))
        if name in done:
            return
        done[name] = row = {"key": name, **simulate(*key)}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, row.get("taps"), row.get("win_rate"), row.get("kl_per_response"), row.get("error", ""), file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, keys))
    found = {}
    for recipe in options.recipes.split(","):
        rows = [done["/".join(map(str, key))] for key in keys if key[0] == recipe and "error" not in done["/".join(map(str, key))]]
        medians = {name: round(statistics.median(row[name] for row in rows), 3) for name in ("win_rate", "kl_per_response", "taps")} if rows else {}
        found[recipe] = {"runs": len(rows), **medians}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
