"""Steps of training on made-up answers, as `training_memory.py` and `training_speed.py` ask for them; also run over earlier commits' modules.

    PYTHONPATH=TREE python benchmarks/training_workload.py MODEL QUANTIZE DEVICE

Reads requests from stdin, a JSON line each: {"work": NAME, "prompt": TOKENS, "answer": TOKENS, "answers": COUNT, "each": ANSWERS_TO_A_PROMPT}.
Answers with {"seconds": …, "bytes": …}: seconds of the processor, which others cannot lengthen, or of the clock on CUDA; and the peak beyond what was
there before the step, resident on a CPU, allocated on CUDA.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]
DISTILLATION_STEPS = 4


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The most memory in use while the block runs, beyond what was in use when it began."""

    def __enter__(self) -> Peak:
        self._cuda = torch.cuda.is_available() and torch.cuda.memory_allocated() > 0
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._began, self._most, self._over = (torch.cuda.memory_allocated() if self._cuda else rss()), 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._most = max(self._most, rss())

    def __exit__(self, *unused: object) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        self._over.set()
        self._watcher.join()
        most = torch.cuda.max_memory_allocated() if self._cuda else max(self._most, rss())
        self.bytes = max(0, most - self._began)


class Sets:
    """`count` answers of `answer` random tokens, `each` of them to one prompt of `prompt` random tokens."""

    def __init__(self, vocabulary: int, prompt: int, answer: int, count: int, each: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def ids(length: int) -> tuple[int, ...]:
            return tuple(torch.randint(10, vocabulary, (length,), generator=generator).tolist())

        self.distinct = [ids(prompt) for _ in range(count // each)]
        self.prompts = [prompt_ids for prompt_ids in self.distinct for _ in range(each)]
        self.answers = [ids(answer) for _ in range(count)]
        self.each = each


def reward_step(tools: Any, sets: Sets) -> Work:
    """Rankings of `each` answers."""
    each = sets.each
    batch = [tools.Comparison(p, tuple(sets.answers[i * each : (i + 1) * each]), tuple(range(1, each + 1)), i) for i, p in enumerate(sets.distinct)]
    model = tools.RewardModel(tools.backbone.adapter_tree(), tools.backbone.width)
    return lambda: model.step(batch)


def ppo_step(tools: Any, sets: Sets) -> Work:
    """Two epochs over the answers as rollouts."""
    n = len(sets.answers)
    scores = torch.randn(n, generator=torch.Generator().manual_seed(1))
    ppo = tools.PPO(
        tools.backbone.adapter_tree(), tools.backbone.tree(), lambda prompts, answers: scores,
        tools.PPOSettings(learning_rate=1e-9, step_kl=math.inf), backbone=tools.backbone,
    )  # fmt: skip
    rollouts = tools.Rollouts(tuple(sets.prompts), tuple(sets.answers), ("length",) * n, tuple((0.0,) * len(a) for a in sets.answers))
    return lambda: ppo.step(rollouts)


def distillation_step(tools: Any, sets: Sets) -> Work:
    """Towards the base with a fixed bias: a few steps on the same answers, each of which a run learns from about ten times."""
    distill = tools.Distill(tools.backbone.adapter_tree(), tools.biased_teacher(), tools.backbone.width)
    batch = tools.DistillBatch(sets.prompts, sets.answers)
    return lambda: [distill.step(batch) for _ in range(DISTILLATION_STEPS)]


def base_states(tools: Any, sets: Sets) -> Work:
    """What Ĥ sees of the answers of one set."""
    return lambda: tools.states_before(sets.distinct[0], sets.answers[: sets.each])


WORK = {"reward": reward_step, "ppo": ppo_step, "distillation": distillation_step, "states": base_states}


class Now:
    """This tree's modules."""

    def __init__(self, model: str, quantize: str, device: str) -> None:
        from learners.feedback.samples import Comparison
        from learners.model.loading import load_backbone
        from learners.rlhf.distillation import Distill, DistillBatch
        from learners.rlhf.ppo import PPO, PPOSettings, Rollouts
        from learners.rlhf.reward_model import RewardModel

        self.Comparison, self.RewardModel, self.PPO, self.PPOSettings, self.Rollouts = Comparison, RewardModel, PPO, PPOSettings, Rollouts
        self.Distill, self.DistillBatch = Distill, DistillBatch
        self.backbone = load_backbone(model, quantize, device)

    def states_before(self, prompt_ids: tuple[int, ...], answers: list[tuple[int, ...]]) -> object:
        from learners.rlhf.rollouts import states_before

        return states_before(self.backbone, self.backbone.model, prompt_ids, answers)

    def biased_teacher(self) -> object:
        from learners.model.forward import LMHead
        from learners.rlhf.frozen_states import FrozenStates

        base, bias, head = FrozenStates(self.backbone.tree()), fixed_bias(self.backbone), LMHead(self.backbone.model)

        def teacher(prompts: Any, answers: Any) -> Callable[[slice], torch.Tensor]:
            hidden = base.before(prompts, answers)
            return lambda rows: head(hidden[rows]) + bias

        return teacher


class AtCe5d47c:
    """The modules of commit ce5d47c."""

    def __init__(self, model: str, quantize: str, device: str) -> None:
        from learners.backbone import Backbone
        from learners.distill import Distill, DistillBatch
        from learners.examples import Comparison
        from learners.ppo import PPO, PPOSettings, Rollouts
        from learners.reward import RewardModel

        self.Comparison, self.RewardModel, self.PPO, self.PPOSettings, self.Rollouts = Comparison, RewardModel, PPO, PPOSettings, Rollouts
        self.Distill, self.DistillBatch = Distill, DistillBatch
        self.backbone = Backbone.load(model, quantize, device)

    def states_before(self, prompt_ids: tuple[int, ...], answers: list[tuple[int, ...]]) -> object:
        from learners.rollouts import states_before

        return [states_before(self.backbone, self.backbone.model, prompt_ids, answer) for answer in answers]

    def biased_teacher(self) -> object:
        from learners.backbone import forward

        tree, bias = self.backbone.tree(), fixed_bias(self.backbone)
        return lambda batch: forward(tree, batch.input_ids, batch.attention_mask, keep=batch.keep).logits[:, :-1] + bias


def fixed_bias(backbone: Any) -> torch.Tensor:
    return torch.randn(backbone.vocabulary, generator=torch.Generator().manual_seed(2)).to(backbone.device)


def main() -> None:
    model, quantize, device = sys.argv[1:4]
    try:
        tools: Any = Now(model, quantize, device)
    except ModuleNotFoundError:
        tools = AtCe5d47c(model, quantize, device)
    print(json.dumps({"ready": tools.backbone.vocabulary}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        sets = Sets(tools.backbone.vocabulary, asked["prompt"], asked["answer"], asked["answers"], asked["each"])
        work = WORK[asked["work"]](tools, sets)
        clock = time.perf_counter if torch.cuda.is_available() else time.process_time
        started = clock()
        with Peak() as peak:
            work()
        print(json.dumps({"seconds": clock() - started, "bytes": peak.bytes}), flush=True)


if __name__ == "__main__":
    main()
