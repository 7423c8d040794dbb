"""What PPO does by itself: from the base, without distillation, against a reward that is a plain function of the text.

    python benchmarks/ppo.py [--model DIR] [--seconds 30] [--nats 12] [--quantize none|nf4] [--whole] [--seed 0]

Prints one JSON line: mean share of cheerful words and win rate of held-out answers against the base, nats per answer, and the same with the
policy loss zeroed, which learns nothing. `--whole` gives the reward per answer instead of per token.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence

import torch
from tastes import CHEERFUL, story_prompts, words
from torch import Tensor

from learners.model.loading import load_backbone
from learners.rlhf.ppo import PPO, PPOSettings
from learners.rlhf.rollouts import Rollouts
from storage.records import Message, Sampling

TokenIds = tuple[int, ...]
Text = Callable[[Sequence[int]], str]
SAMPLING = Sampling(temperature=1.0, max_new_tokens=64)


def cheerful_words(text: str) -> int:
    return sum(word in CHEERFUL for word in words(text))


def share(text: str) -> float:
    return cheerful_words(text) / max(1, len(words(text)))


def token_shares(decode: Text, answer: TokenIds) -> list[float]:
    """What each token adds to the share of cheerful words: they add up to it."""
    counts = [cheerful_words(decode(answer[: t + 1])) for t in range(len(answer))]
    total = max(1, len(words(decode(answer))))
    return [(now - before) / total for before, now in zip([0, *counts], counts, strict=False)]


def reward_of(decode: Text, scale: float, whole: bool) -> Callable[[Sequence[TokenIds], Sequence[TokenIds]], Tensor]:
    def scores(prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        return torch.tensor([share(decode(answer)) / scale for answer in answers])

    def shares(prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        rows = torch.zeros(len(answers), max(map(len, answers)))
        for row, answer in zip(rows, answers, strict=True):
            row[: len(answer)] = torch.tensor(token_shares(decode, answer)) / scale
        return rows

    return scores if whole else shares


class Bench:
    """One base, its prompts, and answers of the base to compare with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.backbone = load_backbone(options.model, options.quantize)
        prompts = [tuple(self.backbone.encode((Message("user", text),))) for text in story_prompts()]
        random.Random(options.seed).shuffle(prompts)
        self.held_out, self.train = prompts[:12], prompts[12:]
        self.base = self.quality(self.ppo(PPOSettings(), 1.0).rollout(self.held_out, 24))
        mean = sum(self.base) / len(self.base)
        self.spread = (sum((x - mean) ** 2 for x in self.base) / len(self.base)) ** 0.5

    def ppo(self, settings: PPOSettings, scale: float) -> PPO:
        backbone, seed = self.backbone, self.options.seed
        reward = reward_of(backbone.decode, scale, self.options.whole)
        policy = backbone.adapter_tree(seed=seed)
        return PPO(policy, backbone.tree(), reward, settings, seed, backbone=backbone, sampling=SAMPLING)

    def quality(self, rollouts: Rollouts) -> list[float]:
        return [share(self.backbone.decode(answer)) for answer in rollouts.answers]

    def run(self, policy_loss_weight: float) -> dict[str, float]:
        ppo = self.ppo(PPOSettings(kl_target=self.options.nats, policy_loss_weight=policy_loss_weight), self.spread)
        random_, iterations, started = random.Random(self.options.seed), 0, time.monotonic()
        while time.monotonic() - started < self.options.seconds:
            ppo.step(ppo.rollout(random_.sample(self.train, 8), 4))
            iterations += 1
        final = ppo.rollout(self.held_out, 24)
        scores = self.quality(final)
        nats = ppo.step(final).kl or 0.0
        wins = sum((a > b) + 0.5 * (a == b) for a in scores for b in self.base) / len(scores) / len(self.base)
        score = sum(scores) / len(scores)
        return {"iterations": iterations, "score": round(score, 4), "win_rate": round(wins, 3), "nats": round(nats, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="../shared/data/stories260k")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--nats", type=float, default=12.0)
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options)
    base_score = sum(bench.base) / len(bench.base)
    trained, still = bench.run(1.0), bench.run(0.0)
    print(json.dumps({"benchmark": "ppo", **vars(options), "base_score": round(base_score, 4), "ppo": trained, "policy_loss_zeroed": still}))


if __name__ == "__main__":
    main()
