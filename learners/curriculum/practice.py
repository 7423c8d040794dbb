"""What the learner draws for itself: prompts to practise on, answers of the base, seeds. Belongs to the learner's thread."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from learners.curriculum.inputs import CurrentInputs, LearnerInputs
from learners.feedback.critiques import Conversation, Critiques
from learners.model.base import Backbone
from learners.model.batches import TokenIds
from learners.model.chat_format import PromptError
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
        self._base_draw: tuple[list[TokenIds], int] | None = None  # their prompts and their seed

    def new_seed(self) -> int:
        """Far enough from the last that each answer of a draw has a seed of its own, counted on from this one."""
        self._draws += 1000
        return self._draws

    def prompts(self, n: int) -> list[TokenIds]:
        """Of the set and of what was judged, in random order; repeated when there are fewer. Up to a quarter have critiques of their own."""
        inputs = self._inputs()
        known = list(dict.fromkeys([*inputs.train_prompts, *inputs.feedback.prompts()]))
        criticised = list(self._criticised(inputs))
        chosen = self.random.sample(criticised, min(n // 4, len(criticised)))
        while known and len(chosen) < n:
            chosen += self.random.sample(known, min(n - len(chosen), len(known)))
        return chosen

    def conversations(self) -> dict[TokenIds, Conversation]:
        """What these prompts came from, as far as it is known."""
        inputs = self._inputs()
        judged = {s.asked: each.answers[0].messages for each in inputs.feedback.lessons if each.answers for s in inputs.feedback.read[each.seq]}
        return {**inputs.conversations, **judged, **self._criticised(inputs)}

    def _criticised(self, inputs: LearnerInputs) -> dict[TokenIds, Conversation]:
        """Prompts that critiques hold for which do not hold for all."""
        own = [each.answers[0].messages for each in Critiques.of(inputs.feedback.lessons).lessons if each.judgement.scope == "prompt"]  # type: ignore[union-attr]
        found = {}
        for messages in own:
            with contextlib.suppress(PromptError):  # of another model, in a way that this one's template does not take: nobody can answer there
                found[tuple(self.backbone.fit(messages, self.backbone.most_tokens(self.sampling))[0])] = messages
        return found

    def base_answers(self) -> list[Trace]:
        """Answers of the base to some prompts, drawn once."""
        if not self._base_answers:
            self._base_draw = self.prompts(PROBE_ANSWERS), self.new_seed()
            self._base_answers = self._of_base(*self._base_draw)
        return self._base_answers

    def checkpoint(self) -> dict[str, Any]:
        """What is drawn next; for `restore`."""
        return {"random": self.random.getstate(), "draws": self._draws, "base": self._base_draw}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. The base's answers are drawn again: they are the same."""
        if saved["base"] not in (None, self._base_draw):
            self._base_draw = saved["base"]
            self._base_answers = self._of_base(*self._base_draw)
        self.random.setstate(saved["random"])
        self._draws = saved["draws"]

    def _of_base(self, prompts: list[TokenIds], seed: int) -> list[Trace]:
        return draw_answers(self.backbone, self.base, prompts, self.sampling, seed, adapter=False, keep_states=True, pause=self.pause)

    def base_length(self) -> float:
        """Mean length of those, in tokens, without thoughts; 1 at least."""
        _, answers = spoken(self.backbone, self.base_answers())
        return max(1.0, sum(map(len, answers)) / len(answers))
