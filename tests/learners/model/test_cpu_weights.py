"""Copies of weights for a CPU: what they stand for, and where they are used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from learners.model import cpu_weights
from learners.model.cpu_weights import COPY, Linear16, copied_bytes, drawing, speed_up_on_cpu
from learners.model.forward import forward
from tests.learners.models import cpu_only, needs_stories, stories

pytestmark = cpu_only
needs_float16 = pytest.mark.skipif(not cpu_weights._has_float16_products(), reason="this build of torch has no FBGEMM")


def model_of(weight: torch.Tensor) -> nn.Module:
    model = nn.Sequential(nn.Linear(48, 80), nn.Linear(80, 24, bias=False)).requires_grad_(False)
    for layer in model:
        layer.weight.copy_(weight[: layer.weight.shape[0], : layer.weight.shape[1]])
    return model


@needs_float16
@pytest.mark.parametrize("rows", [1, 4, 50])
def test_weights_that_float16_holds_give_the_same_products_in_drawing(rows: int) -> None:
    weight = torch.randn(80, 80, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    model, x = model_of(weight), torch.randn(rows, 1, 48)
    expected = (model[1].weight.double() @ (model[0].weight.double() @ x.double().mT + model[0].bias.double()[:, None])).mT
    plain = model(x)
    speed_up_on_cpu(model)
    assert all(type(layer) is Linear16 for layer in model)
    assert copied_bytes(model) == 2 * (80 * 48 + 24 * 80)
    assert torch.equal(model(x), plain)  # what trains computes as before
    with drawing():
        torch.testing.assert_close(model(x).double(), expected, atol=2e-4, rtol=1e-5)
    assert torch.equal(model(x), plain)


@needs_float16
def test_weights_that_float16_does_not_hold_are_left_alone() -> None:
    for weight in (torch.randn(80, 80), torch.full((80, 80), 1e6)):
        model = model_of(weight)
        speed_up_on_cpu(model)
        assert copied_bytes(model) == 0 and type(model[0]) is nn.Linear


@needs_float16
def test_one_weight_far_down_that_float16_does_not_hold_leaves_its_layer_alone() -> None:
    weight = torch.ones(80, 80)
    weight[70, 3] = 1 + 2**-12
    model, x = model_of(weight), torch.randn(4, 48)
    plain = model(x)
    speed_up_on_cpu(model)
    with drawing():
        torch.testing.assert_close(model(x), plain)
        assert copied_bytes(model) == 2 * 24 * 80  # the second layer, which takes fewer rows
        assert torch.equal(model[0](x), nn.functional.linear(x, model[0].weight, model[0].bias))


@needs_float16
def test_nothing_is_copied_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_weights, "available_memory", lambda: 4.0 * 2 * (80 * 48 + 24 * 80) - 1)
    model = model_of(torch.ones(80, 80))
    speed_up_on_cpu(model)
    assert copied_bytes(model) == 0


@needs_stories
def test_unpacked_4_bit_weights_are_the_numbers_that_they_stand_for_in_both_directions() -> None:
    import bitsandbytes as bnb

    layers = [m for m in stories("nf4").model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert layers and all(COPY in layer.weight.__dict__ for layer in layers)
    for layer in layers[:7]:
        x = torch.randn(3, layer.in_features, requires_grad=True)
        found, expected = layer(x), bnb.nn.Linear4bit.forward(layer, x)
        assert torch.equal(found, expected)
        (a,), (b,) = (torch.autograd.grad(y.square().sum(), x) for y in (found, expected))
        torch.testing.assert_close(a, b)


@needs_float16
@needs_stories
def test_what_4_bits_stand_for_is_drawn_with_as_float16_rounds_it() -> None:
    backbone = stories("nf4")
    layers: list[Any] = [m for m in backbone.model.modules() if type(m).__name__ == "UnpackedLinear4bit"]
    assert copied_bytes(backbone.model) >= 6 * sum(layer.in_features * layer.out_features for layer in layers)
    for layer in layers[:7]:
        x = torch.randn(3, layer.in_features)
        with drawing():
            found = layer(x)
        rounded = layer.weight.__dict__[COPY].half().double()
        torch.testing.assert_close(found.double(), x.double() @ rounded.T, atol=2e-5, rtol=1e-5)
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight.__dict__[COPY]))  # what trains computes with all of it
    ids = torch.randint(3, backbone.vocabulary, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = forward(backbone.model, ids).logits.log_softmax(-1)
        with drawing():
            drawn = forward(backbone.model, ids).logits.log_softmax(-1)
    assert 0 < float((drawn.exp() * (drawn - exact)).sum(-1).mean()) < 1e-5
