"""Trees over one base: nothing is copied, nothing is disturbed, and gradients are right."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from learners.model.base import Backbone
from learners.model.forward import forward
from learners.model.lora import LoraSettings, copy_lora, draw_in, load_lora, lora_parameters, lora_state, row_scaling, set_row_scaling
from learners.model.replicas import _dequantized, between_layers, distinct_bytes, freeze, replicate, watch_head
from learners.model.sampling import Row, decode
from storage.records import Sampling
from tests.learners.model.families import FAMILIES, Family, _random, random_tree, with_adapter
from tests.learners.models import DEVICE, QUANTIZED, needs_gpt2, needs_stories, prompt, random_gpt2, stirred, stories, tensor

ANSWER = Sampling(1.0, 24)


def gradients(backbone: Backbone, tree: nn.Module) -> dict[str, Tensor]:
    """Of the mean log-probability of a fixed text, for every LoRA weight."""
    ids = tensor([[*prompt(backbone), *backbone.encode_completion(" and the dog ran to the park with his mom.")]])
    logits = forward(tree, ids).logits[0, :-1]
    logits.log_softmax(-1).gather(1, ids[0, 1:, None]).mean().backward()
    found = {name: p.grad.clone() for name, p in lora_parameters(tree).items() if p.grad is not None}
    tree.zero_grad()
    return found


def answers(backbone: Backbone, tree: nn.Module, twin: bool = True) -> list[tuple[object, ...]]:
    rows = [Row(str(i), prompt(backbone), i) for i in range(4)]
    steps = decode(tree, rows, ANSWER, backbone.eos_ids, backbone.pad_id, twin=twin)
    return [(step.uids, tuple(step.ids), tuple(step.logprobs), tuple(step.kl)) for step in steps]


@needs_stories
@pytest.mark.parametrize("quantize", QUANTIZED)
def test_four_roles_cost_no_more_than_their_adapters(quantize: str) -> None:
    backbone = stories(quantize)
    roles = [backbone.adapter_tree(seed=i) for i in range(4)]
    adapters = sum(p.numel() * p.element_size() for tree in roles for p in lora_parameters(tree).values())
    for tree in roles:
        with torch.no_grad():
            forward(tree, tensor([prompt(backbone)]))
    extra = distinct_bytes(backbone.model, *roles) - distinct_bytes(backbone.model)
    assert adapters <= extra <= 1.05 * adapters
    assert backbone.memory(*roles) == backbone.memory() + extra


@needs_stories
@pytest.mark.parametrize("quantize", QUANTIZED)
def test_replicas_share_every_tensor_and_compute_the_same(quantize: str) -> None:
    backbone = stories(quantize)
    tree = replicate(backbone.model)
    assert distinct_bytes(backbone.model, tree, backbone.tree()) == distinct_bytes(backbone.model)
    ids = tensor([prompt(backbone)])
    with torch.no_grad():
        first = forward(backbone.model, ids)
        for other in (tree, backbone.tree(), backbone.adapter_tree(seed=3)):
            output = forward(other, ids)
            assert torch.equal(output.logits, first.logits) and torch.equal(output.hidden, first.hidden)


@needs_stories
def test_quantization_makes_the_base_smaller() -> None:
    linear = sum(m.weight.numel() for m in stories().model.modules() if isinstance(m, nn.Linear)) - 512 * 64  # the head is not quantized
    whole = distinct_bytes(stories().model)
    assert whole - distinct_bytes(stories("int8").model) == pytest.approx(3 * linear, rel=0.05)
    assert whole - distinct_bytes(stories("nf4").model) == pytest.approx(3.48 * linear, rel=0.05)


@needs_stories
@pytest.mark.parametrize("quantize", QUANTIZED)
def test_gradients_are_the_same_before_and_after_an_actor_decodes_and_point_where_a_float_model_points(quantize: str) -> None:
    backbone = stories(quantize)
    policy, actor = stirred(backbone), backbone.adapter_tree()
    before = gradients(backbone, policy)
    answers(backbone, actor)
    answers(backbone, policy)
    after = gradients(backbone, policy)
    assert before.keys() == after.keys() == lora_parameters(policy).keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    plain = _float_copy(backbone)
    reference = gradients(backbone, plain)
    for name, gradient in before.items():
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), reference[name].flatten(), 0)
        assert cosine > 0.999, name


def _float_copy(backbone: Backbone) -> nn.Module:
    """The same adapter over a float model whose weights are the dequantized ones."""
    import bitsandbytes as bnb

    plain = stirred(stories("none"))
    sources = dict(stirred(backbone).named_modules())
    for name, module in plain.named_modules():
        source = sources[name]
        if isinstance(source, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(source.weight.data, source.weight.quant_state)
        elif isinstance(source, bnb.nn.Linear8bitLt):
            weight = source.state.CB.double() * source.state.SCB.double()[:, None] / 127
        else:
            continue
        module.weight = nn.Parameter(weight.float(), requires_grad=False)  # this tree's only: the base keeps its own
    return plain


@needs_stories
@pytest.mark.parametrize("quantize", QUANTIZED)
def test_a_forward_computes_the_same_with_and_without_gradients(quantize: str) -> None:
    backbone = stories(quantize)
    tree = stirred(backbone)
    ids = tensor([prompt(backbone)])
    with torch.no_grad():
        without = forward(tree, ids).logits
    torch.testing.assert_close(forward(tree, ids).logits, without, atol=1e-4, rtol=1e-4)


@needs_stories
@pytest.mark.parametrize("quantize", QUANTIZED)
def test_an_actor_draws_and_a_policy_trains_at_once_and_neither_notices_the_other(quantize: str) -> None:
    torch.set_num_threads(1)
    backbone = stories(quantize)
    actor = stirred(backbone, seed=1)
    quiet = answers(backbone, actor)
    alone = _train(backbone, stirred(backbone), steps=12)

    together: list[dict[str, Tensor]] = []
    training = threading.Thread(target=lambda: together.append(_train(backbone, stirred(backbone), steps=12)))
    training.start()
    drawn = [answers(backbone, actor)]
    while training.is_alive():
        drawn.append(answers(backbone, actor))
    training.join()
    assert all(noisy == quiet for noisy in drawn)
    assert all(torch.equal(together[0][name], alone[name]) for name in alone)


def _train(backbone: Backbone, tree: nn.Module, steps: int) -> dict[str, Tensor]:
    parameters = lora_parameters(tree)
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-2)
    for _ in range(steps):
        for name, gradient in gradients(backbone, tree).items():
            parameters[name].grad = -gradient
        optimizer.step()
    return lora_state(tree)


@needs_stories
def test_only_the_adapter_learns_and_it_covers_every_linear_layer_but_the_head() -> None:
    tree = stories().adapter_tree(LoraSettings(rank=4, alpha=8.0))
    learning = {name for name, p in tree.named_parameters() if p.requires_grad}
    assert len(learning) == len(lora_parameters(tree)) == 5 * 7 * 2
    assert all(p.dtype == torch.float32 for p in lora_parameters(tree).values())
    assert not any("lm_head" in name for name in learning)


@needs_stories
def test_an_adapter_is_drawn_from_its_seed_and_leaves_the_global_generator_alone() -> None:
    backbone = stories()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = lora_state(backbone.adapter_tree(seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again, other = lora_state(backbone.adapter_tree(seed=1)), lora_state(backbone.adapter_tree(seed=2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(not weights.any() for name, weights in first.items() if "lora_B" in name)


@needs_stories
def test_publishing_makes_the_target_compute_what_the_source_computes() -> None:
    backbone = stories()
    source, target = stirred(backbone), backbone.adapter_tree()
    ids = tensor([prompt(backbone)])
    copy_lora(source, target)
    with torch.no_grad():
        assert torch.equal(forward(source, ids).logits, forward(target, ids).logits)
        load_lora(target, None)
        assert torch.equal(forward(target, ids).logits, forward(backbone.model, ids).logits)


@needs_stories
def test_weights_of_another_rank_are_refused() -> None:
    backbone = stories()
    with pytest.raises(ValueError, match="rank"):
        load_lora(backbone.adapter_tree(), lora_state(backbone.adapter_tree(LoraSettings(rank=4))))


@pytest.mark.parametrize("load", [pytest.param(stories, marks=needs_stories), pytest.param(random_gpt2, marks=needs_gpt2)])
def test_rows_scaled_to_nothing_are_rows_of_the_base(load: object) -> None:
    backbone = load()  # type: ignore[operator]
    tree = stirred(backbone)
    ids = tensor([prompt(backbone)]).repeat(2, 1)
    with torch.no_grad():
        adapted, base = forward(tree, ids).logits, forward(backbone.model, ids).logits
        set_row_scaling(tree, tensor([1.0, 0.0]))
        mixed = forward(tree, ids).logits
        set_row_scaling(tree, None)
        assert torch.equal(forward(tree, ids).logits, adapted)
    torch.testing.assert_close(mixed[0], adapted[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], base[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(adapted[1], base[1], atol=1e-2)


@needs_stories
def test_no_forward_moves_a_bit_of_the_base() -> None:
    backbone = stories("nf4")
    before = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    tree = stirred(backbone)
    gradients(backbone, tree)
    answers(backbone, tree)
    assert all(torch.equal(p, before[name]) for name, p in backbone.model.named_parameters())


def test_a_long_text_in_one_tree_turns_no_position_in_another() -> None:
    """Of Phi-3 with 128,000 positions: transformers writes into a buffer by how long the text is that is read."""
    scaling = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64, "factor": 2.0,
               "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}  # fmt: skip
    model = _random(
        Family("phi3", FAMILIES["phi3"].sizes | {"sliding_window": None, "rope_parameters": scaling, "original_max_position_embeddings": 64})
    ).to(DEVICE)
    freeze(model)
    watch_head(model)
    first = with_adapter(model)
    trees = [model, replicate(model), first, replicate(first, model)]
    for reads in trees:
        for tree in trees:
            forward(tree, tensor([[1, 2, 3]]))
        others = [{name: each.clone() for name, each in tree.named_buffers()} for tree in trees]
        forward(reads, tensor([list(range(100))]))
        for tree, before in zip(trees, others, strict=True):
            same = all(torch.equal(each, before[name]) for name, each in tree.named_buffers())
            assert same is (tree is not reads)


@needs_stories
def test_four_bit_layers_never_repack_their_weights() -> None:
    trees = (stories("nf4").model, stories("nf4").tree(), stories("nf4").adapter_tree())
    flags = [m.support_avx512bf16_for_cpu for tree in trees for m in tree.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    assert len(flags) == 3 * 35 and not any(flags)


@needs_stories
def test_others_get_their_turn_between_layers_forward_and_backward_and_nothing_is_computed_otherwise() -> None:
    backbone, calls = stories(), []
    tree, plain = backbone.adapter_tree(seed=3), backbone.adapter_tree(seed=3)
    between_layers(tree, lambda: calls.append(torch.is_grad_enabled()))
    with torch.no_grad():
        forward(tree, tensor([prompt(backbone)]))
    assert calls == [False] * backbone.layers
    calls.clear()
    found, wanted = gradients(backbone, tree), gradients(backbone, plain)
    assert len(calls) >= 2 * backbone.layers - 1
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


class Made(TorchDispatchMode):
    """Every tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.found.append(function(*arguments, **(named or {})))
        return self.found[-1]


