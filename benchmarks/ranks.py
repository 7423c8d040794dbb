"""What does a second rank bring? Samples a second of the reward model's steps, one process against two over gloo, on this machine's cores.

    python benchmarks/ranks.py [--model DIR] [--rounds 3] [--comparisons 6] [--answers 4] [--tokens 32] [--threads 1]

Both processes exist throughout. In turns the first makes a step alone, while the other waits, and both make the same step together: what else runs on
the machine meets both alike. Prints one JSON line: medians of samples (answers) a second, their ratio, the losses of the same step, and the load;
and the ratio of CPU seconds, those of the rank that needs more where there are two: what the ratio would be where each rank had a core to itself and
nothing travelled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from learners.feedback.samples import Comparison
from learners.model.base import Backbone
from learners.model.loading import load_backbone
from learners.rlhf import ranks
from learners.rlhf.reward_model import RewardModel

MODEL = "/tmp/smollm2/safetensors"


def batch(backbone: Backbone, options: argparse.Namespace) -> list[Comparison]:
    random = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(100, backbone.vocabulary, (n,), generator=random).tolist())

    return [
        Comparison(ids(options.tokens // 2), tuple(ids(options.tokens) for _ in range(options.answers)), tuple(range(1, options.answers + 1)), seq)
        for seq in range(options.comparisons)
    ]


def work(rank: int, backbone: Backbone, options: argparse.Namespace, group: str, found: Any) -> None:
    torch.set_num_threads(options.threads)
    distributed.init_process_group("gloo", f"file://{group}", timedelta(minutes=30), 2, rank)
    model, items, world = RewardModel(backbone.adapter_tree(), backbone.width), batch(backbone, options), ranks.world
    samples, start = options.comparisons * options.answers, model.state()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    worked: dict[int, list[float]] = {1: [], 2: []}  # CPU seconds of the rank that had most to do
    losses: dict[int, float] = {}
    for _ in range(options.rounds + 1):  # the first warms up
        for processes in (1, 2):
            model.load_state(start)
            distributed.barrier()
            began, cpu = time.monotonic(), time.process_time()
            if processes == 2:
                losses[2] = model.step(items).loss
            elif rank == 0:
                ranks.world = lambda: 1
                losses[1] = model.step(items).loss
                ranks.world = world
            seconds[processes].append(time.monotonic() - began)
            worked[processes].append(max(ranks.gathered([time.process_time() - cpu])))
    if rank == 0:
        alone, together = (samples / statistics.median(seconds[n][1:]) for n in (1, 2))
        found.put({
            "one": round(alone, 3), "two": round(together, 3), "ratio": round(together / alone, 2),
            "cpu_ratio": round(statistics.median(worked[1][1:]) / statistics.median(worked[2][1:]), 2),
            "ratios": [round(a / b, 2) for a, b in zip(seconds[1][1:], seconds[2][1:], strict=True)], "losses": losses,
        })  # fmt: skip
    distributed.barrier()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    for name, value in (("rounds", 3), ("comparisons", 6), ("answers", 4), ("tokens", 32), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    backbone = load_backbone(options.model, "none", "cpu")
    context = multiprocessing.get_context("fork")  # the weights are loaded once
    found: Any = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=work, args=(rank, backbone, options, f"{folder}/group", found)) for rank in range(2)]
        for process in processes:
            process.start()
        result = found.get()
        for process in processes:
            process.join()
    print(json.dumps({**result, "threads": options.threads, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
