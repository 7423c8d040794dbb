"""Every family through the whole loop: drawing, Ĥ, SFT, distillation, the reward model, PPO, a version out and in again, and PEFT's own loading."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from learners.curriculum.distill_stage import DistillPlan, DistillStage
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.ppo_stage import PPOPlan, PPOStage
from learners.curriculum.practice import Practice
from learners.curriculum.reward_stage import RewardPlan, RewardStage
from learners.curriculum.runs import RunRecorder
from learners.curriculum.sft_stage import SFTPlan, SFTStage
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts, assemble
from learners.model.architectures import model_class
from learners.model.base import Backbone
from learners.model.checkpoint import read_config
from learners.model.cpu_weights import drawing
from learners.model.forward import causal_model, device_of
from learners.model.lora import LoraSettings, lora_parameters
from learners.model.sampling import Row, decode
from learners.protocol import Answer, Event, Lesson, Load, Metrics
from learners.rlhf.rollouts import draw_answers
from learners.versions.blobs import Assembler, write_directory
from learners.versions.snapshot import VersionState
from learners.versions.store import VersionStore
from storage.records import Demonstration, Message, Ranking, Sampling
from tests.learners.model.families import FAMILIES, saved_family
from tests.learners.models import DEVICE

SAMPLING = Sampling(1.0, 9)  # longer than the sliding windows of the table
PROMPTS = tuple((Message("user", text),) for text in ("Hi", "What is a dog?", "And a cat, then?"))
WRITTEN = "A dog!"


CASES = [(family, quantize) for family in FAMILIES for quantize in ("none", "nf4") if (family, quantize) != ("deeper", "nf4")] + [
    (family, "int8") for family in ("llama", "gpt2", "lfm2", "gemma2", "falcon", "qwen2_moe", "qwen3_vl")
]


@pytest.mark.parametrize(("family", "quantize"), CASES)
def test_a_family_goes_through_the_whole_loop(family: str, quantize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.engine.calibration.TOKENS", 2)
    load = Load(model=str(saved_family(family)), quantize=quantize, device=DEVICE, sampling=SAMPLING, train_prompts=PROMPTS)
    course = Course(assemble(load, lambda event: None))
    names = lora_parameters(course.weights.policy)
    assert names and not any(part in ("experts", "vision_tower", "visual", "lm_head") for name in names for part in name.split("."))
    course.learn_all()
    draws_the_same_alone_and_beside_others(course.parts.backbone, course.weights.policy)
    state = course.version()
    restored = published_and_restored(course.parts, state, tmp_path)
    other = course.parts.backbone.adapter_tree(seed=9)
    PolicyWeights(other, course.parts.trees.reward).replace(restored)
    assert torch.equal(logits(other, course.prompts[0]), logits(course.weights.policy, course.prompts[0]))
    if quantize == "none":
        (version,) = tmp_path.iterdir()
        alone = loaded_by_peft(saved_family(family), version)
        torch.testing.assert_close(logits(alone, course.prompts[0]), logits(course.weights.policy, course.prompts[0]), atol=1e-4, rtol=1e-4)


class Course:
    """The stages in their order, a few steps of each, with what each must have changed."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.inputs = parts, parts.inputs
        self.events: list[Event] = []
        self.weights = PolicyWeights(parts.trees.policy, parts.trees.reference)
        practice, runs = Practice(parts.backbone, parts.trees.base, parts.sampling, 0, self.now), RunRecorder(self.events.append, 0)
        common = (practice, self.now, runs)
        self.sft = SFTStage(self.weights, *common, SFTPlan(steps=3, probe_every=9))
        self.distill = DistillStage(self.weights, *common, DistillPlan(steps=2, again=2, batch=2, pool=2))
        self.reward = RewardStage(parts.trees.reward, *common, RewardPlan(steps=2, steps_per_item=0, fewest_items=2))
        self.ppo = PPOStage(self.weights, *common, self.reward, PPOPlan(prompts=2, answers=2, iterations=1))
        self.prompts = [tuple(parts.backbone.encode(prompt)) for prompt in PROMPTS]

    def now(self) -> LearnerInputs:
        return self.inputs

    def learn_all(self) -> None:
        online = self.parts.live_reward
        for lesson in self.rankings():
            online.learn(lesson)
        online.learn(Lesson(seq=3, judgement=Demonstration("s", WRITTEN), answers=(Answer(uid="", messages=PROMPTS[0], text=""),)))
        self.inputs = replace(self.inputs, head=online.head, feedback=online.lessons, head_scores=online.record)
        assert not online.head.blank and bool(online.head.weights.isfinite().all())
        written = self.parts.backbone.encode_completion(WRITTEN)
        before = log_likelihood(self.weights.policy, self.prompts[0], written)
        run(self.sft.work())
        assert log_likelihood(self.weights.policy, self.prompts[0], written) > before, "SFT makes what was written likelier"
        for stage in (self.distill, self.reward, self.ppo):
            own = self.parts.trees.reward if stage is self.reward else self.weights.policy
            weights = [p.clone() for p in lora_parameters(own).values()]
            assert stage.due()
            run(stage.work())
            assert any(not torch.equal(p, w) for p, w in zip(lora_parameters(own).values(), weights, strict=True))
        losses = [event.loss for event in self.events if isinstance(event, Metrics) and event.loss is not None]
        assert len(losses) == 3 + 2 + 2 + 1 and all(math.isfinite(loss) for loss in losses)

    def rankings(self) -> list[Lesson]:
        """More letters are better."""
        backbone, seqs = self.parts.backbone, [1, 1, 1, 2, 2, 2]
        traces = draw_answers(backbone, backbone.model, [self.prompts[seq] for seq in seqs], SAMPLING, 100, adapter=False)
        answers = [
            Answer(
                uid=str(i), messages=PROMPTS[seq], text=backbone.decode(t.ids), prompt_ids=self.prompts[seq], token_ids=tuple(t.ids), stop="length"
            )
            for i, (seq, t) in enumerate(zip(seqs, traces, strict=True))
        ]
        lessons = []
        for seq in (1, 2):
            own = sorted((answer for answer, of in zip(answers, seqs, strict=True) if of == seq), key=lambda a: -sum(map(str.isalpha, a.text)))
            lessons.append(Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(own)}), answers=tuple(own)))
        return lessons

    def version(self) -> VersionState:
        return VersionState(self.weights.snapshot(), self.inputs.head, self.reward.model.state(), self.ppo.value_state, seqs=(1, 2, 3))


