"""How far one sentence goes beside rankings of the same taste, at once: win rate against the base on held-out prompts, and nats per 64 tokens.

    python benchmarks/critiques.py MODEL [--tastes shorter excited] [--seeds 1] [--rankings 1 10 25] [--prompts 8] [--tokens 64] [--nats 6]

In one process, with the engine's own generator and Ĥ. Four answers to each held-out prompt against four of the base, all pairs; rankings are of four
answers of the base each, by the taste. `words` is one critique that holds for every prompt, `both` the critique and ten rankings (or as many as there
are). γ and β are solved on answers to other prompts first. One JSON line a taste and seed, then the medians.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tastes import words

from learners.engine.assembly import Parts, assemble
from learners.feedback.critiques import Critiques
from learners.protocol import Answer, AnswerRequest, Ended, Event, Lesson, Load
from storage.records import Critique, Policy, Prompt, Ranking, Sampling
from tamer_tui.prompts import starter_prompts

ANSWERS = 4


def shorter(text: str) -> float:
    return -len(words(text))


def simpler(text: str) -> float:
    found = words(text)
    return -sum(map(len, found)) / max(1, len(found))


def excited(text: str) -> float:
    return text.count("!") + sum(word in EXCITED for word in words(text))


def question(text: str) -> float:
    """Whether it ends with a question, or how much of it asks where none of it ended."""
    return float(text.rstrip().endswith("?")) + text.count("?") / (1 + len(re.findall(r"[.!?]", text)))


EXCITED = frozenset("amazing awesome exciting excited fantastic great incredible love wonderful wow yay".split())
TASTES: dict[str, tuple[Callable[[str], float], str]] = {
    "shorter": (shorter, "Answer in one short sentence."),
    "simpler": (simpler, "Use only short, simple words, as for a small child."),
    "excited": (excited, "Be very excited and enthusiastic! Use exclamation marks!"),
    "question": (question, "End your answer with a question to the user."),
}


class Bench:
    """One model, and the base's answers of one seed."""

    def __init__(self, model: str, nats: float, tokens: int) -> None:
        self.events: list[Event] = []
        self.parts: Parts = assemble(Load(model=model, quantize="none", nats=nats, sampling=Sampling(1.0, tokens)), self.events.append)
        self.sampling = Sampling(1.0, tokens)

    def draw(self, prompts: Sequence[Prompt], policy: Policy, seed: int) -> tuple[list[list[Answer]], float]:
        """ANSWERS to each, and nats per 64 tokens. Distinct seeds never meet."""
        generator, numbers = self.parts.generator, random.Random(f"{policy}/{seed}")
        asked = [
            AnswerRequest(uid=f"{policy}{seed}/{i}.{j}", seed=numbers.getrandbits(31), messages=prompt.messages, policy=policy)
            for i, prompt in enumerate(prompts) for j in range(ANSWERS)
        ]  # fmt: skip
        self.events.clear()
        traces = {}
        for _ in generator.draw(asked, self.sampling):
            traces |= {uid: drawing.trace for uid, drawing in generator._live.items()}
        ended = {event.uid: event for event in self.events if isinstance(event, Ended)}
        answers = [
            Answer(uid=each.uid, messages=each.messages, text=ended[each.uid].text, prompt_ids=traces[each.uid].prompt_ids,
                   token_ids=tuple(traces[each.uid].ids), stop=ended[each.uid].reason)
            for each in asked
        ]  # fmt: skip
        spent = 64 * sum(event.kl for event in ended.values()) / max(1, sum(event.n_tokens for event in ended.values()))
        return [answers[i : i + ANSWERS] for i in range(0, len(answers), ANSWERS)], spent

    def teach(self, sets: Sequence[Sequence[Answer]], taste: Callable[[str], float], text: str | None) -> list[int]:
        """Ĥ learns rankings of these sets, and a critique holds; what was learned, to be taken back."""
        reward, generator = self.parts.live_reward, self.parts.generator
        for seq, answers in enumerate(sets, start=1):
            scores = [taste(answer.text) for answer in answers]
            order = sorted(set(scores), reverse=True)
            ranks = {answer.uid: order.index(score) + 1 for answer, score in zip(answers, scores, strict=True)}
            reward.learn(Lesson(seq=seq, judgement=Ranking(f"s{seq}", ranks), answers=tuple(answers)))
        seqs = list(range(1, len(sets) + 1))
        if text is not None:
            seqs.append(len(sets) + 1)
            blank = Answer(uid="", messages=(), text="")
            reward.learn(Lesson(seq=seqs[-1], judgement=Critique("s", None, text, "all"), answers=(blank,)))
        generator.use_head(reward.head)
        generator.words.use(Critiques.of(reward.lessons.lessons))
        return seqs

    def forget(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            self.parts.live_reward.retract(seq)
        self.teach([], shorter, None)


def rate(ours: Sequence[Sequence[Answer]], theirs: Sequence[Sequence[Answer]], taste: Callable[[str], float]) -> float:
    """Of all pairs to one prompt."""
    pairs = [(taste(a.text), taste(b.text)) for mine, other in zip(ours, theirs, strict=True) for a in mine for b in other]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tastes", nargs="*", default=list(TASTES), choices=list(TASTES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rankings", type=int, nargs="*", default=[1, 10, 25])
    parser.add_argument("--prompts", type=int, default=8, help="held out")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--nats", type=float, default=6.0)
    options = parser.parse_args()
    bench = Bench(options.model, options.nats, options.tokens)
    found: defaultdict[str, defaultdict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(options.seeds):
        prompts = list(starter_prompts(bench.parts.backbone.chat_template))
        random.Random(seed).shuffle(prompts)
        held_out, warm, train = prompts[: options.prompts], prompts[options.prompts :][:3], prompts[options.prompts + 3 :]
        theirs, _ = bench.draw(held_out, "base", 1000 * seed)
        most = max(options.rankings, default=0)
        sets = bench.draw((train * (most // len(train) + 1))[:most], "base", 1000 * seed + 1)[0]
        for name in options.tastes:
            taste, text = TASTES[name]
            plans: dict[str, tuple[int, str | None]] = {"words": (0, text)} | {str(n): (n, None) for n in options.rankings}
            plans |= {"both": (min(10, most), text)} if most else {}
            line: dict[str, Any] = {}
            for i, (plan, (n, said)) in enumerate(plans.items(), start=2):
                seqs = bench.teach(sets[:n], taste, said)
                bench.draw(warm, "acting", 1000 * seed + 10 * i)
                ours, spent = bench.draw(held_out, "acting", 1000 * seed + 10 * i + 1)
                bench.forget(seqs)
                found[name][plan].append((rate(ours, theirs, taste), spent))
                line[plan] = {"win_rate": round(found[name][plan][-1][0], 3), "nats": round(spent, 2)}
                if said is not None:
                    line[plan] |= {"gamma": round(bench.parts.generator.words.bias.gamma, 3), "text": ours[0][0].text[:160]}
            print(json.dumps({"taste": name, "seed": seed} | line), flush=True)
    medians = {
        name: {plan: [round(statistics.median(column), 3) for column in zip(*values, strict=True)] for plan, values in plans.items()}
        for name, plans in found.items()
    }
    print(json.dumps({"model": Path(options.model).name, "seeds": options.seeds, "median win rate and nats per 64 tokens": medians}))


if __name__ == "__main__":
    main()
