"""Padding, and the way back."""

from __future__ import annotations

import pytest
import torch

from learners.model.batches import AnswerTokens, mask_of, pad, pad_answers


def test_prompts_are_padded_left_and_answers_right() -> None:
    padded = pad([(5, 6, 7), (8,)], [(1,), (2, 3)])
    assert padded.input_ids.tolist() == [[5, 6, 7, 1, 0], [0, 0, 8, 2, 3]]
    assert padded.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert padded.answer_ids.tolist() == [[1, 0], [2, 3]]
    assert padded.answer_mask.tolist() == [[True, False], [True, True]]
    assert padded.keep == 3


def test_an_empty_answer_has_an_empty_mask() -> None:
    padded = pad([(1,), (2,)], [(), ()])
    assert padded.answer_ids.shape == (2, 1)
    assert not padded.answer_mask.any()


@pytest.mark.parametrize(("prompts", "answers"), [([], []), ([(1,)], [(1,), (2,)]), ([(1,), ()], [(1,), (2,)])])
def test_a_batch_without_prompts_or_with_an_empty_one_is_refused(prompts: list, answers: list) -> None:
    with pytest.raises(ValueError):
        pad(prompts, answers)


def test_numbers_of_tokens_go_back_to_their_places_with_their_gradients() -> None:
    tokens = AnswerTokens.of([(7, 8, 9), (), (5,)])
    assert tokens.ids.tolist() == [7, 8, 9, 5]
    values = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    placed = tokens.spread(values)
    assert placed.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    (placed * torch.arange(9.0).view(3, 3)).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0, 1, 2, 6]


@pytest.mark.parametrize("lengths", [(3, 0, 1), (2, 2), (0,)])
def test_tokens_are_taken_as_a_mask_takes_them(lengths: tuple[int, ...]) -> None:
    answers = [tuple(range(1, n + 1)) for n in lengths]
    ids, mask = pad_answers(answers)
    states = torch.randn(*ids.shape, 4, requires_grad=True)
    tokens = AnswerTokens.of(answers)
    assert torch.equal(tokens.take(states), states[mask]) and torch.equal(tokens.ids, ids[mask])
    weights = torch.randn(int(mask.sum()), 4)
    (ours,) = torch.autograd.grad((tokens.take(states) * weights).sum(), states)
    (theirs,) = torch.autograd.grad((states[mask] * weights).sum(), states)
    assert torch.equal(ours, theirs)


def test_tokens_that_nobody_drew_are_out_of_the_mask() -> None:
    assert mask_of([(1, 2, 3, 4), (1, 2)], without=[(1, 3), (0, 0)]).tolist() == [[True, False, False, True], [True, True, False, False]]
