"""Best-of-n beside steering at equal nats, and what either does to the answers' perplexity under the base.

    python benchmarks/best_of_n.py [--tastes cheerful,animals] [--seeds 3] [--rankings 25] [--noisy]

Ĥ is fitted to rankings of the base's own answers on stories260k; then, on prompts that were not ranked: the base's answers, the best of n of them by
Ĥ fitted to rewards, which costs log n - (n - 1)/n nats an answer at most, answers steered at as many nats per 64 tokens (all have 64), steered at 6,
and the best of 4 of those. Win rate against the base's own answers by the taste, and perplexity under the base as a multiple of the base's own. One
JSON line for each method: medians over tastes and seeds. In one process, without the terminal.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections import defaultdict
from pathlib import Path

import tastes
import torch

from learners.curriculum.canary import loss_under
from learners.curriculum.scorers import HumanRewardScorer
from learners.engine.calibration import BaseCalibration
from learners.human_reward.head import RewardHead
from learners.human_reward.human_reward import HumanReward
from learners.human_reward.kl_budget import KLBudget, pooled_nats
from learners.human_reward.likelihood import Pairs
from learners.human_reward.logit_bias import LogitBias
from learners.model.base import Backbone
from learners.model.loading import load_backbone
from learners.rlhf.rollouts import Trace, draw_answers, states_before
from storage.records import Message, Sampling

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
SAMPLING = Sampling(1.0, 64)
K, ANSWERS, HELD_OUT = 4, 2, 24
CHOICES = (4, 16)


class Bench:
    """One taste and seed."""

    def __init__(self, backbone: Backbone, taste: str, seed: int, noisy: bool) -> None:
        self.backbone, self.seed, self.judge = backbone, seed, getattr(tastes, taste)
        self.teacher = getattr(tastes, f"noisy_{taste}") if noisy else self.judge
        self.calibration = BaseCalibration.of(backbone)
        texts = random.Random(seed).sample(tastes.story_prompts(), len(tastes.story_prompts()))
        self.text_of = {tuple(backbone.fit((Message("user", text),), 64)[0]): text for text in texts}
        self.prompts = list(self.text_of)

    def run(self, rankings: int) -> dict[str, tuple[float, float, float]]:
        """Win rate, nats an answer and perplexity ratio of each method."""
        head, of_rewards = self.taught(rankings)
        asked = [p for p in self.prompts[rankings : rankings + HELD_OUT] for _ in range(ANSWERS)]
        base = self.drawn(asked, 1)
        probe = [self.drawn(asked, 2, keep=True)]
        scorer, loss = HumanRewardScorer(self.backbone.model, of_rewards, rewards=True), loss_under(self.backbone, self.backbone.model, base)
        methods: dict[str, tuple[list[Trace], float]] = {}
        for n in CHOICES:
            nats = math.log(n) - (n - 1) / n
            methods[f"best of {n}"] = self.best(asked, n, scorer, None), nats
            steered = self.drawn(asked, 3, self.solved(head, nats, probe))
            methods[f"steered at the nats of best of {n}"] = steered, _nats(steered)
        bias = self.solved(head, 6.0, probe)
        steered = self.drawn(asked, 4, bias)
        methods["steered at 6"] = steered, _nats(steered)
        methods["steered at 6, best of 4"] = self.best(asked, 4, scorer, bias), _nats(steered) + math.log(4) - 3 / 4
        theirs = self.scores(base)
        return {
            name: (_won(self.scores(answers), theirs), nats, math.exp(loss_under(self.backbone, self.backbone.model, answers) - loss))
            for name, (answers, nats) in methods.items()
        }

    def taught(self, rankings: int) -> tuple[RewardHead, RewardHead]:
        """Ĥ of rankings of the base's answers, fitted to advantages and to rewards."""
        human_reward = HumanReward(self.calibration.features, self.calibration.similarity)
        evidence = []
        for i, prompt in enumerate(self.prompts[:rankings]):
            answers = sorted({tuple(trace.ids) for trace in self.drawn([prompt] * K, 100 + i)})
            for j, (ids, seen) in enumerate(zip(answers, states_before(self.backbone, self.backbone.model, prompt, answers), strict=True)):
                human_reward.add_answer(f"{i}/{j}", ids, seen)
            scores = self.teacher(self.text_of[prompt], [self.backbone.decode(ids) for ids in answers])
            order = sorted(set(scores), reverse=True)
            evidence.append(Pairs.of_ranks({f"{i}/{j}": order.index(score) for j, score in enumerate(scores)}))
        return human_reward.fit(evidence, 1), human_reward.rewards

    def solved(self, head: RewardHead, nats: float, probe: list[list[Trace]]) -> LogitBias:
        """β on the states that answers with the β before led to, a few times."""
        bias = LogitBias(head)
        for i in range(3):
            budget = KLBudget(nats)
            for trace in probe[0] if i == 0 else self.drawn(self.prompts[-24:], 50 + i, bias, keep=True):
                budget.visited(trace.visited(1.0))
            bias = budget.solve(bias, 1.0)
        return bias

    def best(self, asked: list[tuple[int, ...]], n: int, scorer: HumanRewardScorer, bias: LogitBias | None) -> list[Trace]:
        """The best of n answers to each prompt by Ĥ fitted to rewards."""
        answers = self.drawn([p for p in asked for _ in range(n)], 5 + n, bias)
        scores = scorer.score([t.prompt_ids for t in answers], [tuple(t.ids) for t in answers]).tolist()
        return [answers[max(range(n * i, n * i + n), key=scores.__getitem__)] for i in range(len(asked))]

    def drawn(self, prompts: list[tuple[int, ...]], draw: int, bias: LogitBias | None = None, keep: bool = False) -> list[Trace]:
        seed = self.seed * 1_000_003 + 10_000 * draw
        return draw_answers(self.backbone, self.backbone.model, prompts, SAMPLING, seed, adapter=False, steering=bias, keep_states=keep)

    def scores(self, answers: list[Trace]) -> list[float]:
        return [self.judge(self.text_of[t.prompt_ids], [self.backbone.decode(t.ids)])[0] for t in answers]


def _won(ours: list[float], theirs: list[float]) -> float:
    return sum((a > b) + (a == b) / 2 for a, b in zip(ours, theirs, strict=True)) / len(ours)


def _nats(answers: list[Trace]) -> float:
    return pooled_nats([t.kl for t in answers], [len(t.ids) for t in answers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tastes", default=",".join(tastes.TASTES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rankings", type=int, default=25)
    parser.add_argument("--noisy", action="store_true", help="the rankings of every fourth set are turned around")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(str(MODEL), "none", "cpu")
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for taste in options.tastes.split(","):
        for seed in range(options.seeds):
            for method, figures in Bench(backbone, taste, seed, options.noisy).run(options.rankings).items():
                found[method].append(figures)
    for method, rows in found.items():
        won, nats, perplexity = (round(statistics.median(column), 3) for column in zip(*rows, strict=True))
        print(json.dumps({"method": method, "win_rate": won, "nats": nats, "perplexity": perplexity, "runs": len(rows)}), flush=True)


if __name__ == "__main__":
    main()
