"""Seconds of training steps on a real model, this tree beside an earlier commit, in turn and in one run.

    python benchmarks/training_speed.py --model DIRECTORY [--rounds 3] [--before ce5d47c]

Prints one JSON line for each work and prompt length: medians of both, and how many times faster this tree is. Work, with answers of 64 tokens: a
reward step (2 rankings of 4), a PPO step (16 answers, 4 to a prompt, 2 epochs), four distillation steps on the same 8 answers (4 to a prompt,
towards the base with a fixed bias), and the base states of one set of 4. One thread each and the processor's seconds on a CPU, so that a busy machine
changes them little.
"""

from __future__ import annotations

import argparse
import json
from statistics import median

from before_and_after import BEFORE, ROOT, Child, extracted

ANSWER = 64
WORK = {"reward": (8, 4), "ppo": (16, 4), "distillation": (8, 4), "states": (4, 4)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a model directory")
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", default="43,200", help="tokens of the prompts")
    parser.add_argument("--work", default=",".join(WORK))
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    options = parser.parse_args()
    with extracted(options.before) as tree:
        children = [Child(place, options.model, options.quantize, options.device) for place in (tree, ROOT)]
        for prompt in map(int, options.prompts.split(",")):
            for work in options.work.split(","):
                answers, each = WORK[work]
                found: list[list[float]] = [[], []]
                for _ in range(options.rounds):
                    for seconds, child in zip(found, children, strict=True):
                        seconds.append(child.measure(work, prompt, ANSWER, answers, each)["seconds"])
                before, after = map(median, found)
                figures = {"before_s": round(before, 2), "after_s": round(after, 2), "times_faster": round(before / after, 2)}
                print(json.dumps({"work": work, "prompt_tokens": prompt, **figures}), flush=True)
        for child in children:
            child.close()


if __name__ == "__main__":
    main()
