"""Padding, and the way back."""

from __future__ import annotations

import pytest
import torch

from learners.model.batches import pad, unflatten


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
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, False]])
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    placed = unflatten(values, mask)
    assert placed.tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]
    (placed * torch.arange(9.0).view(3, 3)).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0, 1, 6]
