"""Distillation on a real model: the loss by hand, and an adapter that comes to act as the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from learners.model.base import Backbone
from learners.model.batches import pad
from learners.model.forward import device_of, forward
from learners.model.sampling import Row, decode
from learners.rlhf.distillation import Distill, DistillBatch, DistillSettings, Teacher
from learners.rlhf.distributions import Logits
from storage.records import Sampling
from tests.learners.models import needs_stories, prompt, stirred, stories, tensor

pytestmark = needs_stories
OPENINGS = ("a little dog", "a boy", "an old king", "a shy mouse")


@pytest.fixture
def backbone() -> Backbone:
    return stories()


class Biased:
    """The base with a preference for some tokens."""

    def __init__(self, backbone: Backbone) -> None:
        self.tree = backbone.tree()
        self.bias_of = torch.randn(backbone.vocabulary, generator=torch.Generator().manual_seed(0)).to(backbone.device)

    def __call__(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Logits:
        logits = logits_before(self.tree, prompts, answers) + self.bias_of
        return lambda rows: logits[rows]

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor:
        """For the sampler."""
        return self.bias_of.expand(len(hidden), -1)


def logits_before(tree: torch.nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """Of all answer tokens, prompt and answer in one row: (N, V)."""
    batch = pad(prompts, answers, device_of(tree))
    return forward(tree, batch.input_ids, batch.attention_mask, keep=batch.keep).logits[:, :-1][batch.answer_mask]


def drawn(backbone: Backbone, teacher: Biased, seed: int, tokens: int = 24) -> DistillBatch:
    """The teacher's own answers, four to each opening."""
    prompts = [prompt(backbone, f"Once upon a time, there was {opening}") for opening in OPENINGS for _ in range(4)]
    rows = [Row(str(i), p, seed + i, steer=True) for i, p in enumerate(prompts)]
    answers: list[list[int]] = [[] for _ in rows]
    for step in decode(teacher.tree, rows, Sampling(1.0, tokens), backbone.eos_ids, backbone.pad_id, teacher):
        for uid, token in zip(step.uids, step.ids, strict=True):
            answers[int(uid)].append(token)
    return DistillBatch(prompts, [tuple(answer) for answer in answers])


def kl_by_hand(teacher: Teacher, tree: torch.nn.Module, batch: DistillBatch) -> float:
    """Nats per token from teacher to tree, one answer at a time."""
    total = 0.0
    for prompt_ids, answer in zip(batch.prompts, batch.answers, strict=True):
        with torch.no_grad():
            p = teacher([prompt_ids], [answer])(slice(None)).log_softmax(-1)
            q = forward(tree, tensor([[*prompt_ids, *answer]])).logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
    return total / sum(map(len, batch.answers))


def test_the_loss_is_the_kl_from_teacher_to_adapter_per_answer_token(backbone: Backbone) -> None:
    teacher, tree = Biased(backbone), stirred(backbone)
    batch = DistillBatch([prompt(backbone), prompt(backbone, "There was a cat")], [(400, 401, 402), (300,)])
    expected = kl_by_hand(teacher, tree, batch)
    stats = Distill(tree, teacher, backbone.width).step(batch)
    assert stats.loss == pytest.approx(expected, abs=1e-4)
    assert stats.kl == pytest.approx(expected * 4 / 2, abs=1e-4)


def test_how_a_batch_is_split_into_forwards_changes_nothing(backbone: Backbone) -> None:
    teacher = Biased(backbone)
    batch = DistillBatch([prompt(backbone), prompt(backbone, "There was a cat")], [(400, 401, 402), (300,)])
    whole = Distill(stirred(backbone), teacher, backbone.width).step(batch)
    split = Distill(stirred(backbone), teacher, backbone.width, DistillSettings(microbatch=1)).step(batch)
    assert split.loss == pytest.approx(whole.loss, abs=1e-5)
    assert split.grad_norm == pytest.approx(whole.grad_norm, rel=1e-3)


def test_the_adapter_absorbs_a_steered_policy(backbone: Backbone) -> None:
    teacher, tree = Biased(backbone), backbone.adapter_tree()
    held_out = drawn(backbone, teacher, seed=900)
    before = kl_by_hand(teacher, tree, held_out)
    batch = drawn(backbone, teacher, seed=0)
    distill = Distill(tree, teacher, backbone.width)
    for _ in range(25):
        distill.step(batch)
    assert before > 0.1
    assert kl_by_hand(teacher, tree, held_out) < 0.35 * before


def test_an_adapter_that_acts_as_its_teacher_already_stays_so(backbone: Backbone) -> None:
    tree, base = backbone.adapter_tree(), backbone.tree()

    def teacher(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Logits:
        return lambda rows: logits_before(base, prompts, answers)[rows] + 5.0

    stats = Distill(tree, teacher, backbone.width).step(DistillBatch([prompt(backbone)], [(400, 401)]))
    assert stats.loss == pytest.approx(0, abs=1e-5)
    assert stats.grad_norm == pytest.approx(0, abs=1e-4)


def test_a_batch_without_tokens_is_refused(backbone: Backbone) -> None:
    distill = Distill(backbone.adapter_tree(), Biased(backbone), backbone.width)
    with pytest.raises(ValueError, match="nothing to distil"):
        distill.step(DistillBatch([prompt(backbone)], [()]))
