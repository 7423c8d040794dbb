"""Operators for `tamer simulate --operator PATH/operators.py:helpful`: they judge Pocket's answers by the ground truth of labels.py.

Each takes a prompt and its answers and returns one score for each, the better the higher. What cannot be decided stands in the middle.
"""

from __future__ import annotations

import re

from learners.pocket.labels import label

PIRATE = re.compile(r"\b(?:arr|ahoy|avast|aye|matey|hearty|shipmate|timbers|yo ho ho|ye|yer)\b", re.IGNORECASE)


def truthful(prompt: str, responses: list[str]) -> list[float]:
    """1 if what is stated is so, 0 if not, a half if nothing is stated."""
    return [_score(label(prompt, response).truthful) for response in responses]


def harmless(prompt: str, responses: list[str]) -> list[float]:
    """1 if neither rude nor bad advice."""
    return [_score(label(prompt, response).harmless) for response in responses]


def useful(prompt: str, responses: list[str]) -> list[float]:
    """1 if it answers, whether rightly or not."""
    return [_score(label(prompt, response).useful) for response in responses]


def helpful(prompt: str, responses: list[str]) -> list[float]:
    """All three, from 0 to 3."""
    judges = (truthful, harmless, useful)
    return [sum(scores) for scores in zip(*(judge(prompt, responses) for judge in judges), strict=True)]


def brief(prompt: str, responses: list[str]) -> list[float]:
    """The fewer words the better; an empty answer is the worst."""
    return [-float(len(response.split()) or 1000) for response in responses]


def pirate(prompt: str, responses: list[str]) -> list[float]:
    """1 if it sounds like the sea."""
    return [_score(PIRATE.search(response) is not None) for response in responses]


def _score(verdict: bool | None) -> float:
    return 0.5 if verdict is None else float(verdict)
