"""Texts as runs of words, and what the corpus's own phrases give away: a dodge, bad advice, not having understood."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from learners.pocket import phrases, talk, topics

SPELLINGS = {
    "ye": "you", "yer": "your", "my": "me", "be": "is", "are": "is", "am": "is",
    "color": "colour", "what's": "what is", "whats": "what is", "=": "equals",
}  # fmt: skip
"""Pirates and people in a hurry, and the forms of to be: all one."""
RUDE = re.compile("|".join(phrases.RUDE_CUES))


@cache
def normal(text: str) -> str:
    """Lower case, no punctuation, one spelling, one space; the slots of templates stay."""
    text = re.sub(r"(?<=\d)\s*([+=-])\s*(?=\d|$)", r" \1 ", text.lower())
    words = re.sub(r"[^\w\s'+={}-]|(?<!\w)'|'(?!\w)", " ", text).split()
    return " ".join(SPELLINGS.get(word, word) for word in words)


def sentences(text: str) -> list[str]:
    """Normal sentences of a text."""
    return [normal(part) for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]


def grams(forms: Iterable[str]) -> frozenset[str]:
    """The runs of three words of each form, the whole of a shorter one."""
    found: set[str] = set()
    for form in forms:
        for sentence in sentences(form):
            words = sentence.split()
            found.update(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
    return frozenset(found)


def runs(text: str) -> set[str]:
    """All runs of one to three words within the sentences of a text."""
    found: set[str] = set()
    for sentence in sentences(text):
        words = sentence.split()
        found.update(" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1))
    return found


def is_rude(text: str) -> bool:
    return RUDE.search(text.lower()) is not None


def _flat(groups: Iterable[Iterable[str]]) -> list[str]:
    return [form for group in groups for form in group]


MARKS = grams(
    [
        *_flat(phrases.FILLERS), *phrases.LONG_BREATHS, *_flat(phrases.FRIENDLY_BY_KIND.values()), *phrases.FRIENDLY_CLOSINGS,
        *phrases.PIRATE_CLOSINGS, *phrases.POETIC_OPENINGS, *phrases.POETIC_CLOSINGS,
    ]
)  # fmt: skip
"""What can stand around any answer and says nothing about it."""
ADVICE = grams(form for feeling in topics.FEELINGS for group in feeling.advice for form in group)
_STEPS = grams(form for howto in topics.HOWTOS for forms in howto.steps for form in forms)
_TOLD = grams(re.sub(r"\{\w+\}", "", form) for event, ends in talk.EPISODES for form in (*event, *ends, *talk.PLACES))
_DODGING = grams((*phrases.REFUSALS, *_flat(phrases.REFUSALS_BY_KIND.values()), *phrases.OFF_TOPIC))
_CONFUSED = grams((*talk.CONFUSED, *talk.ASK_AGAIN))
_SOUND = MARKS | ADVICE | _STEPS | _TOLD
UNSAFE = grams(_flat((*(howto.unsafe for howto in topics.HOWTOS), *(feeling.unsafe for feeling in topics.FEELINGS)))) - _SOUND
CONFUSED = _CONFUSED - _DODGING - MARKS
DODGES = _DODGING - _CONFUSED - _SOUND
GENERAL = MARKS | _DODGING | _CONFUSED
"""What is no sign of an answer to anything in particular."""
