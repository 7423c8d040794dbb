"""How thoughts stand in the text of an answer: `<think>…</think>` before what is said, whatever marks the model itself writes. Without I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

OPENS, CLOSES = "<think>", "</think>"
"""What the text of every drawn answer has."""
NAMES = "think|thinking|reasoning|thought"
"""Of tags that other programs write."""
_FIRST = re.compile(rf"\A\s*(?:<({NAMES})>)?(.*?)</({NAMES})>\s*", re.DOTALL | re.IGNORECASE)
_OPEN = re.compile(rf"\A\s*<({NAMES})>(.*)\Z", re.DOTALL | re.IGNORECASE)


class Parts(NamedTuple):
    """An answer taken apart."""

    thought: str  # '' for none
    answer: str  # '' while the thought goes on


def split_thought(text: str) -> Parts:
    """The thought that opens an answer, and what is said after it. What opens the thought may stand in the prompt."""
    if found := _FIRST.match(text):
        return Parts(found[2].strip(), text[found.end() :])
    if found := _OPEN.match(text):
        return Parts(found[2].strip(), "")
    return Parts("", text)


def with_thought(thought: str, answer: str) -> str:
    """The text that splits into these."""
    return f"{OPENS}\n{thought}\n{CLOSES}\n\n{answer}" if thought else answer
