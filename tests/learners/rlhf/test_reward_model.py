"""The reward model on a real model: what it learns, how scores are made, and that nothing is lost on the way to disk."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from learners.feedback.samples import Comparison, Scored
from learners.model.base import Backbone
from learners.model.forward import causal_model, forward
from learners.model.lora import lora_state
from learners.model.sampling import Row, decode
from learners.model.shared_prompts import states_in_one_row
from learners.rlhf import losses, reward_model
from learners.rlhf.reward_model import RewardModel, RewardSettings
from learners.rlhf.reward_model import _sequences as sequences
from storage.records import Sampling
from tests.learners.models import needs_stories, prompt, stirred, stories, tensor

pytestmark = needs_stories
ADJECTIVES = "little big brave quiet funny old young clever sleepy hungry".split()
NOUNS = "girl boy dog cat bird bear".split()


@pytest.fixture
def backbone() -> Backbone:
    return stories()


@functools.cache
def rankings(n: int, seed: int) -> list[Comparison]:
    """Four answers of the base to each prompt, ranked by how many sentences they make: with ties."""
    backbone = stories()
    openings = [f"Once upon a time, there was a {a} {b}" for a in ADJECTIVES for b in NOUNS]
    prompts = [prompt(backbone, text) for text in random.Random(seed).sample(openings, n)]
    rows = [Row(f"{i}", prompts[i // 4], seed * 10_000 + i) for i in range(4 * n)]
    answers: list[list[int]] = [[] for _ in rows]
    for step in decode(backbone.tree(), rows, Sampling(1.0, 40), backbone.eos_ids, backbone.pad_id):
        for uid, token in zip(step.uids, step.ids, strict=True):
            answers[int(uid)].append(token)
    return [_ranked(p, [tuple(a) for a in answers[4 * i : 4 * i + 4]], i) for i, p in enumerate(prompts)]


def _ranked(prompt_ids: tuple[int, ...], answers: list[tuple[int, ...]], seq: int) -> Comparison:
    taste = [-stories().decode(answer).count(".") for answer in answers]
    ordered = sorted(set(taste))
    return Comparison(prompt_ids, tuple(answers), tuple(ordered.index(t) + 1 for t in taste), seq)


def accuracy(model: RewardModel, comparisons: list[Comparison]) -> float:
    found = [losses.right_order(model.score([c.prompt_ids] * 4, c.answers), c.ranks) for c in comparisons]
    return sum(right for right, _ in found) / sum(pairs for _, pairs in found)


def some(backbone: Backbone) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Three prompts and answers of different lengths."""
    texts = ("Once upon a time, there was a little dog", "There was a cat", "One day, a boy")
    answers = ((400, 401, 402, 403), (300,), (410, 411, 412))
    return [prompt(backbone, text) for text in texts], list(answers)


def trained(backbone: Backbone, seed: int = 0) -> RewardModel:
    model = RewardModel(backbone.adapter_tree(seed=seed), backbone.width, seed=seed)
    for _ in range(3):
        model.step(rankings(8, 1)[:4])
    model.normalise(*some(backbone))
    return model


def test_it_learns_a_taste_from_few_rankings(backbone: Backbone) -> None:
    model = RewardModel(backbone.adapter_tree(), backbone.width)
    train, held_out, random_ = rankings(24, 1), rankings(24, 2), random.Random(0)
    stats = [model.step(random_.sample(train, 6)) for _ in range(24)]
    assert stats[-1].loss < stats[0].loss
    assert accuracy(model, held_out) > 0.75


def test_a_score_is_the_mean_of_the_head_over_states_that_have_read_each_token(backbone: Backbone) -> None:
    tree = stirred(backbone)
    model = RewardModel(tree, backbone.width)
    prompts, answers = some(backbone)
    for prompt_ids, answer, score in zip(prompts, answers, model.score(prompts, answers).tolist(), strict=True):
        with torch.no_grad():
            states = forward(tree, tensor([[*prompt_ids, *answer]])).hidden[0, len(prompt_ids) :]
            by_hand = [float(state @ model.head.weight[0] + model.head.bias[0]) for state in states]
        assert score == pytest.approx(sum(by_hand) / len(answer), abs=1e-4)


