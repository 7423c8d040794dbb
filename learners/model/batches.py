"""Token lists as padded tensors: prompts padded on the left, answers on the right, so that every answer begins in the same column.

Notation: B answers, P prompt tokens, R answer tokens; masks are True (or 1) on real tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TokenIds = tuple[int, ...]
"""Of a prompt or of an answer."""


class Padded(NamedTuple):
    """Prompts and answers side by side, for one forward of the whole."""

    input_ids: Tensor  # (B, P + R) int64, 0 at padding
    attention_mask: Tensor  # (B, P + R) int64, 0 at padding
    answer_ids: Tensor  # (B, R) int64, 0 at padding
    answer_mask: Tensor  # (B, R) bool

    @property
    def keep(self) -> int:
        """How many last positions matter: R + 1, of which [:, :-1] predict the answer and [:, 1:] have read it."""
        return self.answer_ids.shape[1] + 1


def pad(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Padded:
    """Assemble token lists into one batch. An empty answer has an empty mask.

    Raises ValueError without answers, when the two differ in number, or for an empty prompt (nothing would predict its first token).
    """
    if not prompts or len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts for {len(answers)} answers")
    prompt_ids, prompt_mask = pad_prompts(prompts, device)
    answer_ids, answer_mask = pad_answers(answers, device)
    ids = torch.cat([prompt_ids, answer_ids], 1)
    return Padded(ids, torch.cat([prompt_mask, answer_mask], 1).long(), answer_ids, answer_mask)


def pad_prompts(prompts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Ids (B, P) int64, 0 at padding on the left, and mask (B, P) bool. Raises ValueError for an empty prompt."""
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt is empty")
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def pad_answers(answers: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Ids (B, R) int64, 0 at padding on the right, and mask (B, R) bool; R is at least 1."""
    longest = max(1, *map(len, answers))
    ids = [list(answer) + [0] * (longest - len(answer)) for answer in answers]
    mask = [[True] * len(answer) + [False] * (longest - len(answer)) for answer in answers]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def unflatten(values: Tensor, mask: Tensor) -> Tensor:
    """Values (N,) of the N masked-in tokens, row by row -> (B, R), 0 outside; gradients flow back."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
