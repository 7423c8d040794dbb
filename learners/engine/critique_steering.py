"""What the operator said in words, as the generator steers with it: which critiques act, in which contexts, and how strongly."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from learners.feedback.critiques import Conversation, Critiques
from learners.human_reward.critique_bias import CritiqueBias, CritiqueBudget
from learners.human_reward.logit_bias import LogitBias
from learners.model.base import Backbone
from learners.model.chat_format import PromptError
from learners.model.rows import Context
from learners.protocol import Error, Event
from learners.rlhf.rollouts import Trace

SOLVED_AT = (16, 32, 64, 128)
"""Tokens of the answers that are being drawn; γ is solved anew there, and once they have ended."""


class CritiqueSteering:
    """Belongs to the generator's thread. `emit` takes protocol events."""

    def __init__(self, backbone: Backbone, emit: Callable[[Event], None]) -> None:
        self._backbone, self._emit = backbone, emit
        self._live, self._absorbed = Critiques(), frozenset[int]()
        self._budget = CritiqueBudget()
        self.acting = Critiques()  # live, and not absorbed by the policy
        self.bias = CritiqueBias()

    def use(self, critiques: Critiques) -> None:
        """Steer with these from the next answer on, but for those that the policy has absorbed. One that is gone does not act any more at once."""
        self._live, acting = critiques, critiques.but(self._absorbed)
        if acting != self.acting:
            self.acting = acting
            self._budget.forget()

    def use_policy(self, absorbed: frozenset[int]) -> None:
        """Another policy acts, which has absorbed these."""
        self._absorbed = absorbed
        self._budget.forget()
        self.use(self._live)

    def contexts(self, messages: Conversation, room: int, dropped: int) -> tuple[Context, ...]:
        """What the critiques that hold for a prompt make of it, with room for an answer. Where the model cannot read them beside all of the prompt
        (`dropped` tokens are cut without them) that is told, and they do not act."""
        found = self.acting.contexts(messages, self._backbone.chat_template)
        try:
            fitted = [(strength, *self._backbone.fit(each, room)) for strength, each in found]
        except PromptError as error:
            self._emit(Error(what=f"your critiques cannot be read beside this prompt: {error}", hint="they wait"))
            return ()
        if any(cut > dropped for _, _, cut in fitted):
            self._emit(Error(what="your critiques and this prompt do not fit into the model's context together", hint="the critiques wait"))
            return ()
        return tuple(Context(strength, tuple(ids)) for strength, ids, _ in fitted)

    def solve(self, steering: LogitBias, nats: float, temperature: float, traces: Iterable[Trace] = ()) -> None:
        """γ anew, on answers that have ended and on these, which have not."""
        if self.acting.lessons:
            drawn = [states for trace in traces if (states := trace.criticised()) is not None]
            self.bias = self._budget.solve(steering, nats, temperature, drawn) or CritiqueBias()

    def visited(self, trace: Trace) -> None:
        """Remember where an answer went that was drawn with them."""
        if (states := trace.criticised()) is not None:
            self._budget.visited(states)
