"""Does teaching work? Simulated operators of four tastes teach stories260k through `tamer simulate`, the real engine and a real database.

    python benchmarks/teaching.py RECIPE [--seeds 5] [--tastes …] [--model DIR] [--quantize none] [--jobs 2] [--out results.jsonl]

A recipe is one or more `tamer simulate` calls on the same database, so that training happens after the judging. Finished runs are kept in the output
file and not repeated. Another `--model` answers the prompts that ship. Prints one JSON line: for each recipe the medians over tastes and seeds, and
the same with a unigram bias in place of Ĥ.
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

from tastes import TASTES, story_prompts

from tamer_tui.prompts import starter_prompts

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / "shared" / "data" / "stories260k"

AFTER = ["--resume", "--rounds", "0"]
"""A second call: no further judgements, only training and the end."""

CORRECTIONS = {"rename": "renamed", "happy_end": "ended_happily"}
"""Operators that rewrite, and the judge that tells how often the change is there."""

RECIPES: dict[str, list[list[str]]] = {
    "corrections-3": [["--rounds", "3", "--feedback", "correction", "--train-seconds", "30", "--nats", "6"]],
    "bias-25": [["--rounds", "25", "--train-seconds", "0", "--nats", "6"]],
    "noisy-25": [["--rounds", "25", "--train-seconds", "0", "--nats", "6"]],
    "noisy-50": [["--rounds", "50", "--train-seconds", "0", "--nats", "6"]],
    "bias-50": [["--rounds", "50", "--train-seconds", "0", "--nats", "6"]],
    "unigram-25": [["--rounds", "25", "--train-seconds", "0", "--nats", "6", "--unigram"]],
    "unigram-50": [["--rounds", "50", "--train-seconds", "0", "--nats", "6", "--unigram"]],
    "train-25": [
        ["--rounds", "25", "--train-seconds", "0", "--nats", "10"],
        [*AFTER, "--train-seconds", "40", "--nats", "10"],
    ],
    **{
        f"{noisy}train-50{long}": [
            ["--rounds", "50", "--train-seconds", "0", "--nats", "6"],
            [*AFTER, "--train-seconds", seconds, "--nats", "10"],
        ]
        for noisy in ("", "noisy-")
        for long, seconds in (("", "60"), ("-long", "120"))
    },
    "adapter-50": [
        ["--rounds", "50", "--train-seconds", "0", "--nats", "12"],
        [*AFTER, "--train-seconds", "60", "--nats", "12", "--no-bias"],
    ],
    "unigram-train-25": [
        ["--rounds", "25", "--train-seconds", "0", "--nats", "10", "--unigram"],
        [*AFTER, "--train-seconds", "40", "--nats", "10", "--unigram"],
    ],
    "unigram-adapter-50": [
        ["--rounds", "50", "--train-seconds", "0", "--nats", "12", "--unigram"],
        [*AFTER, "--train-seconds", "60", "--nats", "12", "--no-bias", "--unigram"],
    ],
    "ppo-50": [
        ["--rounds", "50", "--train-seconds", "0", "--nats", "6"],
        [*AFTER, "--train-seconds", "60", "--nats", "20", "--no-bias", "--stages", "reward,ppo"],
    ],
    "ppo-zeroed-50": [
        ["--rounds", "50", "--train-seconds", "0", "--nats", "6"],
        [*AFTER, "--train-seconds", "60", "--nats", "20", "--no-bias", "--stages", "reward,ppo", "--frozen-ppo"],
    ],
    "distilled-50": [
        ["--rounds", "50", "--train-seconds", "0", "--nats", "10"],
        [*AFTER, "--train-seconds", "15", "--nats", "10", "--no-bias", "--stages", "distill"],
    ],
    "distilled-ppo-50": [
        ["--rounds", "50", "--train-seconds", "0", "--nats", "10"],
        [*AFTER, "--train-seconds", "15", "--nats", "10", "--no-bias", "--stages", "distill"],
        [*AFTER, "--train-seconds", "60", "--nats", "10", "--no-bias", "--stages", "reward,ppo"],
    ],
}


def simulate(model: Path, recipe: str, taste: str, seed: int, quantize: str) -> dict:
    """One run of a recipe on a fresh database; the last call's figures."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        texts = story_prompts() if model == MODEL else [prompt.messages[-1].content for prompt in starter_prompts(chat=True)]
        prompts.write_text("\n".join(texts) + "\n", encoding="utf-8")
        noisy = recipe.startswith("noisy-")
        judge = ["--judge", f"{HERE / 'tastes.py'}:{CORRECTIONS.get(taste, taste)}"] if noisy or taste in CORRECTIONS else []
        for arguments in RECIPES[recipe]:
            command = [
                sys.executable, "-m", "tamer_tui.cli", "simulate", f"{folder}/record.db", "--model", str(model), "--prompts", str(prompts),
                "--operator", f"{HERE / 'tastes.py'}:{'noisy_' * noisy}{taste}", *judge, "-k", "4", "--max-new-tokens", "64",
                "--seed", str(seed), "--quantize", quantize, "--json", *arguments,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return {"error": done.stderr.strip().splitlines()[-1:] or ["failed"]}
        return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", choices=sorted(RECIPES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tastes", default=",".join(TASTES))
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; each takes one core while it draws, two while it trains")
    parser.add_argument("--out", default="teaching.jsonl", help="where finished runs are kept")
    options = parser.parse_args()
    out = Path(options.out)
    done = {row["key"]: row for row in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    keys = [
        (recipe, taste, seed, options.quantize)
        for recipe in options.recipes
        for seed in range(options.seeds)
        for taste in (CORRECTIONS if recipe == "corrections-3" else options.tastes.split(","))
    ]

    def run(key: tuple[str, str, int, str]) -> None:
        name = "/".join(map(str, key))
        if name in done:
            return
        row = {"key": name, **simulate(options.model, *key)}
        done[name] = row
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, row.get("win_rate"), row.get("win_rate_adapter_only"), row.get("kl_per_response"), row.get("error", ""), file=sys.stderr)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, keys))
    print(json.dumps({recipe: summary([done["/".join(map(str, k))] for k in keys if k[0] == recipe]) for recipe in options.recipes}))


def summary(rows: list[dict]) -> dict:
    """Medians over all runs, and the win rate of each taste."""
    good = [row for row in rows if "error" not in row]
    figures = ("win_rate", "win_rate_adapter_only", "kl_per_response", "kl_adapter_only", "reward_pair_accuracy", "published")
    medians = {name: median([row[name] for row in good if row.get(name) is not None]) for name in figures}
    tastes: dict[str, list[dict]] = {}
    for row in good:
        tastes.setdefault(row["key"].split("/")[1], []).append(row)
    scores = ("win_rate", "base_score", "policy_score")
    by_taste = {name: {figure: median([row[figure] for row in found]) for figure in scores} for name, found in tastes.items()}
    return {"runs": len(good), "failed": len(rows) - len(good), **medians, "by_taste": by_taste}


def median(values: list[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


if __name__ == "__main__":
    main()
