"""A base in shards over two processes (FSDP2): the losses, gradients and answers of one process that holds all of it, and half of the memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

from learners.model import shards
from learners.model.batches import pad_answers
from learners.model.checkpoint import ModelError
from learners.model.loading import load_backbone
from learners.model.memory import MemoryBudget
from learners.model.replicas import distinct_bytes
from learners.model.shared_prompts import states_after, states_before
from tests.learners.model import families
from tests.learners.model.families import MECHANICS, saved_family
from tests.learners.model.test_shared_prompts import ANSWERS, MASK, PROMPTS, gradients
from tests.learners.models import QUANTIZED, STORIES, cpu_only, needs_stories, stories
from tests.learners.processes import in_processes
from tests.learners.train import test_ranks as trained

pytestmark = [needs_stories, cpu_only]


def in_shards(work: Callable[[], Any], folder: Path, quantize: str = "none", copies: int = 1, **how: Any) -> list[Any]:
    """What `work` finds in each of some processes that have loaded stories260k in shards."""

    def run() -> Any:
        shards.ask_for(shards.Sharding(**{"offload": OffloadPolicy(), "copies": copies, **how}))
        backbone = load_backbone(str(STORIES), quantize, "cpu")
        trained.stories = lambda: backbone  # of this child alone
        found = work()
        shards.meet()  # as every run ends
        return found

    return in_processes(run, folder, 2 * copies)


@pytest.mark.parametrize("quantize", QUANTIZED)
@pytest.mark.parametrize("work", [trained.imitated, trained.distilled, trained.rewarded], ids=lambda work: work.__name__)
def test_a_step_over_shards_is_the_step_of_one_process(
    work: Callable[[], Any], quantize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "stories", lambda: stories(quantize))
    loss, weights, *_ = work()
    for theirs, adapter, *_ in in_shards(work, tmp_path, quantize):
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert trained.close(adapter, weights, 1e-5)


def test_shards_may_stay_in_the_machines_memory(tmp_path: Path) -> None:
    loss, weights, *_ = trained.rewarded()
    for theirs, adapter, *_ in in_shards(trained.rewarded, tmp_path, offload=CPUOffloadPolicy(pin_memory=False)):
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert trained.close(adapter, weights, 1e-5)


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_a_step_over_shards_of_deepspeed_is_the_step_of_one_process(quantize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed")
    from deepspeed import init_distributed

    monkeypatch.setattr(trained, "stories", lambda: stories(quantize))

    def work() -> Any:
        os.environ["LOCAL_RANK"] = str(torch.distributed.get_rank())
        init_distributed(dist_backend="gloo", verbose=False)  # as Accelerate does
        shards.ask_for(shards.Sharding(zero3={"stage": 3}))
        backbone = load_backbone(str(STORIES), quantize, "cpu")
        trained.stories = lambda: backbone
        found = *trained.rewarded(), shards._base.nbytes
        shards.meet()
        return found

    loss, weights, scores = trained.rewarded()
    whole = sum(distinct_bytes(layer) for layer in stories(quantize).model.model.layers)
    for theirs, adapter, values, kept in in_processes(work, tmp_path):
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert trained.close(adapter, weights, 1e-5)
        torch.testing.assert_close(values, scores, rtol=0, atol=1e-5)
        assert kept < 0.6 * whole


def test_two_copies_over_two_processes_each_do_the_same(tmp_path: Path) -> None:
    """As over two machines: a process has half of the layers, and the gradient is of the rows of all four."""

    def work() -> tuple[float, dict[str, Tensor], int]:
        return *trained.imitated(), shards._base.nbytes

    loss, weights = trained.imitated()
    whole = sum(distinct_bytes(layer) for layer in stories().model.model.layers)
    for theirs, adapter, kept in in_shards(work, tmp_path, copies=2):
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert trained.close(adapter, weights, 1e-5)
        assert kept == pytest.approx(0.5 * whole, rel=0.02)


@pytest.mark.parametrize("room", [0.0, 1.0])
def test_ppo_over_shards_draws_the_same_answers_and_makes_the_same_update(room: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room for the whole base while answers are drawn, and where each layer is gathered for each token."""
    monkeypatch.setattr(shards, "SHARE", room)
    loss, weights, (answers, figures) = trained.practised()
    for theirs, adapter, (drawn, update) in in_shards(trained.practised, tmp_path):
        assert drawn == answers
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert update == pytest.approx(figures, rel=1e-6, abs=1e-4)
        assert trained.close(adapter, weights, 1e-5)


