"""How many of an operator's rankings each fit of Ĥ foresees: of advantages, which steer, by either prior or both averaged, and of rewards.

    python benchmarks/rewards.py [--rankings 25 50] [--draws 3] [--noisy] [--model DIR --tastes …]

Sets of four answers of the base, 64 tokens each, judged by each taste: to 150 openings of stories, or to the 60 prompts that ship where the model has
a template. Of each draw the first sets are learned from and the last 60 % are tested on (a third of 60): the share of untied pairs in the taste's
order. One JSON line for each fit and number of rankings: the mean over draws by taste, and over tastes. In one process, without an engine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path

import tastes
import torch

from learners.engine.assembly import assemble
from learners.human_reward.fit import HumanRewardSettings, RewardFit
from learners.human_reward.likelihood import Pairs
from learners.protocol import Load
from learners.rlhf.rollouts import draw_answers, states_before
from storage.records import Message, Sampling
from tamer_tui.prompts import starter_prompts

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
SAMPLING = Sampling(1.0, 64)
K = 4
SIX = ("cheerful", "nature", "short_sentences", "speech", "gloom", "animals")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, nargs="*", default=[25, 50])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--noisy", action="store_true", help="a quarter of the rankings that are learned from are turned around")
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--tastes", nargs="*", default=list(SIX))
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = assemble(Load(model=options.model, quantize="none", sampling=SAMPLING), lambda event: None)
    backbone, known = parts.backbone, parts.live_reward._human_reward
    chat = backbone.chat_template
    asked = [prompt.messages[-1].content for prompt in starter_prompts(chat=True)] if chat else tastes.story_prompts()
    random.Random(0).shuffle(asked)
    prompts = [tuple(backbone.fit((Message("user", text),), 64)[0]) for text in asked[:150]]
    tested = len(prompts) // 3 if chat else 3 * len(prompts) // 5
    traces = draw_answers(backbone, backbone.model, [p for p in prompts for _ in range(K)], SAMPLING, 77, adapter=False)
    texts = [[backbone.decode(trace.ids) for trace in traces[K * i : K * i + K]] for i in range(len(prompts))]
    fits = {
        name: RewardFit(known.features, known.similarity, settings, doubts=name == "rewards")
        for name, settings in {
            "advantages, variance 1": HumanRewardSettings(constant_variance=1.0),
            "advantages, variance 64": HumanRewardSettings(odds=-1e9),
            "advantages": HumanRewardSettings(),
            "rewards, all believed": HumanRewardSettings(),
            "rewards": HumanRewardSettings(),
        }.items()
    }
    for i, prompt in enumerate(prompts):
        answers = [tuple(trace.ids) for trace in traces[K * i : K * i + K]]
        for j, (ids, seen) in enumerate(zip(answers, states_before(backbone, backbone.model, prompt, answers), strict=True)):
            for name, fit in fits.items():
                fit.add_answer(f"{i}/{j}", ids, seen.alone() if "rewards" in name else seen)
    for name, fit in fits.items():
        for n in options.rankings:
            found = {
                taste: statistics.fmean(right(fit, taste, texts, draw, n, tested, options.noisy) for draw in range(options.draws))
                for taste in options.tastes
            }
            line = {"fit": name, "rankings": n, "mean": round(statistics.fmean(found.values()), 3)}
            print(json.dumps(line | {taste: round(share, 2) for taste, share in found.items()}), flush=True)


def right(fit: RewardFit, taste: str, texts: list[list[str]], draw: int, rankings: int, tested: int, noisy: bool) -> float:
    """Share of the tested pairs in the taste's order."""
    order = random.Random(draw).sample(range(len(texts)), len(texts))
    pairs = [judged(taste, texts, i) for i in range(len(texts))]
    chance = random.Random(f"{taste}{draw}")
    learned = [judged(taste, texts, i, noisy and chance.random() < 0.25) for i in order[:rankings]]
    head = fit.fit(learned, 1)
    margins = [margin for i in order[-tested:] for margin in fit.margins(head, pairs[i])]
    return statistics.fmean(float(margin > 0) for margin in margins)


def judged(taste: str, texts: list[list[str]], i: int, turned: bool = False) -> Pairs:
    scores = [-score if turned else score for score in getattr(tastes, taste)("", texts[i])]
    order = sorted(set(scores), reverse=True)
    return Pairs.of_ranks({f"{i}/{j}": order.index(score) + 1 for j, score in enumerate(scores)})


if __name__ == "__main__":
    main()
