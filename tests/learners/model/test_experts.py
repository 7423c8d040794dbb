"""Experts in 4 bit: against a model that keeps the same weights unpacked, bit by bit, and in bytes."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from learners.model.experts import FourBitExperts, _UnpacksAgain
from learners.model.forward import forward
from learners.model.loading import load_backbone
from learners.model.lora import lora_parameters
from tests.learners.model.families import saved_family
from tests.learners.models import DEVICE, stirred, tensor

IDS = tensor([[3, 5, 8, 13, 21, 34, 50, 60]])
MIXTURES = ("mixtral", "qwen3_5_moe", "deepseek_v3", "gpt_oss", "granite_hybrid")


def unpacked(tree: nn.Module) -> int:
    """Put every expert's weights in the place of what they were packed to, with the family's own forward; how many there were."""
    count = 0
    for module in list(tree.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FourBitExperts):
                weights = torch.stack([child[i] for i in range(len(child.packed))])
                del module._modules[name]
                module.register_parameter(name, nn.Parameter(weights, requires_grad=False))
                count += weights.numel()
        if isinstance(module, _UnpacksAgain):
            module.__class__ = type(module).__mro__[2]  # type: ignore[assignment]
    return count


def computed(tree: nn.Module) -> tuple[Tensor, list[Tensor]]:
    logits = forward(tree, IDS).logits
    logits.log_softmax(-1)[..., 5].sum().backward()
    return logits.detach(), [p.grad for p in lora_parameters(tree).values() if p.grad is not None]


@pytest.mark.parametrize("family", MIXTURES)
def test_packed_experts_compute_and_lead_gradients_as_unpacked_ones_do(family: str) -> None:
    backbone = load_backbone(str(saved_family(family)), "nf4", DEVICE)
    packed, plain = stirred(backbone), stirred(backbone)
    weights = unpacked(plain)
    assert weights == sum(
        p.numel() for p in load_backbone(str(saved_family(family)), "none", DEVICE).model.parameters() if p.dim() == 3 and p.shape[0] == 4
    )
    (logits, gradients), (expected, theirs) = computed(packed), computed(plain)
    assert torch.equal(logits, expected) and len(gradients) == len(theirs) > 0
    assert all(torch.equal(one, other) for one, other in zip(gradients, theirs, strict=True))


def test_no_unpacked_expert_waits_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = stirred(load_backbone(str(saved_family("mixtral")), "nf4", DEVICE))
    index, seen = FourBitExperts.__getitem__, []

    def noted(weights: FourBitExperts, expert: Tensor) -> Tensor:
        weight = index(weights, expert)
        seen.append(weakref.ref(weight))
        return weight

    monkeypatch.setattr(FourBitExperts, "__getitem__", noted)
    logits = forward(tree, IDS).logits
    assert seen and not [one for one in seen if one() is not None]
    for module in tree.modules():
        if isinstance(module, _UnpacksAgain):
            module.__class__ = type(module).__mro__[2]  # type: ignore[assignment]
    logits = forward(tree, IDS).logits
    assert [one for one in seen if one() is not None] and logits.requires_grad, "the family's own forward keeps them"


def test_trees_share_packed_experts_and_these_take_a_little_more_than_half_a_byte_a_weight() -> None:
    backbone, plain = (load_backbone(str(saved_family("mixtral")), quantize, "cpu") for quantize in ("nf4", "none"))
    assert backbone.memory(backbone.tree()) == backbone.memory()
    experts = [m for m in backbone.model.modules() if isinstance(m, FourBitExperts)]
    weights = sum(2 * m.packed.numel() for m in experts)
    assert weights == sum(p.numel() for p in plain.model.parameters() if p.dim() == 3)
    assert sum(m.packed.nbytes + m.scales.nbytes for m in experts) == weights * (1 / 2 + 4 / 64)