def test_a_tokens_reward_depends_on_itself_and_not_on_what_follows(backbone: Backbone) -> None:
    model = RewardModel(stirred(backbone), backbone.width)
    start = prompt(backbone)
    whole, changed = model.token_rewards([start, start], [(400, 401, 402), (400, 401, 300)])
    shorter = model.token_rewards([start], [(400, 401)])[0]
    assert torch.allclose(whole[:2], shorter, atol=1e-4)
    assert torch.allclose(whole[:2], changed[:2], atol=1e-4)
    assert abs(float(whole[2] - changed[2])) > 1e-3


def test_shares_add_up_to_the_score_and_nothing_lies_beyond_the_end(backbone: Backbone) -> None:
    model, (prompts, answers) = trained(backbone), some(backbone)
    rewards, shares, scores = model.token_rewards(prompts, answers), model.token_shares(prompts, answers), model.score(prompts, answers)
    assert torch.allclose(shares.sum(1), scores)
    for row, answer, score in zip(rewards, answers, scores, strict=True):
        assert float(row.sum()) / len(answer) == pytest.approx(float(score), abs=1e-5)
        assert (row[len(answer) :] == 0).all()


def test_an_empty_answer_scores_nothing(backbone: Backbone) -> None:
    assert trained(backbone).score([prompt(backbone)], [()]).tolist() == [0]


def test_the_loss_of_a_ranking_is_bradley_terrys_plus_the_centring_term(backbone: Backbone) -> None:
    model = RewardModel(stirred(backbone), backbone.width, RewardSettings(centring_weight=0.5))
    item = rankings(8, 1)[0]
    scores = model.score([item.prompt_ids] * 4, item.answers).cpu()
    expected = losses.bradley_terry(scores, losses.Pairs.of([item.ranks])) + 0.5 * (scores**2).mean()
    assert model.step([item]).loss == pytest.approx(float(expected), abs=1e-4)


def test_every_judgement_counts_the_same_however_many_answers_it_has(backbone: Backbone) -> None:
    model = RewardModel(stirred(backbone), backbone.width)
    pair = Comparison(prompt(backbone), ((400, 401), (300,)), (1, 2))
    batch = [*rankings(8, 1)[:2], pair, Scored(prompt(backbone), (410,), 0.5)]
    alone = [RewardModel(stirred(backbone), backbone.width).step([item]).loss for item in batch]
    assert model.step(batch).loss == pytest.approx(sum(alone) / 4, abs=1e-4)


def test_items_side_by_side_have_the_loss_and_gradient_that_they_have_one_by_one(backbone: Backbone) -> None:
    pair = Comparison(prompt(backbone), ((400, 401), (300,)), (1, 2))
    unranked = Comparison(prompt(backbone), ((400,), (300,)), (None, None))
    items = [*rankings(8, 1)[:2], Scored(prompt(backbone), (410,), 0.5), pair, Scored(prompt(backbone), (411,), -1.0), unranked]
    model = RewardModel(stirred(backbone), backbone.width, RewardSettings(centring_weight=0.3, rating_weight=0.7))
    scores = torch.randn(len(sequences(items)[1]), generator=torch.Generator().manual_seed(0)).to(model._device).requires_grad_()
    loss = model._judged(items).loss(scores)
    parts = scores.split([len(sequences([item])[1]) for item in items])
    alone = torch.stack([_loss_alone(model.settings, item, part) for item, part in zip(items, parts, strict=True)]).sum()
    torch.testing.assert_close(loss, alone, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(each, scores)[0] for each in (loss, alone)), atol=1e-6, rtol=1e-6)


