"""Every learner at what it costs: win rate against the base by nats per 64 tokens, after the same rankings of answers of the base, stories260k.

    python benchmarks/win_rates.py [--tastes cheerful,speech] [--seeds 1] [--rankings 50] [--seconds 60] [--out FILE.jsonl] [--plot FILE.svg]

On prompts that were not ranked: answers steered by Ĥ at several budgets; the best of n answers of the base by Ĥ fitted to rewards, for
log n - (n - 1)/n nats an answer at most; an adapter by SFT on the best of 16 to each ranked prompt; distilled adapters; PPO for `--seconds` of the
processor from the base and after distillation, and RLOO (rloo.py) from the base, with the same scorer, the reward model left out. Each answer has 64
tokens at most. In one process, with the engine's own stages. Finished points are kept in `--out`; the plot is made of all that are there: medians
over tastes and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tastes
import torch
from rloo import RLOOStage

from learners.curriculum.distill_stage import DistillStage
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.ppo_stage import PPOStage
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.scorers import HumanRewardScorer
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts, assemble
from learners.feedback.samples import Target
from learners.human_reward.kl_budget import KLBudget, pooled_nats
from learners.human_reward.logit_bias import LogitBias
from learners.protocol import Answer, Lesson, Load
from learners.rlhf.rollouts import Trace, draw_answers
from learners.rlhf.sft import SFT
from storage.records import Message, Ranking, Sampling

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
SAMPLING = Sampling(1.0, 64)
K, ANSWERS, HELD_OUT, SFT_STEPS = 4, 2, 24, (10, 40)
BUDGETS, CHOICES = (1.0, 3.0, 6.0, 10.0), (4, 16)
TRAINED = ("SFT", "distilled 6", "distilled 10", "PPO 10", "distilled, PPO 10", "RLOO 10")
POINTS = (*(f"Ĥ {nats:g}" for nats in BUDGETS), *(f"best {n}" for n in CHOICES), *TRAINED)

Point = tuple[str, float, float]
"""Method, nats per 64 tokens, win rate."""


class Run:
    """One taste and seed: the rankings, and what is made of them."""

    def __init__(self, taste: str, seed: int, rankings: int, seconds: float) -> None:
        self.parts: Parts = assemble(Load(model=str(MODEL), quantize="none", sampling=SAMPLING), lambda event: None)
        self.backbone, self.seed, self.seconds, self.judge = self.parts.backbone, seed, seconds, getattr(tastes, taste)
        texts = random.Random(seed).sample(tastes.story_prompts(), len(tastes.story_prompts()))
        self.text_of = {tuple(self.backbone.fit((Message("user", text),), 64)[0]): text for text in texts}
        prompts = list(self.text_of)
        self.ranked, self.asked = prompts[:rankings], [p for p in prompts[rankings : rankings + HELD_OUT] for _ in range(ANSWERS)]
        self.inputs = self.taught()
        self.practice = Practice(self.backbone, self.parts.trees.base, SAMPLING, seed, lambda: self.inputs)
        self.weights = PolicyWeights(self.parts.trees.policy, self.parts.trees.reference)
        self.theirs = self.scores(self.drawn(self.asked, 1))

    def taught(self) -> LearnerInputs:
        live = self.parts.live_reward
        for seq, prompt in enumerate(self.ranked, start=1):
            messages = (Message("user", self.text_of[prompt]),)
            traces = self.drawn([prompt] * K, 100 + seq)
            ids = [tuple(trace.ids) for trace in traces]
            answers = tuple(Answer(uid=f"{seq}/{i}", messages=messages, text="", prompt_ids=prompt, token_ids=each) for i, each in enumerate(ids))
            scores = self.scores(traces)
            order = sorted(set(scores), reverse=True)
            ranks = {answer.uid: order.index(score) + 1 for answer, score in zip(answers, scores, strict=True)}
            live.learn(Lesson(seq=seq, judgement=Ranking(f"s{seq}", ranks), answers=answers))
        known = {"head": live.head, "rewards": live.rewards, "feedback": live.lessons}
        return replace(self.parts.inputs, **known, train_prompts=list(self.text_of)[: len(self.ranked)], replayed=True)

    def point(self, name: str) -> Iterator[Point]:
        """One method at one budget; SFT several, as it goes on."""
        method, _, number = name.rpartition(" ")
        self.inputs = replace(self.inputs, nats=float(number) if number.isdigit() else self.inputs.nats)
        if method == "Ĥ":
            yield self.measured(method, self.drawn(self.asked, 4, self.solved(self.inputs.nats)))
        elif method == "best":
            n = int(number)
            yield "best of n", math.log(n) - (n - 1) / n, self.won(self.best(self.asked, n))
        elif name == "SFT":
            yield from self.imitated()
        else:
            self.weights.start_from_base()
            if method.startswith("distilled"):
                self.worked(DistillStage(*self.of_policy).work(), math.inf)
            if method.endswith(("PPO", "RLOO")):
                stage, began = (RLOOStage if method == "RLOO" else PPOStage)(*self.of_policy, None), time.thread_time()
                while (left := self.seconds - (time.thread_time() - began)) > 0:
                    self.worked(stage.work(), left)
            yield self.measured(method, self.by_adapter(4))

    @property
    def of_policy(self) -> tuple[PolicyWeights, Practice, Any, RunRecorder]:
        return self.weights, self.practice, lambda: self.inputs, RunRecorder(lambda event: None, self.seed)

    def worked(self, steps: Iterable[None], seconds: float) -> None:
        began = time.thread_time()
        for _ in steps:
            if time.thread_time() - began > seconds:
                break

    def imitated(self) -> Iterator[Point]:
        """Supervised fine-tuning on the best of 16 answers to each ranked prompt."""
        best = self.best(self.ranked, 16)
        targets = [Target(trace.prompt_ids, tuple(trace.ids)) for trace in best]
        self.weights.start_from_base()
        trainer, chooser = SFT(self.parts.trees.policy, self.backbone.width), random.Random(self.seed)
        for step in range(1, max(SFT_STEPS) + 1):
            trainer.step(chooser.sample(targets, 8))
            if step in SFT_STEPS:
                yield self.measured(f"SFT on the best, {step} steps", self.by_adapter(4))

    @cached_property
    def scorer(self) -> HumanRewardScorer:
        assert self.inputs.rewards is not None, "rankings were learned"
        return HumanRewardScorer(self.parts.trees.base, self.inputs.rewards, rewards=True)

    def best(self, asked: Sequence[tuple[int, ...]], n: int) -> list[Trace]:
        answers = self.drawn([p for p in asked for _ in range(n)], 5 + n)
        scores = self.scorer.score([t.prompt_ids for t in answers], [tuple(t.ids) for t in answers]).tolist()
        return [answers[max(range(n * i, n * i + n), key=scores.__getitem__)] for i in range(len(asked))]

    def solved(self, nats: float) -> LogitBias:
        """β on the states that answers with the β before led to, a few times."""
        bias, prompts = LogitBias(self.inputs.head), list(self.text_of)[-24:]
        for i in range(3):
            budget = KLBudget(nats)
            for trace in self.drawn(prompts, 50 + i, bias if i else None, keep=True):
                budget.visited(trace.visited(1.0))
            bias = budget.solve(bias, 1.0)
        return bias

    def drawn(self, prompts: Sequence[tuple[int, ...]], draw: int, bias: LogitBias | None = None, keep: bool = False) -> list[Trace]:
        seed = self.seed * 1_000_003 + 10_000 * draw
        return draw_answers(self.backbone, self.backbone.model, prompts, SAMPLING, seed, adapter=False, steering=bias, keep_states=keep)

    def by_adapter(self, draw: int) -> list[Trace]:
        return draw_answers(self.backbone, self.parts.trees.policy, self.asked, SAMPLING, self.seed * 1_000_003 + 10_000 * draw, adapter=True)

    def measured(self, method: str, answers: list[Trace]) -> Point:
        return method, pooled_nats([t.kl for t in answers], [len(t.ids) for t in answers]), self.won(answers)

    def won(self, answers: Sequence[Trace]) -> float:
        pairs = zip(self.scores(answers), self.theirs, strict=True)
        return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(self.theirs)

    def scores(self, answers: Sequence[Trace]) -> list[float]:
        return [self.judge(self.text_of[t.prompt_ids], [self.backbone.decode(t.ids)])[0] for t in answers]


# --- the plot ------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 400, 50, 16, 190, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")


def medians(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float, int]]]:
    """By method: nats, win rate and number of runs of each of its points, medians over tastes and seeds."""
    found: defaultdict[str, defaultdict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["method"].partition(",")[0] if row["method"].startswith("SFT") else row["method"]][f"{row['point']} {row['method']}"].append(row)
    return {
        method: sorted((*(round(statistics.median(run[f] for run in runs), 3) for f in ("nats", "win_rate")), len(runs)) for runs in points.values())  # type: ignore[misc]
        for method, points in found.items()
    }


def svg(points: dict[str, list[tuple[float, float, int]]]) -> str:
    """Win rate over nats per 64 tokens, a line for each method."""
    most = math.ceil(max(nats for line in points.values() for nats, *_ in line) / 2) * 2

    def at(nats: float, rate: float) -> tuple[float, float]:
        across, down = nats / most, (1.0 - rate) / 0.6
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(TOP + down * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>')
    for rate in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        (x, y), (end, _) = at(0, rate), at(most, rate)
        parts.append(f'<path d="M{x} {y}H{end}" stroke="#dddddd"/><text x="{x - 8}" y="{y + 4}" text-anchor="end">{rate:.1f}</text>')
    for nats in range(0, most + 1, 2):
        x, y = at(nats, 0.4)
        parts.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{nats}</text>')
    parts.append(f'<text x="{at(most / 2, 0.4)[0]}" y="{HEIGHT - 6}" text-anchor="middle">nats per 64 tokens</text>')
    for colour, (method, line) in zip(COLOURS, points.items(), strict=False):
        where = [at(nats, max(0.4, rate)) for nats, rate, _ in line]
        parts.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in where)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in where]
        x, y = WIDTH - RIGHT + 20, TOP + 12 + 18 * list(points).index(method)
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="3.5" fill="{colour}"/><text x="{x + 10}" y="{y}">{method}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tastes", default=",".join(tastes.TASTES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rankings", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of PPO, and of RLOO")
    parser.add_argument("--out", default="win_rates.jsonl", help="where finished points are kept")
    parser.add_argument("--plot", default="", help="an SVG of the medians")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(options.out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    done = {(row["taste"], row["seed"], row["rankings"], row["point"]) for row in rows}
    for seed in range(options.seeds):
        for taste in options.tastes.split(","):
            wanted = [point for point in POINTS if (taste, seed, options.rankings, point) not in done]
            run = Run(taste, seed, options.rankings, options.seconds) if wanted else None
            for point in wanted:
                assert run is not None
                for method, nats, rate in run.point(point):
                    figures = {"method": method, "nats": round(nats, 3), "win_rate": round(rate, 3)}
                    rows.append({"taste": taste, "seed": seed, "rankings": options.rankings, "point": point} | figures)
                    with out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
    found = medians(rows)
    if options.plot and found:
        Path(options.plot).write_text(svg(found), encoding="utf-8")
    print(json.dumps({"median nats, win rate and runs": found}, ensure_ascii=False))


if __name__ == "__main__":
    main()
