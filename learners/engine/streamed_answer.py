"""One answer as it is drawn for the operator: its tokens, their texts and times, and what of them the terminal has."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from learners.model.answer_limits import AnswerLimits
from learners.model.base import Backbone
from learners.model.rows import Context
from learners.protocol import AnswerRequest, Piece
from learners.rlhf.rollouts import Trace
from storage.records import Sampling


@dataclass
class StreamedAnswer:
    """One answer as it is drawn. Lists have one entry per token."""

    candidate: AnswerRequest
    sampling: Sampling
    trace: Trace
    limits: AnswerLimits
    started: float  # monotonic seconds
    contexts: tuple[Context, ...] = ()  # of the critiques that hold for it
    texts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sent: int = 0  # tokens that the terminal has

    def take(self, seconds: float) -> None:
        """The trace has one more token."""
        self.texts.append(self.limits.take())
        self.times.append(seconds)

    def close_thought(self, ids: Sequence[int]) -> None:
        """With these tokens, which nobody draws."""
        for token in ids:
            self.trace.force(token)
            self.take(time.monotonic() - self.started)

    def finish_text(self) -> None:
        """No more tokens come: an incomplete character at the end is shown as it is."""
        if self.texts:
            self.texts[-1] += self.limits.text.flush()

    def tells_of(self, temperature: float) -> bool:
        """Whether the acting policy drew it, at this temperature."""
        return self.candidate.policy == "acting" and self.candidate.temperature in (None, temperature)

    def unsent(self) -> Piece | None:
        """What the terminal lacks; counts it as sent."""
        start, self.sent = self.sent, len(self.texts)
        if start == self.sent:
            return None
        trace, new = self.trace, slice(start, self.sent)
        return Piece(
            uid=self.candidate.uid, start=start, ids=tuple(trace.ids[new]), texts=tuple(self.texts[new]), logprobs=tuple(trace.logprobs[new]),
            unbiased_logprobs=tuple(trace.unbiased[new]), times=tuple(self.times[new]),
        )  # fmt: skip


def of_one_version(requests: Sequence[AnswerRequest]) -> tuple[tuple[AnswerRequest, ...], tuple[AnswerRequest, ...]]:
    """Those that the adapter of the first draws, with those that no adapter draws; and the others."""
    first = next((request for request in requests if request.policy != "base"), requests[0])
    now = tuple(request for request in requests if request.policy == "base" or request.sha256 == first.sha256)
    return now, tuple(request for request in requests if request not in now)


class AnsweredSet(NamedTuple):
    """Answers to one prompt that have ended, in tokens: distinct, none empty, in canonical order."""

    prompt_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(drawn: Sequence[StreamedAnswer], backbone: Backbone) -> AnsweredSet | None:
        """None where there is no set to look at: answers to several prompts, or after thoughts that differ, or a single one, which is tapped rather
        than ranked."""
        pairs = [backbone.spoken(drawing.trace.prompt_ids, drawing.trace.ids) for drawing in drawn]
        prompts = list({prompt for prompt, _ in pairs})
        answers = tuple(sorted({answer for _, answer in pairs if answer}))
        return AnsweredSet(prompts[0], answers) if len(prompts) == 1 and len(drawn) > 1 and answers else None