def _loss_alone(settings: RewardSettings, item: Comparison | Scored, scores: torch.Tensor) -> torch.Tensor:
    """As it is written down: of a ranking the mean over its pairs, and the mean squared score."""
    if isinstance(item, Scored):
        return settings.rating_weight * (scores[0] - item.score).square()
    pairs = [
        t * (scores[i] - scores[j]).sigmoid().log() + (1 - t) * (scores[j] - scores[i]).sigmoid().log()
        for i, j, t in losses.compared_pairs(item.ranks)
    ]
    return settings.centring_weight * scores.square().mean() - (torch.stack(pairs).mean() if pairs else 0.0)


def test_how_a_batch_is_split_into_forwards_changes_nothing(backbone: Backbone) -> None:
    batch = [*rankings(8, 1)[:3], Scored(prompt(backbone), (410,), 0.5)]
    whole = RewardModel(stirred(backbone), backbone.width, RewardSettings(microbatch=32)).step(batch)
    split = RewardModel(stirred(backbone), backbone.width, RewardSettings(microbatch=4)).step(batch)
    assert split.loss == pytest.approx(whole.loss, abs=1e-5)
    assert split.grad_norm == pytest.approx(whole.grad_norm, rel=1e-3)
    assert (split.accuracy, split.tokens) == (whole.accuracy, whole.tokens)


def test_a_ranking_that_does_not_fit_into_one_forward_has_the_same_loss_and_gradient(backbone: Backbone) -> None:
    batch = [*rankings(8, 1)[:2], Scored(prompt(backbone), (410,), 0.5)]
    whole, parts = (RewardModel(stirred(backbone), backbone.width) for _ in range(2))
    parts.memory = replace(parts.memory, allowance=1.0)  # one answer to a forward
    gradients = []
    for model in (whole, parts):
        losses_of = model._backward(batch, 3) if model is whole else model._backward_in_parts(batch, *sequences(batch), 3)
        gradients.append([float(losses_of[0]), *(p.grad for p in [*model._lora.values(), *model.head.parameters()])])
    assert gradients[1][0] == pytest.approx(gradients[0][0], abs=1e-5)
    for one, other in zip(gradients[0][1:], gradients[1][1:], strict=True):
        assert float((one - other).norm()) < 1e-5 * float(one.norm())
    step, again = whole.step(batch), parts.step(batch)
    assert (again.loss, again.grad_norm) == (pytest.approx(step.loss, abs=1e-5), pytest.approx(step.grad_norm, rel=1e-3))
    assert (again.accuracy, again.tokens) == (step.accuracy, step.tokens)


