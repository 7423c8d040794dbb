"""Which words of two texts differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

MOST_WORDS = 1_500
"""Of each text. The comparison may take time by their product; what is longer shows without marks."""


class Part(NamedTuple):
    """A piece of a text, and whether the other text lacks it."""

    text: str
    own: bool


def word_differences(one: str, other: str) -> tuple[list[Part], list[Part]]:
    """Both texts in parts that make them up. The words in common are a longest run of equal ones, and so on at either side of it."""
    ours, theirs = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in (one, other))
    if max(len(ours), len(theirs)) > MOST_WORDS:
        return [Part(one, False)], [Part(other, False)]
    blocks = SequenceMatcher(lambda word: word.isspace(), ours, theirs, autojunk=False).get_matching_blocks()
    return _parts(ours, [(block.a, block.size) for block in blocks]), _parts(theirs, [(block.b, block.size) for block in blocks])


def _parts(words: Sequence[str], shared: Sequence[tuple[int, int]]) -> list[Part]:
    """`shared` are starts and lengths, in order; the last one ends the text."""
    found, at = [], 0
    for start, size in shared:
        found += [Part("".join(words[at:start]), True), Part("".join(words[start : start + size]), False)]
        at = start + size
    return [part for part in found if part.text]
