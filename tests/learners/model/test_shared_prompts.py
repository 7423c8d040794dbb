"""Answers that share the computation of their prompt, against prompt and answer in one row: states, losses, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from learners.model.forward import causal_model
from learners.model.memory import MemoryBudget
from learners.model.shared_prompts import states_after, states_before, states_in_one_row
from tests.learners.model.families import MECHANICS, random_tree
from tests.learners.models import needs_stories, prompt, stirred, stories, tensor

PROMPTS = [(5, 6, 7, 8, 9, 10, 11, 12, 13, 14), (20, 21), (5, 6, 7, 8, 9, 10, 11, 12, 13, 14), (20, 21), (30, 31, 32), (20, 21)]
ANSWERS = [(40, 41, 42), (50,), (43, 44, 45, 46, 47), (), (51, 52), (53, 54, 55, 56)]
MASK = tensor([[i < len(answer) for i in range(5)] for answer in ANSWERS])


def gradients(tree: nn.Module, hidden: Tensor) -> list[Tensor]:
    """Of a function of all states that is not symmetric in anything."""
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1)).to(hidden.device)
    tree.zero_grad()
    (hidden.tanh() * weights * MASK[..., None]).sum().backward()
    return [p.grad.clone() for p in tree.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", MECHANICS)
@pytest.mark.parametrize("after", [False, True])
def test_states_and_gradients_are_those_of_one_row(family: str, after: bool) -> None:
    tree = random_tree(family)
    in_one_row = states_in_one_row(tree, PROMPTS, ANSWERS)
    wanted = in_one_row[:, 1:] if after else in_one_row[:, :-1]
    found = (states_after if after else states_before)(tree, PROMPTS, ANSWERS)
    scale = float(wanted.detach()[MASK].abs().max())
    assert float((found - wanted).detach()[MASK].abs().max()) < 1e-5 * max(1.0, scale)
    ours, theirs = gradients(tree, found), gradients(tree, wanted)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert float((one - other).abs().max()) < 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("family", MECHANICS)
@pytest.mark.parametrize("after", [False, True])
def test_layers_that_are_computed_again_give_the_same_states_and_gradients(family: str, after: bool) -> None:
    """Also of prompts in one row with their answers, which some families need."""
    tree = random_tree(family)
    never, always = (replace(MemoryBudget.of_tree(tree), allowance=allowance) for allowance in (1e12, 0.0))
    read = states_after if after else states_before
    for prompts in (PROMPTS, [(*p, i) for i, p in enumerate(PROMPTS)]):
        kept, again = read(tree, prompts, ANSWERS, never), read(tree, prompts, ANSWERS, always)
        assert torch.equal(kept, again)
        for one, other in zip(gradients(tree, kept), gradients(tree, again), strict=True):
            assert float((one - other).abs().max()) < 1e-5 * max(1.0, float(other.abs().max()))


@needs_stories
@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
def test_quantized_trees_share_prompts_too(quantize: str) -> None:
    tree, backbone = stirred(stories(quantize)), stories(quantize)
    prompts = [prompt(backbone), prompt(backbone, "There was a cat"), prompt(backbone), prompt(backbone, "There was a cat"), prompt(backbone), (7,)]
    wanted, found = states_in_one_row(tree, prompts, ANSWERS)[:, :-1], states_before(tree, prompts, ANSWERS)
    assert torch.allclose(found[MASK], wanted[MASK], atol=1e-4)
    for one, other in zip(gradients(tree, found), gradients(tree, wanted), strict=True):
        assert float((one - other).abs().max()) < 1e-4 * max(1.0, float(other.abs().max()))


def test_each_prompt_is_computed_once() -> None:
    tree, seen = random_tree("llama"), []
    hook = causal_model(tree).model.embed_tokens.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape)))
    states_after(tree, [PROMPTS[0]] * 4, [ANSWERS[2]] * 4)
    assert seen == [(1, 10), (4, 5)]
    seen.clear()
    states_before(tree, [PROMPTS[0]] * 4, [ANSWERS[2]] * 4)
    assert seen == [(1, 10), (4, 4)], "nothing comes after the last token"
    hook.remove()


def test_answers_that_share_no_prompt_go_in_one_row() -> None:
    tree, seen = random_tree("llama"), []
    hook = causal_model(tree).model.embed_tokens.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape)))
    states_before(tree, PROMPTS[:2], ANSWERS[:2])
    assert seen == [(2, 13)]
    hook.remove()
