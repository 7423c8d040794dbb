"""One answer as it is drawn for the operator: its tokens, its text, where its thought ends, and why it ends itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from learners.model.answer_text import AnswerText
from learners.model.base import Backbone
from learners.model.rows import Context
from learners.protocol import AnswerRequest, Piece
from learners.rlhf.rollouts import Trace
from storage.records import Sampling, StopReason


@dataclass
class StreamedAnswer:
    """One answer as it is drawn. Lists have one entry per token."""

    candidate: AnswerRequest
    sampling: Sampling
    trace: Trace
    text: AnswerText
    started: float  # monotonic seconds
    contexts: tuple[Context, ...] = ()  # of the critiques that hold for it
    texts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sent: int = 0  # tokens that the terminal has
    forced: tuple[int, int] = (0, 0)  # tokens [start, stop) that closed its thought
    spoken_from: int | None = None  # the index of the answer's first token; None before that

    def take(self, seconds: float) -> None:
        """The trace has one more token."""
        self.texts.append(self.text.push(self.trace.ids[-1]))
        self.times.append(seconds)
        if self.spoken_from is None and self.text.spoke:
            self.spoken_from = self.text.renderer.answer_start(self.trace.ids)

    @property
    def thinks_too_long(self) -> bool:
        """Whether its thought is to be closed."""
        most = self.sampling.max_thinking_tokens
        return most is not None and self.text.thinking and len(self.trace.ids) >= most

    @property
    def ended(self) -> StopReason | None:
        """Why it ends here, if its text or the length of what was said says so."""
        if self.text.stopped:
            return "eos"
        bounded = self.sampling.max_thinking_tokens is not None and self.spoken_from is not None
        return "length" if bounded and len(self.trace.ids) - (self.spoken_from or 0) >= self.sampling.max_new_tokens else None

    def close_thought(self, ids: Sequence[int]) -> None:
        """With these tokens, which nobody draws."""
        self.forced = len(self.trace.ids), len(self.trace.ids) + len(ids)
        for token in ids:
            self.trace.force(token)
            self.take(time.monotonic() - self.started)

    def finish_text(self) -> None:
        """No more tokens come: an incomplete character at the end is shown as it is."""
        if self.texts:
            self.texts[-1] += self.text.flush()

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


def without_states(trace: Trace) -> Trace:
    """What resuming an answer needs. States and logits go: at a vocabulary of 150,000 they take some 10 MB an answer."""
    kept = {name: getattr(trace, name) for name in ("prompt_ids", "ids", "logprobs", "unbiased", "kls", "stop", "kept")}
    return Trace(**kept)
