"""What trainers train on, free of any file format: exports make rows of these, imports make these of rows."""

from __future__ import annotations

from typing import NamedTuple

from storage.records import Message

Messages = tuple[Message, ...]
"""A prompt: ends with the user's turn."""


class PreferencePair(NamedTuple):
    """One answer that beat another."""

    messages: Messages
    chosen: str
    rejected: str
    margin: float  # 0 to 1: how much better


class Labelled(NamedTuple):
    """One answer that was found good, or bad."""

    messages: Messages
    answer: str
    good: bool


class Written(NamedTuple):
    """The answer as the operator wants it."""

    messages: Messages
    text: str


class Steps(NamedTuple):
    """An answer in sentences, each fine or not."""

    messages: Messages
    sentences: tuple[str, ...]
    good: tuple[bool, ...]


class Ranked(NamedTuple):
    """Answers with ranks, 1 is best, dense; None: worse than any that has one, and not compared with others that have none."""

    messages: Messages
    answers: tuple[str, ...]
    ranks: tuple[int | None, ...]


Item = PreferencePair | Labelled | Written | Steps | Ranked
