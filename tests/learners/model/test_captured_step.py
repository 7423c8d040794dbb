"""A step as it is captured on a GPU, in bfloat16, over fake tensors of a device that is not here: it waits for no number, and mixes neither devices
nor precisions. Fake tensors have no numbers, so whatever asks for one fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from learners.human_reward.features import Features
from learners.human_reward.fixed_bias import FixedHeads
from learners.human_reward.head import RewardHead
from learners.human_reward.logit_bias import LogitBias
from learners.model import cuda_graph, memory
from learners.model.eager_rows import EagerRows
from learners.model.gpu_weights import fuse_norms
from learners.model.lora import LoraSettings, adapter_tree, draw_in
from learners.model.replicas import freeze, watch_head
from learners.model.rows import Row
from learners.model.static_decoder import Buffers, Shape
from storage.records import Sampling
from tests.learners.model.families import FAMILIES, VOCABULARY, Family, _random
from tests.learners.models import cpu_only

pytestmark = cpu_only  # a real device tells by itself
GPU = torch.device("lazy", 0)
"""Any device will do that is no CPU; of this one every build of torch can index fake tensors."""
MACHINE = FakeTensorMode(allow_non_fake_inputs=True)
"""That has it. What lies on the CPU is taken for what it is."""
STEERED = ("llama", "gpt_oss")


def base_of(family: Family) -> nn.Module:
    model = _random(family).to(torch.bfloat16)
    fuse_norms(model)
    freeze(model)
    watch_head(model)
    return model


def sizes_of(model: nn.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Heads and width of each layer's keys, and of its values."""
    rows = EagerRows(model, [Row("a", (1, 2, 3), 0)], Sampling(1.0, 4), 0, False)
    rows.append(rows.draw().ids)
    state = rows.state()
    assert state is not None
    return [((k.shape[1], k.shape[3]), (v.shape[1], v.shape[3])) for k, v in state.keys_values]


@contextmanager
def elsewhere(tree: nn.Module) -> Iterator[None]:
    """All that the tree holds lies on the other device while the block runs."""
    here: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    with MACHINE:
        for module in tree.modules():
            for held in (module._parameters, module._buffers):
                here += [(held, name, each) for name, each in held.items() if each is not None]  # type: ignore[arg-type]
        for held, name, each in here:
            there = torch.empty(each.shape, dtype=each.dtype, device=GPU)
            held[name] = nn.Parameter(there, requires_grad=each.requires_grad) if isinstance(each, nn.Parameter) else there
        try:
            yield
        finally:
            for held, name, each in here:
                held[name] = each


def steering() -> LogitBias:
    features = Features(torch.zeros(32, device=GPU), torch.zeros(32, 8, device=GPU), 0.5)
    head = RewardHead(1, torch.zeros(3, dtype=torch.int64, device=GPU), torch.zeros(3, 9, device=GPU), features, 0.2)
    return LogitBias(head, 0.7)


def step(tree: nn.Module, sizes: list[tuple[tuple[int, int], tuple[int, int]]], shape: Shape) -> None:
    with elsewhere(tree):
        like = [tuple(torch.empty(1, heads, 1, width, dtype=torch.bfloat16, device=GPU) for heads, width in both) for both in sizes]
        buffers = Buffers(tree, shape, like, FixedHeads(steering(), GPU) if shape.steered else None)  # type: ignore[arg-type]
        for _ in range(2):
            outputs = buffers._step()
        assert {each.device for each in (*outputs, buffers.columns)} == {GPU} and len(outputs) == 3 + (shape.contexts > 0)
        assert {each.shape for each in outputs[1:]} == {(4, VOCABULARY)}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2", "opt", "granite", "cohere", "qwen2_moe", "gpt_oss", "deepseek_v3"])
def test_a_step_that_is_captured_asks_for_no_number(family: str) -> None:
    model = base_of(FAMILIES[family])
    sizes = sizes_of(model)
    step(model, sizes, Shape(4, False, 256, 64, family in STEERED, False))
    draws, learns = (adapter_tree(model, LoraSettings(), 0) for _ in range(2))
    draw_in(draws, torch.bfloat16)
    for tree in (draws, learns):
        step(tree, sizes, Shape(4, True, 256, 64, family in STEERED, mixed=False))
        step(tree, sizes, Shape(4, True, 256, 64, False, mixed=True, candidates=VOCABULARY))  # truncated
        step(tree, sizes, Shape(4, False, 256, 64, False, mixed=True, candidates=20))
        step(tree, sizes, Shape(4, True, 256, 64, family in STEERED, mixed=False, contexts=2))  # with critiques


def test_a_step_that_asks_for_one_is_found_out() -> None:
    """Rotations that grow with the text: these are drawn by ordinary forwards."""
    family = FAMILIES["llama"]
    model = base_of(Family(family.type, family.sizes | {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}))
    with pytest.raises(DataDependentOutputException):
        step(model, sizes_of(model), Shape(4, False, 256, 64, False, False))


def test_each_thread_captures_on_one_stream_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cuBLAS keeps for a stream is never given back."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: object())
    found: list[object] = []

    def capture_twice() -> None:
        found.extend(cuda_graph._capturing_stream(GPU, -1) for _ in range(2))

    capture_twice()
    thread = threading.Thread(target=capture_twice)
    thread.start()
    thread.join()
    assert found[0] is found[1] and found[2] is found[3] and found[0] is not found[2]
    assert cuda_graph._capturing_stream(GPU, 0) is not found[0]


class Stream:
    priority = 0

    def __init__(self) -> None:
        self.waited_for: list[object] = []

    def wait_stream(self, other: object) -> None:
        self.waited_for.append(other)


def test_a_warm_up_that_fails_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, capturing = Stream(), Stream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ours)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(cuda_graph, "_capturing_stream", lambda device, priority: capturing)

    def fails() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        cuda_graph.capture(fails, lambda: None, [torch.zeros(1)])
    assert ours.waited_for == [capturing] and capturing.waited_for == [ours]


def test_memory_is_not_given_back_while_another_thread_is_within_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    within, given_back, capturing = threading.Event(), threading.Event(), list[bool]()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", given_back.set)
    monkeypatch.setattr(cuda_graph, "_captured", lambda step, restore, device: step())

    def step() -> None:
        within.set()
        capturing.append(given_back.wait(0.2))

    thread = threading.Thread(target=cuda_graph.capture, args=(step, lambda: None, [torch.zeros(1)]))
    thread.start()
    within.wait(10)
    memory.free_memory()
    thread.join(10)
    assert capturing == [False] and given_back.is_set()
