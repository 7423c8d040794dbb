"""A curriculum whose trainers leave traces: weights name the judgements that touched them, so that a test can read what a version learned from.

Weights are one column: an entry for each judgement, 1 where it left a trace, and a last one that names the Ĥ that was absorbed (the sum of 2^seq over
its judgements). Everything between the trainers is the real thing: stages, schedule, weights, versions as bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from learners.curriculum.distill_stage import DistillPlan
from learners.curriculum.gate import Contender, GateSettings, GateVerdict
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.reward_stage import RewardPlan
from learners.curriculum.sft_stage import SFTPlan
from learners.feedback.critiques import Critiques
from learners.feedback.samples import Sample, written_name
from learners.feedback.snapshot import Feedback
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.protocol import Answer, Lesson
from learners.rlhf.stats import StepStats
from storage.records import Demonstration, Message, Ranking

JUDGEMENTS = 20
PROMPT = (Message("user", "?"),)


class Tree(nn.Module):
    """One LoRA weight, by PEFT's name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Module()
        self.layer.lora_B = nn.ModuleDict({"default": nn.Linear(1, JUDGEMENTS + 1, bias=False)})
        nn.init.zeros_(self.column)
        self.peft_config = {"default": SimpleNamespace(to_dict=lambda: {"peft_type": "LORA"})}

    @property
    def column(self) -> Tensor:
        return self.layer.lora_B["default"].weight  # type: ignore[index, operator, union-attr, return-value]


@torch.no_grad()
def touch(tree: nn.Module, seqs: Iterable[int]) -> None:
    """Learn from these."""
    for seq in seqs:
        tree.column[seq] = 1.0  # type: ignore[operator]


def traces(lora: Mapping[str, Tensor] | None) -> set[int]:
    """Judgements that touched these weights."""
    return set() if lora is None else set(max(lora.values(), key=Tensor.numel)[:-1].flatten().nonzero().flatten().tolist())


def absorbed(lora: Mapping[str, Tensor] | None) -> int:
    """Name of the Ĥ that these weights hold; 0 for none."""
    return 0 if lora is None else int(next(iter(lora.values()))[-1])


def name_of(head: RewardHead | None) -> int:
    return 0 if head is None else sum(2**seq for seq in head.tokens.tolist())


def lesson(seq: int, written: bool) -> Lesson:
    if written:
        return Lesson(seq=seq, judgement=Demonstration("s", "x"), answers=(Answer(uid="", messages=PROMPT, text=""),))
    answers = tuple(Answer(uid=f"{seq}{letter}", messages=PROMPT, text="x") for letter in "ab")
    return Lesson(seq=seq, judgement=Ranking("s", {answers[0].uid: 1, answers[1].uid: 2}), answers=answers)


def feedback_of(lessons: Sequence[Lesson]) -> Feedback:
    """Token ids of an answer are its judgement's seq."""
    return Feedback(tuple(lessons), {each.seq: tuple(Sample(name, (1,), (each.seq,)) for name in _names(each)) for each in lessons})


def _names(lesson: Lesson) -> list[str]:
    written = [written_name(lesson.seq)] if isinstance(lesson.judgement, Demonstration) else []
    return written + [answer.uid for answer in lesson.answers if answer.uid]


def head_of(feedback: Feedback, epoch: int) -> RewardHead:
    features = Features(torch.zeros(1), torch.eye(1))
    return RewardHead(epoch, torch.tensor(feedback.seqs, dtype=torch.int64), torch.zeros(len(feedback), features.width), features)


