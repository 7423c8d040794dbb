"""Small words for putting sentences together: alternatives, articles, capitals, plurals. Nothing here knows what a sentence says."""

from __future__ import annotations

import re
from itertools import product

VOWEL = re.compile(r"[aeio]|u(?!ni)")
IRREGULAR = {"mouse": "mice", "goose": "geese", "wolf": "wolves"}
UNCHANGED = frozenset("sheep deer fish salmon trout goldfish".split())


def expand(*patterns: str) -> tuple[str, ...]:
    """Every string of the patterns, in order and once each, where `(a|b|)` stands for one of its alternatives. No nesting."""
    forms: dict[str, None] = {}
    for pattern in patterns:
        parts = re.split(r"\(([^()]*\|[^()]*)\)", pattern)
        choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
        forms.update(dict.fromkeys("".join(chosen) for chosen in product(*choices)))
    return tuple(forms)


def table(text: str) -> dict[str, str]:
    """`key=value; key=value` as a dict."""
    return {key.strip(): value.strip() for key, _, value in (pair.partition("=") for pair in text.split(";") if pair.strip())}


def rows(text: str) -> list[list[str]]:
    """Lines of cells between bars; a line that begins with a bar goes on with the one above, empty lines are skipped."""
    whole = re.sub(r"\n *\|", " |", text)
    return [[cell.strip() for cell in line.split("|")] for line in whole.splitlines() if line.strip()]


def with_article(noun: str) -> str:
    """`an owl`, `a cat`."""
    return f"an {noun}" if VOWEL.match(noun) else f"a {noun}"


def bare(phrase: str) -> str:
    """The phrase without its article."""
    return re.sub(r"^(?:an?|the) ", "", phrase)


def plural(noun: str) -> str:
    """Of the nouns in the tables."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in UNCHANGED:
        return noun
    if noun.endswith("y") and noun[-2] not in "aeo":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def capital(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]
