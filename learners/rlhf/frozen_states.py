"""States of a tree whose weights stand still, remembered: whatever is learned from several times is run through it once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.model.batches import AnswerTokens, TokenIds
from learners.model.forward import device_of
from learners.model.shared_prompts import states_before

_Key = tuple[tuple[int, ...], tuple[int, ...]]
MOST_BYTES = 128e6
"""Of remembered states; those used longest ago go."""


class FrozenStates:
    """The states of one tree in which answers' tokens were chosen. `forget` when its weights have changed."""

    def __init__(self, tree: nn.Module, most_bytes: float = MOST_BYTES) -> None:
        self.tree, self._most = tree, most_bytes
        self._known: OrderedDict[_Key, Tensor] = OrderedDict()  # (T, d) each

    def forget(self) -> None:
        """Other weights have been loaded into the tree."""
        self._known.clear()

    def checkpoint(self) -> list[tuple[_Key, Tensor]]:
        """What is remembered, that used longest ago first: computed again beside other answers it would be rounded otherwise."""
        return [*self._known.items()]

    def restore(self, saved: Sequence[tuple[_Key, Tensor]]) -> None:
        """Remember this instead."""
        self._known = OrderedDict(saved)

    @torch.no_grad()
    def before(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Of each answer to its prompt the states before its tokens, one answer after the other: (tokens of all answers, d) float32.

        Those that are not known are computed in one forward.
        """
        keys = [(tuple(prompt), tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
        found = {key: self._known[key] for key in keys if key in self._known}
        if missing := [key for key in dict.fromkeys(keys) if key not in found]:
            found |= self._computed(missing)
        for key in keys:
            self._known[key] = found[key]
            self._known.move_to_end(key)
        while sum(each.nbytes for each in self._known.values()) > self._most:
            self._known.popitem(last=False)
        return torch.cat([found[key] for key in keys])

    def _computed(self, keys: Sequence[_Key]) -> dict[_Key, Tensor]:
        answers = [answer for _, answer in keys]
        tokens = AnswerTokens.of(answers, device_of(self.tree))
        states = tokens.take(states_before(self.tree, [prompt for prompt, _ in keys], answers))
        return {key: each.clone() for key, each in zip(keys, states.split([len(answer) for answer in answers]), strict=True)}
