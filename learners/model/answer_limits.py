"""When one answer ends, and its thought is to be closed, where both have limits of their own (`--max-thinking-tokens`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learners.model.answer_text import AnswerText
from storage.records import Sampling, StopReason


@dataclass
class AnswerLimits:
    """Follows one answer as its tokens come."""

    text: AnswerText
    sampling: Sampling
    ids: Sequence[int]  # the answer's own, which grow
    spoken_from: int | None = None  # the index of the answer's first token that is no thought; None before that

    def take(self) -> str:
        """There is one more token: the text that it completes."""
        shown = self.text.push(self.ids[-1])
        if self.spoken_from is None and self.text.spoke:
            self.spoken_from = self.text.renderer.answer_start(self.ids)
        return shown

    @property
    def thinks_too_long(self) -> bool:
        """Whether its thought is to be closed."""
        most = self.sampling.max_thinking_tokens
        return most is not None and self.text.thinking and len(self.ids) >= most

    @property
    def ended(self) -> StopReason | None:
        """Why it ends here, if its text or the length of what was said says so."""
        if self.text.stopped:
            return "eos"
        bounded = self.sampling.max_thinking_tokens is not None and self.spoken_from is not None
        return "length" if bounded and len(self.ids) - (self.spoken_from or 0) >= self.sampling.max_new_tokens else None
