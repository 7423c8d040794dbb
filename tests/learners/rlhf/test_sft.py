"""Imitation on a real model: the loss by hand, weights, what changes and what must not."""

from __future__ import annotations

import pytest
import torch

from learners.feedback.corrections import correction_weights
from learners.feedback.samples import Target
from learners.model.base import Backbone
from learners.model.forward import forward
from learners.model.lora import lora_state
from learners.rlhf.sft import SFT, SFTSettings
from tests.learners.models import needs_stories, prompt, stirred, stories, tensor

pytestmark = needs_stories


@pytest.fixture
def backbone() -> Backbone:
    return stories()


def targets(backbone: Backbone) -> list[Target]:
    texts = (" named Zara. Zara liked to swim.", " named Zara, who had a red hat.", " called Zara.")
    openings = ("Once upon a time, there was a little dog", "Once upon a time, there was a boy", "There was a big bear")
    return [Target(prompt(backbone, opening), tuple(backbone.encode_completion(text))) for opening, text in zip(openings, texts, strict=True)]


def nll_by_hand(tree: torch.nn.Module, target: Target) -> list[float]:
    """One answer at a time, without padding."""
    ids = tensor([[*target.prompt_ids, *target.token_ids]])
    with torch.no_grad():
        logprobs = forward(tree, ids).logits[0].log_softmax(-1)
    start = len(target.prompt_ids)
    return [-logprobs[start + i - 1, token].item() for i, token in enumerate(target.token_ids)]


def test_the_loss_is_the_mean_over_all_answer_tokens(backbone: Backbone) -> None:
    tree, batch = stirred(backbone), targets(backbone)
    expected = [x for target in batch for x in nll_by_hand(tree, target)]
    stats = SFT(tree, backbone.width).step(batch)
    assert stats.tokens == len(expected)
    assert stats.loss == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_the_loss_weighs_each_token_as_asked(backbone: Backbone) -> None:
    tree, target = stirred(backbone), targets(backbone)[0]
    weights = tuple(0.1 + (i % 3) for i in range(len(target.token_ids)))
    costs = nll_by_hand(tree, target)
    stats = SFT(tree, backbone.width).step([Target(target.prompt_ids, target.token_ids, weights)])
    expected = sum(w * x for w, x in zip(weights, costs, strict=True)) / sum(weights)
    assert stats.loss == pytest.approx(expected, abs=1e-4)


def test_how_a_batch_is_split_into_forwards_changes_nothing(backbone: Backbone) -> None:
    batch = targets(backbone)
    whole = SFT(stirred(backbone), backbone.width, SFTSettings(microbatch=8)).step(batch)
    split = SFT(stirred(backbone), backbone.width, SFTSettings(microbatch=1)).step(batch)
    assert split.loss == pytest.approx(whole.loss, abs=1e-5)
    assert split.grad_norm == pytest.approx(whole.grad_norm, rel=1e-3)


def test_imitation_makes_the_answers_likelier_and_leaves_the_base_alone(backbone: Backbone) -> None:
    tree, base, batch = backbone.adapter_tree(), backbone.tree(), targets(backbone)
    weights = [p.clone() for p in base.parameters()]
    before = [sum(nll_by_hand(base, target)) for target in batch]
    sft = SFT(tree, backbone.width)
    steps = [sft.step(batch) for _ in range(15)]
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert all(sum(nll_by_hand(tree, target)) < nll for target, nll in zip(batch, before, strict=True))
    assert [sum(nll_by_hand(base, target)) for target in batch] == before
    assert all(torch.equal(a, b) for a, b in zip(weights, base.parameters(), strict=True))


def test_what_is_imitated_carries_over_to_other_prompts(backbone: Backbone) -> None:
    elsewhere = Target(prompt(backbone, "Once upon a time, there was a sleepy cat"), tuple(backbone.encode_completion(" named Zara")[:-1]))
    tree = backbone.adapter_tree()
    before = sum(nll_by_hand(tree, elsewhere))
    sft = SFT(tree, backbone.width)
    for _ in range(10):
        sft.step(targets(backbone))
    assert sum(nll_by_hand(tree, elsewhere)) < before - 1


def test_a_step_that_was_broken_off_leaves_no_gradient_behind(backbone: Backbone) -> None:
    class Abandon(Exception):
        pass

    def pause() -> None:
        raise Abandon

    batch = targets(backbone)
    tree, untouched = stirred(backbone), stirred(backbone)
    interrupted, fresh = SFT(tree, backbone.width, pause=pause), SFT(untouched, backbone.width)
    with pytest.raises(Abandon):
        interrupted.step(batch)
    interrupted.pause = lambda: None
    assert interrupted.step(batch[:1]) == fresh.step(batch[:1])
    assert all(torch.equal(a, b) for a, b in zip(lora_state(tree).values(), lora_state(untouched).values(), strict=True))


def test_a_gradient_that_is_not_finite_changes_nothing(backbone: Backbone) -> None:
    tree = backbone.adapter_tree()
    before = lora_state(tree)
    infinite = Target(targets(backbone)[0].prompt_ids, targets(backbone)[0].token_ids[:1], (float("inf"),))
    stats = SFT(tree, backbone.width).step([infinite])
    assert stats.grad_norm != stats.grad_norm  # NaN
    assert all(torch.equal(a, b) for a, b in zip(before.values(), lora_state(tree).values(), strict=True))


def test_nothing_to_imitate_and_weights_that_do_not_fit_are_refused(backbone: Backbone) -> None:
    sft = SFT(backbone.adapter_tree(), backbone.width)
    for batch in ([], [Target((1, 2), ())], [Target((1, 2), (3, 4), (1.0,))], [Target((1, 2), (3,), (0.0,))]):
        with pytest.raises(ValueError):
            sft.step(batch)


def test_a_correction_weighs_what_was_changed() -> None:
    assert correction_weights((1, 2, 3, 4), (1, 9, 8, 3, 4), 0.1) == (0.1, 1, 1, 0.1, 0.1)
    assert correction_weights((1, 2, 3), (1, 2, 3, 4), 0.1) == (0.1, 0.1, 0.1, 1)


def test_after_an_omission_what_goes_on_is_new() -> None:
    assert correction_weights((1, 2, 3, 4), (1, 4), 0.1) == (0.1, 1)


def test_a_correction_without_a_new_token_weighs_all_alike() -> None:
    assert correction_weights((1, 2, 3), (1, 2, 3), 0.1) == (1, 1, 1)
    assert correction_weights((1, 2, 3), (1, 2), 0.1) == (1, 1)
    assert correction_weights((), (5, 6), 0.1) == (1, 1)
