"""How thoughts stand in the text of an answer: `<think>…</think>` before what is said, whatever marks the model itself writes. Without I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

OPENS, CLOSES = "<think>", "</think>"
"""What the text of every drawn answer has."""
NAMES = "think|thinking|reasoning|thought"
"""Of tags that other programs write."""
FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Of messages in which programs have it."""
_THOUGHT = re.compile(rf"\A\s*<({NAMES})>(.*?)(?:</\1>\s*|\Z)", re.DOTALL | re.IGNORECASE)


class Parts(NamedTuple):
    """An answer taken apart."""

    thought: str  # '' for none
    answer: str  # '' while the thought goes on


def split_thought(text: str) -> Parts:
    """The thought that an answer opens with, and what is said after it."""
    found = _THOUGHT.match(text)
    return Parts(found[2].strip(), text[found.end() :]) if found is not None else Parts("", text)


def count_what_is_said(connection: sqlite3.Connection) -> None:
    """SQL on this connection knows `said_length(text)`: characters, without the thought."""
    connection.create_function("said_length", 1, lambda text: len(split_thought(text).answer), deterministic=True)


def with_thought(thought: str, answer: str) -> str:
    """The text that splits into these."""
    return f"{OPENS}\n{thought}\n{CLOSES}\n\n{answer}" if thought else answer