def test_the_gradient_of_answers_that_share_their_prompt_is_that_of_answers_in_rows_of_their_own(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, found = rankings(8, 1)[:3], []
    for in_one_row in (False, True):
        if in_one_row:
            monkeypatch.setattr(reward_model, "states_after", lambda *read: states_in_one_row(*read[:3])[:, 1:])
        model = RewardModel(stirred(backbone), backbone.width)
        loss, _ = model._backward(batch, 3)
        found.append((float(loss), [p.grad for p in model._lora.values()]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert float((one - other).abs().max()) < 1e-5 * max(1.0, float(one.abs().max()))


def test_it_runs_no_lm_head(backbone: Backbone) -> None:
    tree, rows = backbone.adapter_tree(), []
    causal_model(tree).get_output_embeddings().register_forward_hook(lambda head, arguments, output: rows.append(output[..., 0].numel()))
    RewardModel(tree, backbone.width).step(rankings(8, 1)[:2])
    assert rows and max(rows) == 1


def test_a_rating_pulls_the_score_towards_itself(backbone: Backbone) -> None:
    model, rating = RewardModel(backbone.adapter_tree(), backbone.width), Scored(prompt(backbone), (400, 401, 402), 0.8)
    for _ in range(30):
        stats = model.step([rating])
    assert model.score([rating.prompt_ids], [rating.answer]).item() == pytest.approx(0.8, abs=0.2)
    assert stats.accuracy is None


def test_accuracy_is_of_untied_pairs_before_the_step(backbone: Backbone) -> None:
    model = RewardModel(stirred(backbone), backbone.width)
    answers = ((400, 401), (300, 301), (410,))
    order = model.score([prompt(backbone)] * 3, answers).argsort(descending=True).tolist()
    ranks = [order.index(i) + 1 for i in range(3)]
    assert model.step([Comparison(prompt(backbone), answers, tuple(ranks))]).accuracy == 1
    tied = Comparison(prompt(backbone), answers, (1, 1, 1))
    assert model.step([tied]).accuracy is None


def test_normalised_scores_have_mean_zero_and_deviation_one_and_keep_their_order(backbone: Backbone) -> None:
    model = RewardModel(stirred(backbone), backbone.width)
    item = rankings(8, 1)[0]
    raw = model.score([item.prompt_ids] * 4, item.answers)
    model.normalise([item.prompt_ids] * 4, item.answers)
    scores = model.score([item.prompt_ids] * 4, item.answers)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.square().mean()) == pytest.approx(1, abs=1e-3)
    assert scores.argsort().tolist() == raw.argsort().tolist()


def test_normalising_does_not_change_what_is_learned(backbone: Backbone) -> None:
    plain, normalised = (RewardModel(stirred(backbone), backbone.width) for _ in range(2))
    normalised.normalise(*some(backbone))
    assert plain.step(rankings(8, 1)[:2]) == normalised.step(rankings(8, 1)[:2])


def test_saved_and_loaded_it_gives_identical_scores(backbone: Backbone) -> None:
    model, (prompts, answers) = trained(backbone), some(backbone)
    scores = model.score(prompts, answers)
    file = safetensors.torch.save(model.state())
    other = RewardModel(backbone.adapter_tree(seed=7), backbone.width, seed=7)
    assert not torch.equal(other.score(prompts, answers), scores)
    other.load_state(safetensors.torch.load(file))
    assert torch.equal(other.score(prompts, answers), scores)


def test_after_loading_it_learns_as_if_new(backbone: Backbone) -> None:
    fresh = RewardModel(backbone.adapter_tree(), backbone.width)
    used = RewardModel(backbone.adapter_tree(), backbone.width)
    start = used.state()
    for _ in range(3):
        used.step(rankings(8, 1)[:2])
    used.load_state(start)
    assert used.step(rankings(8, 1)[:2]) == fresh.step(rankings(8, 1)[:2])
    assert all(torch.equal(a, b) for a, b in zip(used.state().values(), fresh.state().values(), strict=True))


def test_anothers_state_is_refused_and_nothing_changes(backbone: Backbone) -> None:
    model, (prompts, answers) = trained(backbone), some(backbone)
    scores, state = model.score(prompts, answers), model.state()
    wrong_shape = state | {"head.weight": torch.zeros(1, 3)}
    missing = {name: tensor for name, tensor in state.items() if name != "head.bias"}
    for wrong, error in ((wrong_shape, RuntimeError), (missing, KeyError), ({}, KeyError)):
        with pytest.raises(error):
            model.load_state(wrong)
    assert torch.equal(model.score(prompts, answers), scores)


def test_the_state_is_a_copy(backbone: Backbone) -> None:
    model = RewardModel(backbone.adapter_tree(), backbone.width)
    state = model.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    model.step(rankings(8, 1)[:2])
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    assert any(not torch.equal(model.state()[name], kept[name]) for name in kept)


def test_empty_batches_and_single_references_are_refused(backbone: Backbone) -> None:
    model = RewardModel(backbone.adapter_tree(), backbone.width)
    before = lora_state(model.tree)
    with pytest.raises(ValueError, match="empty"):
        model.step([])
    with pytest.raises(ValueError, match="two reference"):
        model.normalise([prompt(backbone)], [(400,)])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), lora_state(model.tree).values(), strict=True))
