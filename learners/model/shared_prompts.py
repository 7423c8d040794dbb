"""States of answers, with each distinct prompt computed once: its keys and values keep their graph, and all answers to it attend to them.

The same states and gradients as of prompt and answer in one row, up to rounding. Models that keep something else than keys and values between
tokens (linear attention, state spaces) run prompt and answer in one row.

Tensors of ids, masks and places are made before a forward is launched: numbers that go to a device wait for all that it was given before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from learners.model.batches import pad_answers, pad_prompts
from learners.model.forward import causal_model, device_of, keeps_keys_and_values, plain_cache, states
from learners.model.memory import MemoryBudget, shares
from learners.model.recompute import recomputing_layers


def states_before(tree: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], memory: MemoryBudget | None = None) -> Tensor:
    """Of each answer to its prompt the states in which its tokens are chosen: (B, R, d) float32, anything at padding; R is the longest's length.

    memory: by which layers are computed again in the backward pass where an answer is too long to keep all.
    """
    with _kept_within(tree, prompts, answers, memory):
        return _states_before(tree, prompts, answers)


def states_after(tree: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], memory: MemoryBudget | None = None) -> Tensor:
    """The states that have read each answer token: (B, R, d) float32, anything at padding. memory: as in `states_before`."""
    with _kept_within(tree, prompts, answers, memory):
        return _states_after(tree, prompts, answers)


def _kept_within(
    tree: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], memory: MemoryBudget | None
) -> AbstractContextManager[None]:
    again = memory is not None and torch.is_grad_enabled() and memory.recomputes(prompts, answers)
    return recomputing_layers(tree) if again else nullcontext()


def _states_before(tree: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    if not _pays(tree, prompts):
        return states_in_one_row(tree, prompts, answers)[:, :-1]
    device = device_of(tree)
    ids, answer_mask = pad_answers(answers, device)
    at_end, index, past, mask = _prompts(tree, prompts, device)
    first = at_end[index]
    if ids.shape[1] == 1:
        return first[:, None]
    read = states(tree, ids[:, :-1], torch.cat([mask, answer_mask[:, :-1]], 1).long(), past)
    return torch.cat([first[:, None], read], 1)


def _states_after(tree: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    if not _pays(tree, prompts):
        return states_in_one_row(tree, prompts, answers)[:, 1:]
    device = device_of(tree)
    ids, answer_mask = pad_answers(answers, device)
    _, _, past, mask = _prompts(tree, prompts, device)
    return states(tree, ids, torch.cat([mask, answer_mask], 1).long(), past)


def states_in_one_row(tree: nn.Module, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """Prompt and answer side by side: (B, R + 1, d), of which [:, :-1] are before each answer token and [:, 1:] after it.

    What is missing at the end of a row no causal layer sees: there is no mask, so attention takes its fastest kernels.
    """
    longest, length = max(1, *map(len, answers)), max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device_of(tree))
    starts = [len(prompt) - 1 for prompt in prompts]
    if length == starts[0] + longest + 1 and len({*starts}) == 1:
        return states(tree, ids)[:, starts[0] :]
    places = torch.tensor(
        [row * length + min(start + i, length - 1) for row, start in enumerate(starts) for i in range(longest + 1)], device=ids.device
    )
    return states(tree, ids).flatten(0, 1).index_select(0, places).view(len(rows), longest + 1, -1)


def _prompts(tree: nn.Module, prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor, Any, Tensor]:
    """Last states (n, d) of the n distinct prompts; which of them each answer follows (B,); their cache and mask, a row for each answer."""
    distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    ids, mask = pad_prompts(list(distinct), device)
    index = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
    past = plain_cache(causal_model(tree))
    padded = len({len(prompt) for prompt in distinct}) > 1
    at_end = states(tree, ids, mask.long() if padded else None, past)[:, -1]
    past.reorder_cache(index)  # by index_select, whose gradient is a sum over the answers to a prompt
    return at_end, index, past, mask[index]


def _pays(tree: nn.Module, prompts: Sequence[Sequence[int]]) -> bool:
    return shares(prompts, device_of(tree)) and keeps_keys_and_values(causal_model(tree))
