"""What goes into one forward of PPO's update, and which of these make one optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from learners.model.batches import TokenIds
from learners.rlhf import ranks
from learners.rlhf.rollouts import Rollouts


class Microbatch(NamedTuple):
    """The answers of one forward with all that the update needs: (B, R) each."""

    prompts: tuple[TokenIds, ...]
    answers: tuple[TokenIds, ...]
    counted: int  # of the tokens that count
    mask: Tensor  # bool, which
    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor  # of rollouts whitened over all of them; of taps as they are
    returns: Tensor

    @staticmethod
    def of(rollouts: Rollouts, part: Sequence[int], *fields: Tensor) -> Microbatch:
        """Some of the rollouts; fields: mask and what follows it, of all of them."""
        answers = tuple(rollouts.answers[i] for i in part)
        forced = [rollouts.forced[i] for i in part] if rollouts.forced else []
        count, longest = sum(map(len, answers)) - sum(stop - start for start, stop in forced), max(1, *map(len, answers))
        return Microbatch(tuple(rollouts.prompts[i] for i in part), answers, count, *(field[part, :longest] for field in fields))

    def own(self) -> Microbatch:
        """This rank's share of it."""
        if ranks.world() == 1:
            return self
        answers, rows = ranks.own(self.answers), ranks.share(len(self.answers))
        longest = max((1, *map(len, answers)))
        columns = (column[rows.start : rows.stop, :longest] for column in self[3:])
        return Microbatch(tuple(ranks.own(self.prompts)), tuple(answers), self.counted, *columns)


def minibatches(microbatches: Sequence[Microbatch], answers: int, random: torch.Generator) -> list[list[Microbatch]]:
    """In random order, as many to an optimizer step as so many answers allow, at least one."""
    found: list[list[Microbatch]] = []
    room = 0
    for i in torch.randperm(len(microbatches), generator=random).tolist():
        size = len(microbatches[i].answers)
        if not found or size > room:
            found.append([])
            room = answers
        found[-1].append(microbatches[i])
        room -= size
    return found
