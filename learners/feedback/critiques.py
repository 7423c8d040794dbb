"""Critiques: what the operator wants otherwise, in words, as something that the base reads beside the prompt.

What the base says with a critique in its context is a teacher for every next token (context distillation, Askell et al. 2021). A critique of one
answer holds for that prompt, and for conversations that go on from it; a standing wish holds for all. Critiques of equal strength share a context,
so that five wishes cost as much as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from learners.protocol import Lesson
from storage.records import Critique, Message, criticised

Conversation = tuple[Message, ...]


@dataclass(frozen=True)
class Critiques:
    """Live ones, in the order of the log, without those that are switched off."""

    lessons: tuple[Lesson, ...] = ()

    @staticmethod
    def of(lessons: Iterable[Lesson]) -> Critiques:
        """Those among all live judgements. Of standing wishes in the same words the last one counts, also if it is off."""
        found = [(each, each.judgement) for each in lessons if isinstance(each.judgement, Critique)]
        wishes = sorted((each.seq, said.text.strip()) for each, said in found if said.scope == "all")
        last = {text: seq for seq, text in wishes}
        standing = (each for each, said in found if said.strength and (said.scope != "all" or last[said.text.strip()] == each.seq))
        return Critiques(tuple(standing))

    @property
    def seqs(self) -> frozenset[int]:
        return frozenset(lesson.seq for lesson in self.lessons)

    def but(self, seqs: frozenset[int]) -> Critiques:
        """Without these, which an adapter has absorbed."""
        return Critiques(tuple(lesson for lesson in self.lessons if lesson.seq not in seqs))

    def holding(self, messages: Conversation) -> tuple[Lesson, ...]:
        """Those that hold for a conversation."""
        return tuple(each for each in self.lessons if each.judgement.holds_for(each.answers[0].messages, messages))  # type: ignore[union-attr]

    def contexts(self, messages: Conversation, chat: bool) -> list[tuple[float, Conversation]]:
        """The conversation as it is to be read beside itself, with a strength each; none where no critique holds for it. `chat`: the model has a
        template."""
        strengths: dict[str, int] = {}
        for lesson in self.holding(messages):
            if isinstance(critique := lesson.judgement, Critique):
                strengths.pop(critique.text.strip(), None)  # said twice: the last one counts
                strengths[critique.text.strip()] = critique.strength
        found = dict.fromkeys(strengths.values())
        return [(float(strength), criticised(messages, [t for t, s in strengths.items() if s == strength], chat)) for strength in found]