def test_eight_bit_weights_are_rounded_once_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, scale = torch.randint(-127, 128, (16, 40), dtype=torch.int8, generator=generator), torch.rand(16, generator=generator) + 0.1
    exact = weight.double() * scale.double()[:, None] / 127
    with Made() as made:
        found = _dequantized(weight, scale, torch.bfloat16)
    assert torch.equal(found, exact.to(torch.bfloat16)) and not [each for each in made.found if each.dtype == torch.float32 and each.numel() > 16]
    for dtype in (torch.float32, torch.float16, torch.float64):
        assert torch.equal(_dequantized(weight, scale, dtype), torch.mul(weight, (scale / 127.0)[:, None]).to(dtype))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen2_moe"])
def test_an_adapter_in_the_dtype_of_its_base_draws_what_one_in_float32_does_up_to_rounding(family: str) -> None:
    half, whole = (random_tree(family).to(torch.bfloat16) for _ in range(2))
    draw_in(whole, torch.float32)
    ids = tensor([list(range(2, 14))] * 2)
    with torch.no_grad():
        for _ in range(2):  # the first forward finds out which layers see rows
            (drawn, base), (expected, _) = (rows_with_and_without(tree, ids) for tree in (half, whole))
    assert float((drawn - expected).abs().mean()) < 0.1 * float((expected - base).abs().mean())


def rows_with_and_without(tree: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a row with the adapter and of one of the base, in one forward."""
    with row_scaling(tree, tensor([1.0, 0.0])):
        return forward(tree, ids).logits.log_softmax(-1)
