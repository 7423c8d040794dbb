"""What makes a base take fewer kernels on a GPU, on the CPU, where it computes the same."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.autograd.graph import increment_version

from learners.model.cpu_weights import COPY, copied_bytes, drawing
from learners.model.gpu_weights import fuse_norms, unpack_for_training
from learners.model.lora import LoraSettings, adapter_tree, lora_parameters
from learners.model.lora_forward import in_dtype
from learners.model.shared_prompts import states_before
from tests.learners.model.families import random_model
from tests.learners.models import cpu_only, needs_stories, stories

pytestmark = cpu_only
PROMPTS, ANSWERS = [(5, 6, 7), (5, 6, 7), (8, 9)], [(10, 11, 12), (13,), (14, 15)]


def fused(model: torch.nn.Module) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__.startswith("Fused")]


@pytest.mark.parametrize(("family", "some"), [("llama", True), ("qwen3", True), ("gemma2", False), ("gpt2", False)])
def test_norms_are_fused_where_they_are_what_torch_computes(family: str, some: bool) -> None:
    """Gemma's add one to the weight."""
    model = deepcopy(random_model(family))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    before = states_before(model, PROMPTS, ANSWERS).detach()
    fuse_norms(model)
    assert bool(fused(model)) == some
    torch.testing.assert_close(states_before(model, PROMPTS, ANSWERS).detach(), before, atol=1e-4, rtol=1e-4)


class GatedRMSNorm(torch.nn.RMSNorm):
    def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) if gate is None else super().forward(x) * gate


def test_a_norm_that_may_be_given_more_than_states_is_left_alone() -> None:
    model = torch.nn.Sequential(torch.nn.RMSNorm(8, eps=1e-6), GatedRMSNorm(8, eps=1e-6)).requires_grad_(False)
    fuse_norms(model)
    assert [type(module).__name__ for module in model] == ["FusedRMSNorm", "GatedRMSNorm"]


@needs_stories
def test_copies_of_4_bit_weights_train_what_the_packed_ones_train_and_draw_many_tokens_alone() -> None:
    model = _packed(stories("nf4").model)
    packed, gradients = _trained(model)
    unpack_for_training(model, 1.0)
    assert copied_bytes(model) == 0, "they do not fit"
    unpack_for_training(model, 1e9)
    assert copied_bytes(model) > 0
    unpacked, others = _trained(model)
    torch.testing.assert_close(unpacked, packed, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(others, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    layer: Any = next(module for module in model.modules() if COPY in getattr(getattr(module, "weight", None), "__dict__", {}))
    x = torch.randn(4, 1, layer.in_features)
    trained = layer(x)
    layer.weight.__dict__[COPY] = layer.weight.__dict__[COPY] * 2
    with drawing():
        torch.testing.assert_close(layer(x), trained, atol=1e-5, rtol=1e-4)
        more = layer(torch.cat([x, x]))
    torch.testing.assert_close(more, torch.cat([2 * trained, 2 * trained]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer(x), 2 * trained, atol=1e-5, rtol=1e-4)


def _packed(model: Any) -> Any:
    """A copy as it is before a CPU's own copies were made."""
    from bitsandbytes.nn import Linear4bit

    from learners.model.replicas import replicate

    tree: Any = replicate(model)
    for module in tree.modules():
        if isinstance(module, Linear4bit):
            module.__class__ = Linear4bit
            module._parameters["weight"] = _again(module.weight)
    return tree


def _again(weight: Any) -> Any:
    from bitsandbytes.nn import Params4bit

    return Params4bit(weight.data.clone(), requires_grad=False, quant_state=weight.quant_state, bnb_quantized=True)


def _trained(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    tree = adapter_tree(model, LoraSettings(), 0)
    for name, parameter in lora_parameters(tree).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    found = states_before(tree, PROMPTS, ANSWERS)
    found[0].tanh().sum().backward()
    return found.detach(), [p.grad for p in tree.parameters() if p.grad is not None]


def test_a_copy_in_another_dtype_is_made_anew_when_its_weight_has_changed_and_stays_where_it_is() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 4))
    copy = in_dtype(weight, torch.bfloat16)
    with torch.no_grad():
        weight.add_(1.0)
    assert in_dtype(weight, torch.bfloat16) is copy and torch.equal(copy, weight.detach().bfloat16())
    weight.data.add_(1.0)  # nobody is told
    increment_version(weight)
    assert torch.equal(in_dtype(weight, torch.bfloat16), weight.detach().bfloat16())
