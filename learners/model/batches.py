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
    return torch.tensor(ids, device=device), mask_of(answers, device)


def mask_of(answers: Sequence[Sequence[int]], device: torch.device | str = "cpu", without: Sequence[tuple[int, int]] = ()) -> Tensor:
    """The mask of `pad_answers`, False on the tokens [start, stop) of each answer that `without` names too."""
    longest = max(1, *map(len, answers))
    rows = [[True] * len(answer) + [False] * (longest - len(answer)) for answer in answers]
    for row, (start, stop) in zip(rows, without, strict=bool(without)):
        row[start:stop] = [False] * (stop - start)
    return torch.tensor(rows, device=device)


class AnswerTokens(NamedTuple):
    """All tokens of several answers, one answer after the other. Where they stand is known on the host: taking them waits for nothing."""

    ids: Tensor  # (N,)
    places: Tensor | None  # (N,) among the B * R of a padded batch; None where no answer is padded
    shape: tuple[int, int]  # B, R

    @staticmethod
    def of(answers: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> AnswerTokens:
        longest = max(1, *map(len, answers))
        ids = torch.tensor([token for answer in answers for token in answer], dtype=torch.int64, device=device)
        if all(len(answer) == longest for answer in answers):
            return AnswerTokens(ids, None, (len(answers), longest))
        places = [row * longest + column for row, answer in enumerate(answers) for column in range(len(answer))]
        return AnswerTokens(ids, torch.tensor(places, dtype=torch.int64, device=device), (len(answers), longest))

    def take(self, values: Tensor) -> Tensor:
        """(B, R, …) -> (N, …); gradients flow back."""
        flat = values.flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def spread(self, values: Tensor) -> Tensor:
        """(N,) -> (B, R), 0 at padding; gradients flow back."""
        if self.places is not None:
            values = values.new_zeros(self.shape[0] * self.shape[1]).index_copy(0, self.places, values)
        return values.view(self.shape)