def test_a_process_keeps_half_of_the_layers_and_one_more_while_it_computes(tmp_path: Path) -> None:
    layers = [*stories().model.model.layers]
    whole = [distinct_bytes(layer) for layer in layers]

    def work() -> tuple[int, int]:
        base, most = shards._base, 0
        need = base.need
        model = trained.stories().model.model

        def watched(layer: int) -> None:
            nonlocal most
            need(layer)
            most = max(most, distinct_bytes(*model.layers))

        base.need = watched
        trained.rewarded()
        shards.meet()
        return base.nbytes, most, distinct_bytes(*model.layers)

    for kept, most, left in in_shards(work, tmp_path):
        norms = left  # not worth sharding
        assert norms < 0.02 * sum(whole)
        assert kept == pytest.approx(0.5 * (sum(whole) - norms), abs=1)
        assert most <= norms + max(whole)


def test_processes_may_run_different_numbers_of_forwards(tmp_path: Path) -> None:
    """One alone reads answers, with gradients, that the other has nothing to do with; and in parts of another size."""
    backbone = stories()

    def read(tree: Any, most: int) -> list[Tensor]:
        tree.zero_grad()
        for i in range(0, len(ANSWERS), most):
            _, mask = pad_answers(ANSWERS[i : i + most])
            states_before(tree, PROMPTS[i : i + most], ANSWERS[i : i + most])[mask].tanh().sum().backward()
        return [p.grad.clone() for p in tree.parameters() if p.grad is not None]

    def work() -> tuple[list[Tensor], list[Tensor]]:
        tree = trained.stirred(trained.stories())
        alone = read(tree, 2) if torch.distributed.get_rank() == 1 else []
        shards.meet()
        return alone, read(tree, 1 + torch.distributed.get_rank() * 2)

    tree = trained.stirred(backbone)
    first, second = in_shards(work, tmp_path)
    assert first[0] == []
    for found, most in ((second[0], 2), (first[1], 1), (second[1], 3)):
        for one, other in zip(found, read(tree, most), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def states_and_gradients(model: Any) -> list[Tensor]:
    """Of a tree on it, with everything kept for the backward pass and with layers that are computed again."""
    tree, found = families.with_adapter(model), list[Tensor]()
    for allowance in (1e12, 0.0):
        memory = replace(MemoryBudget.of_tree(tree), allowance=allowance)
        hidden = states_after(tree, PROMPTS, ANSWERS, memory)
        found += [hidden.detach().masked_fill(~MASK[..., None], 0.0), *gradients(tree, hidden)]
    return found


@pytest.mark.parametrize("family", (*MECHANICS, "gpt_oss"))
def test_no_kind_of_body_reads_weights_of_a_layer_that_is_in_shards(family: str, tmp_path: Path) -> None:
    """Freed memory would give an error or other numbers."""

    def work() -> tuple[list[Tensor], int]:
        shards.LEAST_NUMBERS = 1
        shards.ask_for(shards.Sharding(OffloadPolicy()))
        model = families.random_model(family)
        shards.shard(model, torch.device("cpu"))
        return states_and_gradients(model), shards._base.nbytes

    ((found, sharded),) = in_processes(work, tmp_path, n=1)
    assert sharded > 0
    for one, other in zip(found, states_and_gradients(families.random_model(family)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_experts_in_four_bits_are_in_shards_too(tmp_path: Path) -> None:
    def read() -> list[Tensor]:
        return states_and_gradients(load_backbone(str(saved_family("qwen2_moe")), "nf4", "cpu").model)

    def work() -> tuple[list[Tensor], int]:
        shards.LEAST_NUMBERS = 64
        shards.ask_for(shards.Sharding(OffloadPolicy()))
        return read(), sum(parameter.nbytes for holder in shards._base._holders for parameter in holder.parameters())

    ((found, sharded),) = in_processes(work, tmp_path, n=1)
    whole = load_backbone(str(saved_family("qwen2_moe")), "nf4", "cpu").model
    packed = sum(tensor.nbytes for name, tensor in whole.named_buffers() if name.endswith(("packed", "scales")))
    assert 0 < packed < sharded
    for one, other in zip(found, states_and_gradients(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_whose_layers_are_not_known_is_refused(tmp_path: Path) -> None:
    def work() -> str:
        shards.LEAST_NUMBERS = 10**9  # as if no layer were one
        shards.ask_for(shards.Sharding(OffloadPolicy()))
        with pytest.raises(ModelError) as refused:
            load_backbone(str(STORIES), "none", "cpu")
        return refused.value.what

    (what,) = in_processes(work, tmp_path, n=1)
    assert "nothing of it can be sharded" in what