def run(work: Iterator[object]) -> None:
    for _ in work:
        pass


def draws_the_same_alone_and_beside_others(backbone: Backbone, tree: nn.Module) -> None:
    """Padded rows with twins of the base, which end one after another, against whole forwards of each row alone."""
    prompts = [tuple(backbone.encode((Message("user", text),))) for text in ("Hi", "What is it, and what is it for?")]
    rows = [Row(str(i), prompts[i % 2], seed=i) for i in range(3)] + [Row("base", prompts[0], 7, adapter=False)]
    drawn: dict[str, list[tuple[int, float, float]]] = {row.uid: [] for row in rows}
    for step in decode(tree, rows, SAMPLING, backbone.eos_ids, backbone.pad_id, twin=True):
        for uid, token, logprob, kl in zip(step.uids, step.ids, step.logprobs, step.kl, strict=True):
            drawn[uid].append((token, logprob, kl))
    for row in rows:
        ids = [token for token, _, _ in drawn[row.uid]]
        with drawing():  # by the same products: what is nearly a tie to a router is decided by rounding
            policy, base = (at_answer(t, row.prompt_ids, ids) for t in (tree if row.adapter else backbone.model, backbone.model))
        for i, (token, logprob, kl) in enumerate(drawn[row.uid]):
            assert logprob == pytest.approx(float(policy[i, token]), abs=2e-3)
            assert kl == pytest.approx(float((policy[i].exp() * (policy[i] - base[i])).sum()), abs=2e-3)


@torch.no_grad()
def logits(tree: nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """By the model's own forward, nothing of ours: (T, V)."""
    return causal_model(tree)(torch.tensor([ids], device=device_of(tree)), use_cache=False).logits[0].float().cpu()


def at_answer(tree: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    return logits(tree, [*prompt, *answer])[len(prompt) - 1 : -1].double().log_softmax(-1)


def log_likelihood(tree: nn.Module, prompt: Sequence[int], answer: Sequence[int]) -> float:
    return float(at_answer(tree, prompt, answer).gather(1, torch.tensor(answer)[:, None]).sum())


def published_and_restored(parts: Parts, state: VersionState, directory: Path) -> VersionState:
    """Through the pieces that the terminal gets and writes, into the store of another sitting."""
    stores = [VersionStore(parts.backbone, parts.trees.policy, LoraSettings(), 0) for _ in range(2)]
    sha256, blobs = stores[0].put(state, "base", "ppo")
    terminal = Assembler()
    for blob in blobs:
        stores[1].receive(blob)
        terminal.add(blob)
    files = terminal.take(sha256)
    assert files is not None and write_directory(files, directory).name == sha256
    restored = stores[1].restore("v", sha256)
    assert restored is not None
    return restored


def loaded_by_peft(base: Path, version: Path) -> nn.Module:
    from peft import PeftModel

    return PeftModel.from_pretrained(model_class(read_config(base)).from_pretrained(base, dtype=torch.float32), version).eval()
