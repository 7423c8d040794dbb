"""How far one sentence goes beside rankings of the same taste: win rate against the base on held-out prompts, and nats per 64 tokens.

    python benchmarks/critiques.py MODEL [--tastes shorter excited] [--seeds 5] [--plans words 1 10 25 both] [--out critiques.jsonl]

In one process, with the engine's own generator, Ĥ and distillation. Four answers to each held-out prompt against four of the base, all pairs;
rankings are of four answers of the base each, by the taste. γ and β are solved on answers to other prompts first. Plans:

- `words`: one critique that holds for every prompt; a number: so many rankings; `both`: the critique and ten rankings;
- `read`: the base with the critique in its context and nothing steered, at whatever that costs: how far the model understands it;
- `absorbed`: the adapter alone, after `--seconds` of the processor of distillation from the critique;
- `wishes`: five standing wishes at once; perplexity under the base of their answers over that of the base's own (once a seed);
- `latency`: from a critique to the first token that follows it, the prompt answered anew, over the wait for its first answers, which read it for
  the first time (once a seed).

Finished runs are kept in `--out` and not repeated. One JSON line each, then the medians over seeds of what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tastes import words

from learners.curriculum.distill_stage import DistillStage
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts, assemble, usable_prompts
from learners.feedback.critiques import Critiques
from learners.model.lora import lora_state
from learners.protocol import Answer, AnswerRequest, Ended, Event, Lesson, Load, Tokens
from learners.versions.snapshot import PolicySnapshot
from storage.records import Critique, Policy, Prompt, Ranking, Sampling, criticised
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


WISHES = ("Use only short, simple words.", "Be friendly.", "Give an example.", "Avoid lists.", "Be very excited and enthusiastic!")
ONCE = ("wishes", "latency")
"""Plans that know no taste."""


class Bench:
    """One model."""

    def __init__(self, model: str, nats: float, tokens: int) -> None:
        self.events: list[tuple[float, Event]] = []
        load = Load(model=model, quantize="none", nats=nats, sampling=Sampling(1.0, tokens))
        self.parts: Parts = assemble(load, lambda event: self.events.append((time.perf_counter(), event)))
        self.sampling = Sampling(1.0, tokens)
        self.surprise = 0.0  # nats a token under the base of the answers that were drawn last, where no adapter drew them

    def draw(self, prompts: Sequence[Prompt], policy: Policy, seed: int, answers: int = ANSWERS) -> tuple[list[list[Answer]], float]:
        """So many to each, and nats per 64 tokens. Distinct seeds never meet."""
        generator, numbers = self.parts.generator, random.Random(f"{policy}/{seed}")
        asked = [
            AnswerRequest(uid=f"{policy}{seed}/{i}.{j}", seed=numbers.getrandbits(31), messages=prompt.messages, policy=policy)
            for i, prompt in enumerate(prompts) for j in range(answers)
        ]  # fmt: skip
        self.events.clear()
        traces = {}
        for _ in generator.draw(asked, self.sampling):
            traces |= {uid: drawing.trace for uid, drawing in generator._live.items()}
        ended = {event.uid: event for _, event in self.events if isinstance(event, Ended)}
        found = [
            Answer(uid=each.uid, messages=each.messages, text=ended[each.uid].text, prompt_ids=traces[each.uid].prompt_ids,
                   token_ids=tuple(traces[each.uid].ids), stop=ended[each.uid].reason)
            for each in asked
        ]  # fmt: skip
        spent = 64 * sum(event.kl for event in ended.values()) / max(1, sum(event.n_tokens for event in ended.values()))
        self.surprise = -statistics.fmean(each for trace in traces.values() for each in trace.unbiased)
        return [found[i : i + answers] for i in range(0, len(found), answers)], spent

    def teach(self, sets: Sequence[Sequence[Answer]], taste: Callable[[str], float], texts: Sequence[str]) -> list[int]:
        """Ĥ learns rankings of these sets, and critiques hold for all prompts; what was learned, to be taken back."""
        reward, generator = self.parts.live_reward, self.parts.generator
        for seq, answers in enumerate(sets, start=1):
            scores = [taste(answer.text) for answer in answers]
            order = sorted(set(scores), reverse=True)
            ranks = {answer.uid: order.index(score) + 1 for answer, score in zip(answers, scores, strict=True)}
            reward.learn(Lesson(seq=seq, judgement=Ranking(f"s{seq}", ranks), answers=tuple(answers)))
        for seq, text in enumerate(texts, start=len(sets) + 1):
            blank = Answer(uid="", messages=(), text="")
            reward.learn(Lesson(seq=seq, judgement=Critique("s", None, text, "all"), answers=(blank,)))
        generator.use_head(reward.head)
        generator.words.use(Critiques.of(reward.lessons.lessons))
        return list(range(1, len(sets) + len(texts) + 1))

    def forget(self, seqs: Sequence[int]) -> None:
        for seq in seqs:
            self.parts.live_reward.retract(seq)
        self.teach([], shorter, ())

    def distil(self, prompts: Sequence[Prompt], seconds: float, seed: int) -> tuple[PolicySnapshot, int]:
        """An adapter that has absorbed what was taught, after so many seconds of the processor, and in how many steps."""
        parts = self.parts
        train = usable_prompts(parts.backbone, [prompt.messages for prompt in prompts], self.sampling)
        feedback = parts.live_reward.lessons
        inputs = replace(parts.inputs, head=parts.live_reward.head, feedback=feedback, train_prompts=list(train), conversations=train)
        weights = PolicyWeights(parts.trees.policy, parts.trees.reference)
        weights.start_from_base()
        practice = Practice(parts.backbone, parts.trees.base, self.sampling, seed, lambda: inputs)
        self.events.clear()
        stage = DistillStage(weights, practice, lambda: inputs, RunRecorder(lambda event: self.events.append((0.0, event)), seed))
        began = time.thread_time()
        for _ in stage.work():
            if time.thread_time() - began > seconds:
                break
        steps = max((getattr(event, "step", 0) for _, event in self.events), default=0)
        return PolicySnapshot("v1", lora_state(parts.trees.policy), critiques=frozenset(feedback.seqs)), steps

    def first_token(self, prompt: Prompt, text: str | None, seed: int) -> float:
        """Seconds from the commit of a critique, or of nothing, to the first token of four answers to a prompt."""
        began = time.perf_counter()
        seqs = self.teach([], shorter, (text,) if text else ())
        self.draw([prompt], "acting", seed)
        shown = next(moment for moment, event in self.events if isinstance(event, Tokens))
        self.forget(seqs)
        return shown - began


class Material:
    """What one seed's runs share: prompts, and answers of the base."""

    def __init__(self, bench: Bench, seed: int, held_out: int, most: int) -> None:
        self._bench, self.seed, self._most = bench, seed, most
        prompts = list(starter_prompts(bench.parts.backbone.chat_template))
        random.Random(seed).shuffle(prompts)
        self.held_out, self.warm, self.train = prompts[:held_out], prompts[held_out:][:3], prompts[held_out + 3 :]

    @cached_property
    def theirs(self) -> list[list[Answer]]:
        return self._bench.draw(self.held_out, "base", 1000 * self.seed)[0]

    @cached_property
    def surprise(self) -> float:
        self._bench.draw(self.held_out, "base", 1000 * self.seed)
        return self._bench.surprise

    @cached_property
    def sets(self) -> list[list[Answer]]:
        return self._bench.draw((self.train * (self._most // len(self.train) + 1))[: self._most], "base", 1000 * self.seed + 1)[0]


def measured(bench: Bench, material: Material, plan: str, name: str, seconds: float) -> dict[str, Any]:
    """One run."""
    if plan == "latency":
        return latency(bench, material)
    if plan == "read":
        taste, text = TASTES[name]
        asked = [Prompt(criticised(prompt.messages, [text], bench.parts.backbone.chat_template)) for prompt in material.held_out]
        ours, _ = bench.draw(asked, "base", 1000 * material.seed + 7)
        return {"win_rate": rate(ours, material.theirs, taste), "text": ours[0][0].text[:160]}
    generator, number = bench.parts.generator, 1000 * material.seed + 10 * (1 + sum(map(ord, plan)) % 90)
    taste, text = TASTES.get(name, (shorter, ""))
    rankings = 10 if plan == "both" else int(plan) if plan.isdigit() else 0
    texts = WISHES if plan == "wishes" else () if plan.isdigit() else (text,)
    seqs = bench.teach(material.sets[:rankings] if rankings else [], taste, texts)
    found: dict[str, Any] = {}
    if plan == "absorbed":
        policy, found["steps"] = bench.distil(material.train, seconds, material.seed)
        generator.use_policy(policy)
    else:
        bench.draw(material.warm, "acting", number)
    ours, spent = bench.draw(material.held_out, "adapter" if plan == "absorbed" else "acting", number + 1)
    if plan == "wishes":
        found["perplexity"] = math.exp(bench.surprise - material.surprise)
    else:
        found["win_rate"] = rate(ours, material.theirs, taste)
    bench.forget(seqs)
    generator.use_policy(PolicySnapshot())
    gamma = {"gamma": round(generator.words.bias.gamma, 3)} if texts and plan != "absorbed" else {}
    return found | {"nats": spent} | gamma | {"text": ours[0][0].text[:160]}


def latency(bench: Bench, material: Material) -> dict[str, Any]:
    """Medians over prompts: first read and answered, then criticised and answered anew."""
    waits: list[tuple[float, float]] = []
    for i, prompt in enumerate(material.train[:16]):
        texts, number = (None, TASTES["shorter"][1]), 1000 * material.seed + 950 + 2 * i
        waits.append(tuple(bench.first_token(prompt, text, number + j) for j, text in enumerate(texts)))
    plain, said = (statistics.median(each) for each in zip(*waits, strict=True))
    return {"ratio": said / plain, "ms": round(1000 * said), "plain_ms": round(1000 * plain)}


def rate(ours: Sequence[Sequence[Answer]], theirs: Sequence[Sequence[Answer]], taste: Callable[[str], float]) -> float:
    """Of all pairs to one prompt."""
    pairs = [(taste(a.text), taste(b.text)) for mine, other in zip(ours, theirs, strict=True) for a in mine for b in other]
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tastes", nargs="*", default=list(TASTES), choices=list(TASTES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--plans", nargs="*", default=["words", "1", "10", "25", "both"])
    parser.add_argument("--prompts", type=int, default=8, help="held out")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--nats", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of distillation")
    parser.add_argument("--out", default="critiques.jsonl", help="where finished runs are kept")
    options = parser.parse_args()
    out, model = Path(options.out), Path(options.model).name
    done = {row["key"]: row for row in map(json.loads, out.read_text().splitlines())} if out.exists() else {}
    bench = Bench(options.model, options.nats, options.tokens)
    most = max((int(plan) for plan in options.plans if plan.isdigit()), default=10)
    for seed in range(options.seeds):
        material = Material(bench, seed, options.prompts, most)
        for plan in options.plans:
            for name in ["any"] if plan in ONCE else options.tastes:
                key = f"{model}/{options.tokens}/{options.nats:g}/{name}/{seed}/{plan}"
                if key in done:
                    continue
                done[key] = {"key": key} | measured(bench, material, plan, name, options.seconds)
                with out.open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
                print(json.dumps(done[key]), flush=True)
    print(json.dumps({"model": model, "medians over seeds": summary(list(done.values()))}))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By taste and plan: the median of each figure, and the number of seeds."""
    found: defaultdict[str, defaultdict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        *_, taste, _, plan = row["key"].split("/")
        found[taste][plan].append(row)
    figures = ("win_rate", "nats", "ratio", "perplexity", "steps")
    return {
        taste: {
            plan: {"seeds": len(runs)} | {f: round(statistics.median(run[f] for run in runs), 3) for f in figures if f in runs[0]}
            for plan, runs in plans.items()
        }
        for taste, plans in found.items()
    }


if __name__ == "__main__":
    main()
