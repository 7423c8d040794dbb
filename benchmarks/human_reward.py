"""Ĥ's fit for this tree and an earlier commit, in one run: milliseconds a judgement, and memory after many judged sets.

    python benchmarks/human_reward.py [--commit ce5d47c] [--answers 1000 5000] [--sets 2000] [--old-sets 300]

No model: synthetic base states 256 wide, ids from 152,000 with a Zipf distribution over the 20,000 commonest, five likely tokens a state; sets of
four answers of 64 tokens, all ranked. The earlier commit runs in a child process from `git archive`; it is given fewer answers, since it takes long.
One JSON line for each figure, CPU time of one thread, then the ratios. The head's dense weights, which the next token's bias needs, are told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from before_and_after import extracted

TREE = Path(__file__).resolve().parents[1]
CHILD = """
import json, sys, time, torch
torch.set_num_threads(1)
try:
    from learners.human_reward.features import Features, Seen
    try:
        from learners.human_reward.human_reward import HumanReward
    except ImportError:  # before it was fitted twice
        from learners.human_reward.fit import HumanReward
    from learners.human_reward.likelihood import Pairs
except ImportError:  # before the learners were regrouped
    from learners.features import Features, Seen
    from learners.human_reward import HumanReward
    from learners.preferences import Pairs
sets, asked = int(sys.argv[1]), [int(n) for n in sys.argv[2:]]
V, WIDTH, T, K = 152_000, 256, 64, 4
generator = torch.Generator().manual_seed(0)
known = Features.fit(torch.randn(600, WIDTH, generator=generator)), torch.randn(V, 64, generator=generator) / 8
learner = HumanReward(*known)
common = 1 / torch.arange(1, 20_001.0)
probabilities = torch.tensor([0.5, 0.2, 0.1, 0.05, 0.03, 0.0, 0.0, 0.0]).expand(T, 8)

def answer():
    ids = torch.multinomial(common, 9 * T, replacement=True, generator=generator) * 7 % V
    return ids[:T].tolist(), Seen(torch.randn(T, WIDTH, generator=generator), ids[T:].view(T, 8), probabilities)

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

evidence, begun, times, asked_for = [], megabytes(), [], []
for i in range(sets):
    for j in range(K):
        learner.add_answer(f"{i}/{j}", *answer())
    evidence.append(Pairs.of_ranks({f"{i}/{j}": j + 1 for j in range(K)}))
    near = any(n - 6 * K < K * (i + 1) <= n for n in asked)
    if near or i % 40 == 39 or hasattr(learner, "keep"):
        before = time.process_time()
        head = learner.fit(evidence, i)
        fitted = time.process_time()
        if near:
            head.weights  # where they are computed when they are first asked for
            times.append(1000 * (fitted - before))
            asked_for.append(1000 * (time.process_time() - fitted))
    if hasattr(learner, "look_ahead"):  # while the next answers are read
        from learners.human_reward.fit import Block
        learner.look_ahead(Block.split(evidence, learner.settings.window))
    if hasattr(learner, "keep") and i % 32 == 31:  # as OnlineHumanReward does: the newest two blocks
        from learners.human_reward.fit import Block
        blocks = Block.split(evidence, learner.settings.window)
        learner.keep({name for block in blocks[-2:] for group in block.groups for name in group})
    if K * (i + 1) in asked:
        fit, weights = (round(sorted(some[1:])[len(some[1:]) // 2], 1) for some in (times, asked_for))
        print(json.dumps({"answers": K * (i + 1), "ms": fit, "ms_at_worst": round(max(times[1:]), 1), "ms_of_weights": weights}), flush=True)
        times, asked_for = [], []
print(json.dumps({"sets": sets, "mb": round(megabytes() - begun)}), flush=True)
"""


def measured(tree: Path, sets: int, answers: list[int]) -> list[dict[str, Any]]:
    """What a child process prints, with `tree` as its program."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", CHILD, str(sets), *(str(n) for n in answers if n <= 4 * sets)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="ce5d47c", help="the earlier commit")
    parser.add_argument("--answers", type=int, nargs="*", default=[1000, 5000], help="after how many answers a judgement is timed")
    parser.add_argument("--sets", type=int, default=2000, help="judged sets, of this tree")
    parser.add_argument("--old-sets", type=int, default=300, help="judged sets, of the earlier commit")
    options = parser.parse_args()
    now = measured(TREE, options.sets, options.answers)
    print("\n".join(json.dumps({"tree": "now"} | line) for line in now), flush=True)
    with extracted(options.commit) as tree:
        old = measured(tree, options.old_sets, options.answers)
    print("\n".join(json.dumps({"tree": options.commit} | line) for line in old))
    times = {line["answers"]: line["ms"] for line in old if "ms" in line}
    ratios = {f"ms at {n:,}": round(times[n] / line["ms"], 1) for line in now if (n := line.get("answers")) in times}
    print(json.dumps({"times as fast": ratios, "mb a set, then and now": [round(some[-1]["mb"] / some[-1]["sets"], 3) for some in (old, now)]}))


if __name__ == "__main__":
    main()
