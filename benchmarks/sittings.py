"""Many simulated sittings at once, to compare ways of learning: what Ĥ alone wins at a budget, after rankings of its own steered answers.

    python benchmarks/sittings.py [--rankings 25] [--seeds 2] [--nats 6] [--strengths 0,1,1,1] [--noisy] [--lapse 0] [--odds 1] [--model DIR …]

Every taste and seed is a sitting; all of them go on in lock step, so that a batch draws the answers of all, each row with its sitting's own Ĥ. Fit
and budget are the product's, drawing is a loop of a few lines: no terminal, no engine, and a dozen sittings take a minute of one core where
`teaching.py` takes three. `--strengths`: of the steering, for each answer of a set; 0 is the base. Answers are drawn with the same random numbers,
so two ways are compared in pairs. Prints one JSON line: the win rate of each taste, the nats spent, and, where `--out` has a run of as many sittings,
the mean gain over the last one and its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tastes
import torch
from torch import Tensor
from transformers import DynamicCache

from learners.engine.calibration import BaseCalibration
from learners.human_reward.features import Seen
from learners.human_reward.fit import HumanRewardSettings
from learners.human_reward.head import RewardHead
from learners.human_reward.human_reward import HumanReward
from learners.human_reward.kl_budget import REFERENCE_TOKENS, KLBudget, VisitedStates, pooled_nats
from learners.human_reward.likelihood import Evidence, Pairs
from learners.human_reward.logit_bias import LogitBias
from learners.model.base import Backbone
from learners.model.loading import load_backbone
from storage.records import Message
from tamer_tui.prompts import starter_prompts

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
SIX = ("cheerful", "nature", "short_sentences", "speech", "gloom", "animals")
TOKENS, HELD_OUT, ANSWERS, OF_BASE, PROBES = 64, 47, 2, 8, 12


@dataclass
class Sitting:
    """One operator."""

    taste: str
    seed: int
    prompts: list[int]
    learner: HumanReward
    budget: KLBudget
    steering: LogitBias
    evidence: list[Evidence] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)  # nats per REFERENCE_TOKENS tokens of each set's steered answers

    def judge(self, texts: Sequence[str], turned: bool = False) -> list[float]:
        return [-score if turned else score for score in getattr(tastes, self.taste)("", list(texts))]


@dataclass(frozen=True)
class Drawn:
    """Answers, one a row; tokens after an end are not counted."""

    ids: Tensor  # (B, T)
    seen: Seen  # (B, T, …)
    base: Tensor  # (B, T, V) log-probabilities
    kl: Tensor  # (B, T)
    lengths: list[int]


class Bench:
    """The base, and its answers to held-out prompts."""

    def __init__(self, model: str) -> None:
        self.backbone: Backbone = load_backbone(model, "none", "cpu")
        self.calibration = BaseCalibration.of(self.backbone)
        texts = [prompt.messages[-1].content for prompt in starter_prompts(chat=True)] if self.backbone.chat_template else tastes.story_prompts()
        random.Random(0).shuffle(texts)
        self.asked = [tuple(self.backbone.fit((Message("user", text),), TOKENS)[0]) for text in texts]
        held_out = min(HELD_OUT, len(texts) // 3)
        self.held_out, self.train = list(range(held_out)), list(range(held_out, len(texts)))
        self.of_base = self.texts(self.draw([i for i in self.held_out for _ in range(OF_BASE)], 1))

    def sitting(self, taste: str, seed: int, nats: float, settings: HumanRewardSettings) -> Sitting:
        features, similarity = self.calibration.features, self.calibration.similarity
        budget = KLBudget(nats)
        budget.calibrate(self.calibration.answers)
        prompts = random.Random(seed).sample(self.train, len(self.train))
        learner = HumanReward(features, similarity, settings)
        return Sitting(taste, seed, prompts, learner, budget, LogitBias(RewardHead.empty(features)))

    @torch.no_grad()
    def draw(self, prompts: Sequence[int], seed: int, steering: Sequence[LogitBias] = (), strengths: Sequence[float] = (1.0,)) -> Drawn:
        """Of each steering as many rows as of the others, in its order; `strengths` go around."""
        model, n, longest = self.backbone.model, len(prompts), max(map(len, self.asked))
        pad = torch.tensor([longest - len(self.asked[i]) for i in prompts])
        ids = torch.tensor([[0] * (longest - len(self.asked[i])) + list(self.asked[i]) for i in prompts])
        mask, place = (torch.arange(longest) >= pad[:, None]).long(), (torch.arange(longest) - pad[:, None]).clamp_min(0)
        uniform = torch.rand(n, TOKENS, generator=torch.Generator().manual_seed(seed))
        heads, strength = dense([each.head for each in steering], self.backbone.vocabulary), torch.tensor(strengths).repeat(n // len(strengths))
        beta = torch.tensor([each.beta for each in steering]).repeat_interleave(n // max(1, len(steering)))
        surer = torch.tensor([each.head.sureness for each in steering]).repeat_interleave(n // max(1, len(steering)))
        cache, columns = DynamicCache(), []
        for _ in range(TOKENS):
            out = model.model(input_ids=ids, attention_mask=mask, position_ids=place, past_key_values=cache, use_cache=True)
            hidden = out.last_hidden_state[:, -1]
            logits = model.lm_head(hidden)
            base, seen = logits.log_softmax(-1), Seen.of(hidden, logits)
            acting = base
            if len(steering):
                x = self.calibration.features(hidden).view(len(steering), -1, heads.shape[-1])
                bias = torch.bmm(x, heads.mT).view_as(logits).scatter_add(1, seen.likely, surer[:, None] * seen.sureness)
                acting = (logits + (beta * strength)[:, None] * bias).log_softmax(-1)
            total = acting.exp().cumsum(1)
            token = torch.searchsorted(total, uniform[:, len(columns), None] * total[:, -1:]).clamp_max(total.shape[1] - 1)
            columns.append((token[:, 0], *seen, base, (acting.exp() * (acting - base)).sum(1)))
            ids, place, mask = token, place[:, -1:] + 1, torch.cat([mask, mask.new_ones(n, 1)], 1)
        taken, hidden, likely, probabilities, base, kl = (torch.stack(each, 1) for each in zip(*columns, strict=True))
        ends = torch.isin(taken, torch.tensor(sorted(self.backbone.eos_ids))).long()
        lengths = torch.where(ends.any(1), ends.argmax(1) + 1, TOKENS).tolist()
        return Drawn(taken, Seen(hidden, likely, probabilities), base, kl, lengths)

    def texts(self, drawn: Drawn) -> list[str]:
        return [self.backbone.decode(ids[:n].tolist()) for ids, n in zip(drawn.ids, drawn.lengths, strict=True)]

    def round(self, sittings: Sequence[Sitting], number: int, strengths: Sequence[float], noisy: bool) -> None:
        """One set of answers for each sitting, judged and learned from."""
        k = len(strengths)
        drawn = self.draw(
            [each.prompts[number % len(each.prompts)] for each in sittings for _ in range(k)],
            1000 + number, [each.steering for each in sittings], strengths,
        )  # fmt: skip
        texts = self.texts(drawn)
        for i, each in enumerate(sittings):
            rows = range(k * i, k * i + k)
            names = [f"{number}/{j}" for j in range(k)]
            for name, row in zip(names, rows, strict=True):
                n = drawn.lengths[row]
                each.learner.add_answer(name, drawn.ids[row, :n].tolist(), Seen(*(part[row, :n] for part in drawn.seen)))
            scores = each.judge([texts[row] for row in rows], noisy and random.Random(f"{each.taste}/{each.seed}/{number}").random() < 0.25)
            order = sorted(set(scores), reverse=True)
            each.evidence.append(Pairs.of_ranks({name: order.index(score) for name, score in zip(names, scores, strict=True)}))
            acting = self.visited(drawn, [row for row, strength in zip(rows, strengths, strict=True) if strength])
            each.spent.append(REFERENCE_TOKENS * statistics.fmean(answer.spent for answer in acting))
            for answer in acting if number else ():
                each.budget.visited(answer)
            each.steering = each.budget.solve(LogitBias(each.learner.fit(each.evidence, number + 1)))

    def visited(self, drawn: Drawn, rows: Sequence[int]) -> list[VisitedStates]:
        found = []
        for row in rows:
            n = drawn.lengths[row]
            seen, base = Seen(*(part[row, :n] for part in drawn.seen)), drawn.base[row, :n]
            found.append(VisitedStates(seen, base, base, spent=float(drawn.kl[row, :n].mean())))
        return found

    def won(self, sittings: Sequence[Sitting]) -> list[tuple[float, float]]:
        """Win rate and nats of each, on prompts that were not judged, with β solved on answers that nobody judges."""
        for i in range(2):
            probes = self.draw(self.train[:PROBES] * len(sittings), 50 + i, [each.steering for each in sittings])
            for j, each in enumerate(sittings):
                each.budget.start_over(self.visited(probes, range(PROBES * j, PROBES * j + PROBES)))
                each.steering = each.budget.solve(each.steering)
        asked = [i for i in self.held_out for _ in range(ANSWERS)]
        found = []
        for each in sittings:
            drawn = self.draw(asked, 2, [each.steering])
            ours, theirs = (
                torch.tensor(each.judge(self.texts(drawn))).view(len(self.held_out), ANSWERS, 1),
                torch.tensor(each.judge(self.of_base)).view(len(self.held_out), 1, OF_BASE),
            )
            kl, lengths = [float(one[:n].sum()) for one, n in zip(drawn.kl, drawn.lengths, strict=True)], drawn.lengths
            found.append((float((ours > theirs).float().mean() + (ours == theirs).float().mean() / 2), pooled_nats(kl, lengths)))
        return found


def dense(heads: Sequence[RewardHead], vocabulary: int) -> Tensor:
    """(S, V, f + 1)."""
    found = torch.zeros(len(heads), vocabulary, heads[0].features.width if heads else 0)
    for row, head in zip(found, heads, strict=True):
        row[head.tokens] = head.weights
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--nats", type=float, default=6.0)
    parser.add_argument("--strengths", default="0,1,1,1", help="of the steering, for each answer of a set")
    parser.add_argument("--noisy", action="store_true", help="a quarter of the rankings are turned around")
    parser.add_argument("--odds", type=float, default=1.0, help="1e9: the constant's prior variance 1 alone; -1e9: 64 alone")
    parser.add_argument("--lapse", type=float, default=0.25, help="of comparisons that the fit that doubts takes for slips; 0: all are believed")
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--tastes", nargs="*", default=list(SIX))
    parser.add_argument("--out", default="sittings.jsonl", help="where runs are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench, strengths = Bench(options.model), [float(each) for each in options.strengths.split(",")]
    settings = HumanRewardSettings(odds=options.odds, lapse=options.lapse)
    sittings = [bench.sitting(taste, seed, options.nats, settings) for taste in options.tastes for seed in range(options.seeds)]
    for number in range(options.rankings):
        bench.round(sittings, number, strengths, options.noisy)
    found = bench.won(sittings)
    rates = {f"{each.taste}/{each.seed}": round(rate, 4) for each, (rate, _) in zip(sittings, found, strict=True)}
    by_taste = {taste: round(statistics.fmean(rate for name, rate in rates.items() if name.startswith(taste)), 3) for taste in options.tastes}
    line = {
        "options": {name: value for name, value in vars(options).items() if name != "out"},
        "nats": round(statistics.fmean(n for _, n in found), 2),
        "nats while judged": round(statistics.fmean(statistics.fmean(each.spent[len(each.spent) // 2 :]) for each in sittings), 2),
    }
    line |= {"mean": round(statistics.fmean(rates.values()), 3), "median": round(statistics.median(by_taste.values()), 3), **by_taste}
    out = Path(options.out)
    earlier = [json.loads(each) for each in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    if earlier and earlier[-1]["rates"].keys() == rates.keys():
        gained = [rate - earlier[-1]["rates"][name] for name, rate in rates.items()]
        error = statistics.stdev(gained) / math.sqrt(len(gained)) if len(gained) > 1 else math.nan
        line |= {"gained": round(statistics.fmean(gained), 3), "error": round(error, 3)}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"rates": rates}) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
