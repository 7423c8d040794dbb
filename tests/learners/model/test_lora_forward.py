"""The forward of LoRA layers, beside PEFT's own: values, gradients, what is shared, and what a GPU is asked for."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.utils._python_dispatch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from learners.feedback.samples import Comparison, Scored, Target
from learners.model import lora_forward
from learners.model.batches import AnswerTokens, mask_of
from learners.model.forward import LMHead, causal_model
from learners.model.lora import AdaptedRows, load_lora, lora_parameters, lora_state, row_scaling
from learners.model.lora_forward import ADAPTER, INPUT, SameInput, in_dtype, refresh
from learners.model.replicas import replicate
from learners.model.shared_prompts import states_before, states_in_one_row
from learners.rlhf.distillation import Distill
from learners.rlhf.distributions import token_logprobs
from learners.rlhf.losses import clipped_policy_loss
from learners.rlhf.optimizer import Optimizer
from learners.rlhf.ppo import PPO
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.sft import SFT
from tests.learners.model.families import random_model, random_tree
from tests.learners.models import cpu_only, needs_stories, stirred, stories

pytestmark = cpu_only
PROMPTS, ANSWERS = [(5, 6, 7), (5, 6, 7), (8, 9)], [(10, 11, 12), (13,), (14, 15)]


def simple(tree: nn.Module) -> list[Any]:
    return [module for module in tree.modules() if INPUT in module.__dict__]


def by_peft(tree: nn.Module) -> nn.Module:
    """The same tree with PEFT's own forward."""
    for module in simple(tree):
        module.__class__ = type(module).__mro__[1]
    return tree


def learned(tree: nn.Module) -> tuple[Tensor, list[Tensor]]:
    tree.zero_grad()
    found = states_before(tree, PROMPTS, ANSWERS)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([found[i, : len(a)].flatten() for i, a in enumerate(ANSWERS)])
    (rows.sin() * torch.cat([weights[i, : len(a)].flatten() for i, a in enumerate(ANSWERS)])).sum().backward()
    return rows.detach(), [p.grad for p in tree.parameters() if p.grad is not None]


def compare(ours: nn.Module, theirs: nn.Module) -> None:
    (states, gradients), (expected, others) = learned(ours), learned(theirs)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    assert len(gradients) == len(others) > 0
    largest = max(float(other.abs().max()) for other in others)
    for one, other in zip(gradients, others, strict=True):
        assert float((one - other).abs().max()) < 1e-5 * max(1.0, largest)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2", "phi3"])
def test_states_and_gradients_are_those_of_peft(family: str) -> None:
    tree = random_tree(family)
    assert simple(tree)
    compare(tree, by_peft(replicate(tree)))


@needs_stories
@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_states_and_gradients_on_quantized_layers_are_those_of_peft(quantize: str) -> None:
    tree = stirred(stories(quantize))
    compare(tree, by_peft(replicate(tree, stories(quantize).model)))


def test_layers_of_one_input_share_a_product_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = random_tree("llama")
    attention: Any = next(module for module in tree.modules() if hasattr(module, "q_proj"))
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    one, other = torch.randn(2, 3, q.in_features), torch.randn(2, 3, q.in_features)
    products: list[Tensor] = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: products.append(addmm(*a, **k)) or products[-1])
    with torch.no_grad():
        alone = [by_peft_layer(layer, x) for layer, x in ((q, one), (k, other), (v, one))]
        products.clear()
        mixed = [q(one), k(other), v(one)]
        assert len(products) == 3
        products.clear()
        together = [q(one), k(one), v(one)]
        assert len(products) == 1 and products[0].shape == (6, 3 * 16)
    for found, expected in zip((*mixed, together[0], together[2]), (*alone, alone[0], alone[2]), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def by_peft_layer(layer: Any, x: Tensor) -> Tensor:
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return layer.base_layer(x) + layer.scaling[ADAPTER] * (x @ a.T) @ b.T


@pytest.mark.parametrize("family", ["llama", "opt", "qwen2_moe"])
def test_rows_that_come_first_with_the_adapter_are_as_with_factors_by_row(family: str) -> None:
    tree, prompts, answers = random_tree(family), [(5, 6), (7, 8), (5, 6), (7, 8)], [(9, 10)] * 4
    with torch.no_grad():
        with row_scaling(tree, torch.tensor([1.0, 1.0, 0.0, 0.0])):
            expected = states_in_one_row(tree, prompts, answers)
        with row_scaling(tree, AdaptedRows(2, 4)):
            found = states_in_one_row(tree, prompts, answers)
        plain = states_in_one_row(tree, prompts, answers)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:2], plain[:2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain[:2], plain[2:]) or not torch.allclose(found[:2], found[2:], atol=1e-3)


