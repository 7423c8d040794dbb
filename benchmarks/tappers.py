"""Simulated operators that tap: functions `tap(prompt, shown, piece) -> float`, called for each piece as it appears, about the last completed word.

Each goes with a taste of tastes.py, which judges whole answers in the end. No imports beyond the standard library.
"""

from __future__ import annotations

import re

from tastes import ANIMALS, CHEERFUL

GLOOMY = frozenset("sad sadly cry cried crying scared afraid angry mean bad hurt lost alone lonely broke broken sick dark".split())


def completed(shown: str, piece: str) -> str:
    """The word that this piece completed: '' while it goes on, or where there was none."""
    if piece[:1].isalpha() or piece[:1] == "'":
        return ""
    found = re.search(r"([A-Za-z']+)$", shown[: len(shown) - len(piece)])
    return found[1].lower() if found else ""


def cheerful(prompt: str, shown: str, piece: str) -> float:
    word = completed(shown, piece)
    return 1.0 if word in CHEERFUL else -1.0 if word in GLOOMY else 0.0


def animals(prompt: str, shown: str, piece: str) -> float:
    return 1.0 if completed(shown, piece) in ANIMALS else 0.0


def speech(prompt: str, shown: str, piece: str) -> float:
    """Glad of a quotation that begins, sorry for a sentence without one."""
    if '"' in piece:
        return 1.0
    return -1.0 if piece.strip() == "." and '"' not in shown.rsplit(".", 2)[-2][-40:] else 0.0
