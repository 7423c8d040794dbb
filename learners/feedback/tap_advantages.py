"""COACH: a person's praise and blame as advantages of the tokens that they were about.

MacGlashan et al. 2017: people judge what they see against what they have come to expect, so their feedback is an advantage under the policy of the
moment, not a reward; nothing is summed along the answer (γ = 0), or whoever writes more would earn more taps. Arumugam et al. 2019 take it to deep
policies with a probability ratio. What differs: the ratio is clipped as in PPO, whose update this is part of; credits take the place of an
eligibility trace; and blame is capped, since pushing a token down has no natural end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learners.feedback.snapshot import Credited, Feedback
from storage.records import Tap

MOST_BLAME = 1.0
"""Of one token, however many taps were about it."""
REMEMBERED = 16
"""Answers that were tapped last."""


@dataclass(frozen=True)
class Tapped:
    """Answers that were tapped. All three have one entry for each answer."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    advantages: tuple[tuple[float, ...], ...]  # of each token: its credited taps, 0 where there were none


def tapped_of(lessons: Feedback) -> Tapped | None:
    """Credited taps of the answers that were tapped last; None where there are none."""
    found: dict[str, list[tuple[float, Credited]]] = {}
    for lesson in lessons.lessons:
        if isinstance(tap := lesson.judgement, Tap) and not tap.whole:
            for credited in lessons.tapped(lesson):
                found.setdefault(tap.response_uid, []).append((tap.value, credited))
    answers = [_answer(credited) for credited in list(found.values())[-REMEMBERED:]]
    return Tapped(*zip(*answers, strict=True)) if answers else None


def _answer(credited: Sequence[tuple[float, Credited]]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Prompt, answer as far as it was on the screen at the last tap, and the advantages of its tokens."""
    longest = max((each.sample for _, each in credited), key=lambda sample: len(sample.token_ids))
    advantages = [0.0] * len(longest.token_ids)
    for value, (sample, share, _) in credited:
        assert sample.span is not None
        start, stop = sample.span
        for i in range(start, stop):  # what is chosen is the word
            advantages[i] += value * share / (stop - start)
    return longest.prompt_ids, longest.token_ids, tuple(max(-MOST_BLAME, advantage) for advantage in advantages)
