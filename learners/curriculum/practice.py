"""What the learner draws for itself: prompts to practise on, answers of the base, seeds. Belongs to the learner's thread."""

from __future__ import annotations

import random
from collections.abc import Callable

from torch import nn

from learners.curriculum.inputs import CurrentInputs, TokenIds
from learners.model.base import Backbone
from learners.rlhf.rollouts import Trace, draw_answers, spoken
from storage.records import Sampling

PROBE_ANSWERS = 16
"""Answers of the base on which KL is measured and rewards are scaled."""


class Practice:
    """`pause` is called between forwards: it waits while somebody waits for tokens, or raises to abandon the work."""

    def __init__(
        self,
        backbone: Backbone,
        base: nn.Module,
        sampling: Sampling,
        seed: int,
        inputs: CurrentInputs,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """`base` is a tree of the learner's own without an adapter."""
        self.backbone, self.base, self.sampling, self.seed, self.pause = backbone, base, sampling, seed, pause
        self.random = random.Random(seed)
        self._inputs = inputs
        self._draws = seed * 1_000_003
        self._base_answers: list[Trace] = []

    def new_seed(self) -> int:
        """Far enough from the last that each answer of a draw has a seed of its own, counted on from this one."""
        self._draws += 1000
        return self._draws

    def prompts(self, n: int) -> list[TokenIds]:
        """Of the set and of what was judged, in random order; repeated when there are fewer."""
        inputs = self._inputs()
        known = list(dict.fromkeys([*inputs.train_prompts, *inputs.feedback.prompts()]))
        chosen: list[TokenIds] = []
        while known and len(chosen) < n:
            chosen += self.random.sample(known, min(n - len(chosen), len(known)))
        return chosen

    def base_answers(self) -> list[Trace]:
        """Answers of the base to some prompts, drawn once."""
        if not self._base_answers:
            self._base_answers = draw_answers(
                self.backbone, self.base, self.prompts(PROBE_ANSWERS), self.sampling, self.new_seed(),
                adapter=False, keep_states=True, pause=self.pause,
            )  # fmt: skip
        return self._base_answers

    def base_length(self) -> float:
        """Mean length of those, in tokens, without thoughts; 1 at least."""
        _, answers = spoken(self.backbone, self.base_answers())
        return max(1.0, sum(map(len, answers)) / len(answers))
