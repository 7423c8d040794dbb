"""What a run would take, before it begins: steps by the stages' own plans, tokens by the judgements, seconds by a few forwards on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from learners.curriculum.distill_stage import DistillPlan
from learners.curriculum.gate import GateSettings
from learners.curriculum.ppo_stage import PPO_SETTINGS, PPOPlan
from learners.curriculum.reward_stage import RewardPlan
from learners.curriculum.sft_stage import SFTPlan
from learners.feedback.critiques import Critiques
from learners.feedback.snapshot import Feedback
from learners.model import shards
from learners.model.forward import LMHead
from learners.model.lora import lora_parameters
from learners.model.shared_prompts import states_before
from learners.protocol import Stage
from learners.rlhf import ranks
from learners.rlhf.distributions import token_logprobs
from learners.rlhf.rollouts import draw_answers
from learners.train.rebuild import Rebuild
from learners.train.request import Planned, StageCost, TrainRequest

SAMPLE = 8
"""Answers in a forward that is timed, and that are drawn."""
DRAWN = 16
"""Tokens of each of those."""
LOOKS = 2
"""At the gate, on average: three at most."""
STATES_OF_ADAM = 2
BYTES = 4
"""Of a float32."""


class _Speeds:
    """Seconds for a token: in a step that trains, in a forward, and when it is drawn in a batch."""

    def __init__(self, rebuild: Rebuild, feedback: Feedback) -> None:
        parts = rebuild.parts
        backbone, tree = parts.backbone, parts.trees.policy
        samples = [sample for sample in feedback.samples.values() if sample.token_ids][:SAMPLE]
        prompts, answers = [s.prompt_ids for s in samples], [s.token_ids for s in samples]
        tokens = sum(map(len, prompts)) + sum(map(len, answers))
        head = LMHead(tree)

        def train() -> None:
            for part in backbone.memory_budget.parts(prompts, answers, gradients=True, most=SAMPLE):
                ids = torch.tensor([token for i in part for token in answers[i]], device=backbone.device)
                states = states_before(tree, [prompts[i] for i in part], [answers[i] for i in part], backbone.memory_budget)
                rows = torch.cat([states[row, : len(answers[i])] for row, i in enumerate(part)])
                token_logprobs(head, rows, ids).sum().backward()

        def look() -> None:
            with torch.no_grad():
                for part in backbone.memory_budget.parts(prompts, answers, gradients=False, most=SAMPLE):
                    states_before(tree, [prompts[i] for i in part], [answers[i] for i in part], backbone.memory_budget)

        def draw() -> None:
            sampling = type(parts.sampling)(parts.sampling.temperature, min(DRAWN, parts.sampling.max_new_tokens))
            self.drawn += sum(len(t.ids) for t in draw_answers(backbone, tree, prompts, sampling, 1, adapter=True, keep_states=True))

        self.drawn = 0  # tokens
        self.train, self.look = (_seconds(each) / max(1, tokens) for each in (train, look))
        draw_seconds = _seconds(draw)
        self.draw = 2 * draw_seconds / max(1, self.drawn)  # drawn twice: once to warm up
        tree.zero_grad()
        self.mean_prompt = sum(map(len, prompts)) / max(1, len(prompts))


def _seconds(work: Callable[[], None]) -> float:
    """Of the second time."""
    work()
    started = time.monotonic()
    work()
    return time.monotonic() - started


def planned(rebuild: Rebuild, request: TrainRequest) -> Planned:
    """Collective where several ranks train: each gives the same steps; the seconds are this rank's."""
    inputs = rebuild.inputs()
    feedback = inputs.feedback
    used = len(feedback) - sum(rebuild.refused.values())
    shortfall = dict(rebuild.refused)
    if (lost := rebuild.told_judgements - len(rebuild.lessons)) > 0:
        shortfall["taps mean nothing to another base"] = lost
    return Planned(
        judgements=used,
        processes=ranks.world(),
        carried=0 if rebuild.same_base else used,
        left_out=shortfall,
        stages=_costs(rebuild, request, feedback) if feedback.samples else (),
        memory_bytes=_memory(rebuild),
    )


def _memory(rebuild: Rebuild) -> int:
    adapter = BYTES * sum(p.numel() for p in lora_parameters(rebuild.parts.trees.policy).values())
    moments = 2 * STATES_OF_ADAM * adapter  # of the policy and the reward model, gradients beside them
    return int(shards.shard_bytes() + rebuild.parts.ready.memory_bytes + moments + 2 * adapter + rebuild.parts.backbone.memory_budget.allowance)


def _costs(rebuild: Rebuild, request: TrainRequest, feedback: Feedback) -> tuple[StageCost, ...]:
    speeds = _Speeds(rebuild, feedback)
    judged = [len(s.token_ids) for s in feedback.samples.values() if s.token_ids]
    answer = min(sum(judged) / max(1, len(judged)), rebuild.parts.backbone.most_tokens(rebuild.parts.sampling))
    whole = speeds.mean_prompt + answer
    plans = SFTPlan(), DistillPlan(), RewardPlan(), PPOPlan(), GateSettings()
    sft, distill, reward, ppo, gate = plans
    answers = gate.prompts * gate.answers
    gate_seconds = LOOKS * 2 * answers * answer * speeds.draw + LOOKS * 2 * answers * whole * speeds.look
    found: list[StageCost] = []

    def add(stage: Stage, steps: int, trained: float, seen: float, drawn: float, gates: float) -> None:
        """tokens in all: that a gradient is taken of, that only a forward sees, that are drawn."""
        if steps and stage in request.load.stages:
            seconds = (trained * speeds.train + seen * speeds.look + drawn * speeds.draw) / ranks.world() + gates * gate_seconds / ranks.world()
            found.append(StageCost(stage, steps, int(trained + seen + drawn), seconds))

    targets = [len(t.prompt_ids) + len(t.token_ids) for _, t in feedback.targets()]
    if targets:
        mean = sum(targets) / len(targets)
        add("sft", sft.steps, sft.steps * min(sft.batch, len(targets)) * mean, sft.steps / sft.probe_every * 16 * whole, 0, 1)
    words = bool(Critiques.of(feedback.lessons).lessons)
    if words or not rebuild.inputs().head.blank:
        draws = distill.steps / distill.redraw * distill.batch
        add("distill", distill.steps, distill.steps * distill.batch * whole, draws * whole, draws * answer, 1)
    items = [*(len(c.answers) for c in feedback.comparisons()), *(1 for _ in feedback.scores())]
    if len(items) >= reward.fewest_items:
        steps = reward.enough(len(items))
        add("reward", steps, steps * reward.batch * sum(items) / len(items) * whole, 0, 0, 0)
    if not words:
        rollouts = request.iterations * ppo.prompts * ppo.answers
        gates = request.iterations / ppo.iterations
        add("ppo", request.iterations, rollouts * PPO_SETTINGS.epochs * whole, 3 * rollouts * whole, rollouts * answer, gates)
    return tuple(found)