def test_a_copy_of_a_tree_shares_no_products_with_it() -> None:
    tree = random_tree("llama")
    copy = replicate(tree, random_model("llama"))
    for ours, theirs in zip(simple(tree), simple(copy), strict=True):
        same: SameInput = theirs.__dict__[INPUT]
        assert same is not ours.__dict__[INPUT] and theirs in same._layers and ours not in same._layers
    before, _ = learned(copy)
    load_lora(tree, {name: torch.zeros_like(value) for name, value in lora_state(tree).items()})
    assert torch.equal(learned(copy)[0], before)


def in_precision(tree: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose base is in this precision."""
    made = deepcopy(tree)
    for name, parameter in made.named_parameters():
        if ".lora_" not in name:
            parameter.data = parameter.data.to(dtype)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_captured_steps_read_stays_where_it_is_and_follows_every_change_of_the_weights(dtype: torch.dtype) -> None:
    tree = in_precision(random_tree("llama"), dtype)
    optimizer = Optimizer([p for p in tree.parameters() if p.requires_grad], 1e-2)
    learned(tree)  # makes them
    read = [(layer.__dict__[INPUT].a, in_dtype(layer.lora_B[ADAPTER].weight, dtype)) for layer in simple(tree)]
    before = [a.clone() for a, _ in read]
    optimizer.step()
    refresh(tree)
    follow(tree, read, dtype)
    assert not all(torch.equal(a, was) for (a, _), was in zip(read, before, strict=True))
    load_lora(tree, {name: value + 1.0 for name, value in lora_state(tree).items()})
    follow(tree, read, dtype)


class Copies(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what copies tensors into others, or into another precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        name = str(function).split(".")[1]
        self.found += [name] if name in ("_foreach_copy_", "copy_", "_to_copy", "cat") else []
        return function(*arguments, **(named or {}))


def optimizers(tree: nn.Module) -> list[Optimizer]:
    """Of all stages that train a tree."""
    backbone: Any = SimpleNamespace(width=32)
    ppo = PPO(tree, tree, Mock(), backbone=backbone)
    return [RewardModel(tree, 32).optimizer, SFT(tree, 32).optimizer, Distill(tree, Mock(), 32).optimizer, ppo._policy_optimizer]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_training_brings_all_copies_up_to_date_at_once_and_no_forward_after_it_does(dtype: torch.dtype) -> None:
    tree = in_precision(random_tree("llama"), dtype)
    x = torch.randn(2, 32, dtype=dtype)
    for optimizer in optimizers(tree):
        learned(tree)
        read = [(layer.__dict__[INPUT].a, in_dtype(layer.lora_B[ADAPTER].weight, dtype)) for layer in simple(tree)]
        before = [a.clone() for a, _ in read]
        with Copies() as step:
            optimizer.step()
        assert step.found.count("_foreach_copy_") == 1
        follow(tree, read, dtype)
        assert not all(torch.equal(a, was) for (a, _), was in zip(read, before, strict=True))
        with Copies() as forward, torch.no_grad():
            simple(tree)[0](x)
        assert not forward.found


def test_copies_are_not_made_by_who_brings_them_up_to_date_and_are_left_to_forwards_where_the_base_is_in_shards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = in_precision(random_tree("llama"), torch.bfloat16)
    with Copies() as none:
        refresh(tree)
    assert not none.found and all(layer.__dict__[INPUT].a is None for layer in simple(tree))
    learned(tree)
    load_lora(tree, {name: value + 1.0 for name, value in lora_state(tree).items()})
    expected, _ = learned(tree)
    monkeypatch.setattr(lora_forward, "sharded", lambda: True)
    load_lora(tree, {name: value - 1.0 for name, value in lora_state(tree).items()})
    with Copies() as none:
        load_lora(tree, {name: value + 1.0 for name, value in lora_state(tree).items()})
    assert "_foreach_copy_" not in none.found
    torch.testing.assert_close(learned(tree)[0], expected)


def follow(tree: nn.Module, read: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> None:
    for layer, (a, b) in zip(simple(tree), read, strict=True):
        same: SameInput = layer.__dict__[INPUT]
        assert same.a is a
        assert torch.equal(a, torch.cat([each.lora_A[ADAPTER].weight.detach().to(dtype) for each in same._layers]))
        assert torch.equal(b, layer.lora_B[ADAPTER].weight.detach().to(dtype))


def test_in_half_precision_gradients_are_float32_and_near_those_of_single_precision() -> None:
    tree = random_tree("llama")
    _, expected = learned(tree)
    _, found = learned(in_precision(tree, torch.bfloat16))
    ours, theirs = (torch.cat([g.flatten() for g in some]) for some in (found, expected))
    assert ours.dtype == torch.float32
    assert float(nn.functional.cosine_similarity(ours, theirs, 0)) > 0.99 and float(ours.norm() / theirs.norm()) == pytest.approx(1, abs=0.05)


class Waits(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what looks at a tensor's numbers, as for a mask's size or whether it is all ones: on a GPU each waits for all that came before."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += str(function).split(".")[1] in ("_local_scalar_dense", "nonzero", "masked_select", "equal")
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("prompts", [[(5, 6, 7), (5, 6, 8), (9,)], [(5, 6, 7), (5, 6, 8), (5, 6, 9)]])
def test_a_forward_of_training_waits_no_more_than_transformers_own_and_its_backward_never(prompts: list[tuple[int, ...]]) -> None:
    """Where answers do not share their prompts, as on a GPU unless those are long. transformers looks at the positions, once."""
    tree: Any = in_precision(random_tree("llama"), torch.bfloat16)
    head, tokens = LMHead(tree), AnswerTokens.of(ANSWERS)
    with Waits() as theirs, torch.no_grad():
        causal_model(tree)(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    with Waits() as forward:
        hidden = states_before(tree, prompts, ANSWERS)
    with Waits() as backward:
        logprobs = tokens.spread(token_logprobs(head, tokens.take(hidden), tokens.ids))
        clipped_policy_loss(logprobs, logprobs.detach(), torch.ones_like(logprobs), mask_of(ANSWERS), 0.2, 3).loss.backward()
    assert forward.count <= theirs.count and backward.count == 0
    assert all(p.grad is not None for p in lora_parameters(tree).values())


class MadeLate(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts tensors that are made of numbers on the host once the tree computes: on a GPU each waits for all that was launched before."""

    def __init__(self, tree: nn.Module) -> None:
        super().__init__()
        self.began, self.count = False, 0
        self._hook = causal_model(tree).model.embed_tokens.register_forward_hook(self._begin)

    def _begin(self, *_: object) -> None:
        self.began = True

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += self.began and function is torch.ops.aten.lift_fresh.default and arguments[0].numel() > 1
        return function(*arguments, **(named or {}))

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()
        super().__exit__(*error)


@pytest.mark.parametrize("prompts", [PROMPTS, [(5, 6, 7), (5, 6, 8), (9,)]])  # shared or not
def test_what_a_stage_knows_before_its_forward_is_on_the_device_by_then(prompts: list[tuple[int, ...]]) -> None:
    tree = random_tree("llama")
    items = [Comparison(prompts[0], tuple(ANSWERS), (1, 2, None)), Scored(prompts[2], ANSWERS[0], 0.5)]
    targets = [Target(prompt, answer) for prompt, answer in zip(prompts, ANSWERS, strict=True)]
    with torch.no_grad():
        wanted = LMHead(tree)(AnswerTokens.of(ANSWERS).take(states_before(tree, prompts, ANSWERS)))
    reward, sft, distill = RewardModel(tree, 32), SFT(tree, 32), Distill(tree, lambda *_: lambda rows: wanted[rows], 32)
    for work in (
        lambda: states_before(tree, prompts, ANSWERS),
        lambda: reward._backward(items, 2),
        lambda: sft._loss(targets, [1.0] * sum(map(len, ANSWERS)), 1.0),
        lambda: distill._loss(prompts, ANSWERS),
    ):
        with MadeLate(tree) as late:
            work()
        assert late.began and late.count == 0


def test_a_product_in_single_precision_is_asked_for_where_a_gpu_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_forward, "_gives_float32", lambda device: True)
    with FakeTensorMode():
        first, second = (torch.empty(shape, dtype=torch.bfloat16, device="cuda") for shape in ((4, 3), (3, 5)))
        found = lora_forward._product(first, second, torch.float32)
        assert (found.dtype, found.device.type, tuple(found.shape)) == (torch.float32, "cuda", (4, 5))