class Stubs:
    """Trainers, scorers and a gate in place of the real ones. `inputs` tells what is live: nothing else may be trained on."""

    def __init__(self, choice: random.Random, inputs: Callable[[], LearnerInputs], in_gate: Callable[[], None]) -> None:
        self.choice, self.inputs, self.in_gate = choice, inputs, in_gate
        self.reward_model_leads = False
        self.break_gate = False
        self.candidate = torch.zeros(0)  # as it came to the gate

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("learners.curriculum.sft_stage.SFTPlan", lambda: SFTPlan(steps=4))
        patch.setattr("learners.curriculum.reward_stage.RewardPlan", lambda: RewardPlan(steps=2))
        patch.setattr("learners.curriculum.distill_stage.DistillPlan", lambda: DistillPlan(steps=6, again=4, redraw=2))
        patch.setattr("learners.curriculum.sft_stage.SFT", self._sft)
        patch.setattr("learners.curriculum.distill_stage.Distill", self._distill)
        patch.setattr("learners.curriculum.distill_stage.DistillationTeacher", _Teacher)
        patch.setattr("learners.curriculum.reward_stage.RewardModel", self._reward_model)
        patch.setattr("learners.curriculum.sft_stage.nats_on", lambda *_: self.choice.uniform(0, 4))
        patch.setattr("learners.curriculum.practice.draw_answers", lambda *_, **__: [_trace(), _trace()])
        patch.setattr("learners.curriculum.ppo_stage.DistillationTeacher", _Teacher)
        patch.setattr("learners.curriculum.ppo_stage.HumanRewardScorer", lambda base, head, memory, rewards: _Scorer(head.tokens))
        patch.setattr("learners.curriculum.ppo_stage.PPOStage.trainer", self._ppo)
        patch.setattr("learners.curriculum.ppo_stage.reward_model_leads", lambda *_: self.reward_model_leads)
        patch.setattr("learners.curriculum.schedule.Gate", self._gate)

    def check_live(self, seqs: Iterable[int]) -> None:
        assert set(seqs) <= set(self.inputs().feedback.seqs), "trained on what was undone"

    def _sft(self, tree: nn.Module, width: int, **_: Any) -> Any:
        def step(batch: Sequence[Any]) -> StepStats:
            seqs = [target.token_ids[0] for target in batch]
            self.check_live(seqs)
            touch(tree, seqs)
            return STATS

        return SimpleNamespace(step=step)

    def _distill(self, tree: nn.Module, teacher: _Teacher, width: int, **_: Any) -> Any:
        def step(batch: object) -> StepStats:
            seqs = [*teacher.head.tokens.tolist(), *traces({"": teacher.weights.reference.column})]
            self.check_live(seqs)
            touch(tree, seqs)
            with torch.no_grad():
                tree.column[-1] = name_of(teacher.head)  # type: ignore[operator]
            return STATS

        return SimpleNamespace(step=step)

    def _reward_model(self, tree: nn.Module, width: int, **_: Any) -> _RewardModel:
        return _RewardModel(tree, self)

    def _ppo(self, policy: nn.Module, reference: nn.Module, reward: Any, *_: Any, **__: Any) -> _PPO:
        return _PPO(policy, reference, reward, self)

    def _gate(self, backbone: object, tree: nn.Module, *_: Any, **__: Any) -> Any:
        def compare(candidate: Contender, live: Contender, *_: Any) -> GateVerdict:
            self.candidate = tree.column.detach().clone()  # type: ignore[operator]
            live.load()
            self.in_gate()
            if self.break_gate and self.choice.random() < 0.2:
                raise torch.OutOfMemoryError("out of memory")
            candidate.load()
            code = self.choice.choice(["published"] * 4 + ["worse", "over budget"])
            return GateVerdict(code == "published", code, "", kl=self.choice.uniform(0, 8), better=self.choice.random() < 0.5)

        return SimpleNamespace(compare=compare, settings=GateSettings())


HEAD = {"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}
"""Of a reward model and of values; they learn nothing."""
STATS = StepStats(loss=0.0, grad_norm=0.0, tokens=1)


def _trace() -> Any:
    trace = SimpleNamespace(ids=[1], prompt_ids=(1,), kl=0.0, visited=lambda temperature: None)
    trace.without_states = lambda: trace
    return trace


class _Teacher:
    def __init__(self, practice: object, weights: Any, share: float) -> None:
        self.weights, self.share, self.steering = weights, share, SimpleNamespace(beta=1.0)
        self.beta, self.critiques = 1.0, Critiques()

    def refresh(self, inputs: LearnerInputs) -> None:
        self.head = inputs.head

    def start_over(self) -> None:
        pass

    def draw(self, prompts: object) -> list[Any]:
        return [_trace()]

    def batch(self, traces: object) -> tuple[object, frozenset[int]]:
        return traces, frozenset()


class _Scorer:
    """What it says are the judgements that it learned from."""

    gain = 1.0

    def __init__(self, seqs: Tensor) -> None:
        self.seqs = seqs

    def normalise(self, *_: object) -> None:
        pass

    def score(self, prompts: object, answers: Sequence[object]) -> Tensor:
        return torch.zeros(len(answers))

    def token_shares(self, *_: object) -> Tensor:
        return self.seqs


class _RewardModel(_Scorer):
    def __init__(self, tree: nn.Module, stubs: Stubs) -> None:
        self.tree, self.stubs = tree, stubs

    def step(self, batch: Sequence[Any]) -> StepStats:
        self.stubs.check_live(item.seq for item in batch)
        touch(self.tree, [item.seq for item in batch])
        return STATS

    def token_shares(self, *_: object) -> Tensor:
        return torch.tensor(sorted(traces({"": self.tree.column})), dtype=torch.int64)  # type: ignore[dict-item]

    def state(self) -> dict[str, Tensor]:
        column = self.tree.column.detach().clone()  # type: ignore[union-attr, operator]
        return {"lora.layer.lora_B.default.weight": column, **{f"head.{name}": each for name, each in HEAD.items()}, "normalisation": torch.ones(2)}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.tree.column.copy_(state["lora.layer.lora_B.default.weight"])  # type: ignore[union-attr, operator]


class _PPO:
    """Its KL wanders about its target, so that updates are taken back now and then."""

    def __init__(self, policy: nn.Module, reference: nn.Module, reward: Any, stubs: Stubs) -> None:
        self.policy, self.reference, self.reward, self.stubs = policy, reference, reward, stubs
        self.kl_target, self.kl_coefficient = 6.0, 0.0

    def rollout(self, prompts: object, answers_per_prompt: int) -> Any:
        return SimpleNamespace(prompts=((1,),), answers=((1, 1),))

    def step(self, rollouts: object, tapped: object) -> StepStats:
        seqs = [*self.reward((), ()).tolist(), *traces({"": self.reference.column})]  # type: ignore[dict-item]
        self.stubs.check_live(seqs)
        touch(self.policy, seqs)
        return StepStats(loss=0.0, grad_norm=0.0, tokens=1, kl=self.kl_target * self.stubs.choice.uniform(0.5, 1.8))

    def state(self) -> dict[str, Tensor]:
        return {**HEAD, "kl": torch.tensor([self.kl_coefficient, self.kl_target], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.kl_coefficient, self.kl_target = state["kl"].tolist()
