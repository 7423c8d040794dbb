"""Is a text an answer in the corpus's language? A trigram model without probabilities: what never stands together is not well-formed.

Learned from a sample of the corpus, with names, numbers and other fillings of the slots in one class each, so that an unseen filling does not
matter. A little that was never seen is forgiven: that is how a new sentence differs from a garbled one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise

from learners.pocket import phrases, talk
from learners.pocket.asks import lower_first
from learners.pocket.corpus import Faults, chats
from learners.pocket.facts import RELATIONS
from learners.pocket.grammar import bare

SAMPLE = 40_000
"""Chats that are learned from: a second or two."""
FAULTS = Faults(untrue=0.5, harmful=0.5, evasive=0.25, playful=0.3)
"""Of the sample: what is rarer by default is seen often enough."""
FORGIVEN_ONE_IN = 7
"""Tokens for each unseen run of three that is let pass; one new neighbourhood of two words makes two or three."""
EDGE = "|"
TOKEN = re.compile(r"[A-Za-z']+(?:-[a-z]+)*|\d+|[^\w\s]|\S")
_CALLS = {*phrases.INSULTS, *phrases.PIRATE_CALLS, *(f"ye{insult.removeprefix('you')}" for insult in phrases.INSULTS)}
CALL = re.compile(rf"(?:, (?:{'|'.join(sorted(_CALLS))}))+(?=[.!?]$)")


class Recogniser:
    """Knows the pairs and triples of a sample of answers. Raises nothing, whatever the text."""

    def __init__(self, seed: int = 0, sample: int = SAMPLE) -> None:
        self._pairs: set[tuple[str, str]] = set()
        self._triples: set[tuple[str, str, str]] = set()
        for chat in islice(chats(seed, FAULTS), sample):
            for exchange in chat.exchanges:
                for tokens in _sentences(exchange.answer.text):
                    self._pairs.update(pairwise(tokens))
                    self._triples.update(zip(tokens, tokens[1:], tokens[2:]))

    def well_formed(self, answer: str) -> bool:
        """Whether the text ends as a sentence does, does not go round in circles, and consists of what stands together in the corpus."""
        if not answer.strip().endswith((".", "!", "?")) or goes_round(answer):
            return False
        parts = _sentences(answer)
        new_pairs = sum(pair not in self._pairs for tokens in parts for pair in pairwise(tokens))
        new_triples = sum(triple not in self._triples for tokens in parts for triple in zip(tokens, tokens[1:], tokens[2:]))
        return new_pairs < 2 and new_triples <= sum(map(len, parts)) // FORGIVEN_ONE_IN


def goes_round(text: str) -> bool:
    """Whether some run of four words comes three times."""
    words = re.findall(r"\w+", text.lower())
    return any(count > 2 for count in Counter(zip(words, words[1:], words[2:], words[3:])).values())


def _classes() -> dict[str, str]:
    """A word that fills slots -> which slots it fills."""
    slots: dict[str, set[str]] = {}
    lists = {"name": talk.NAMES, "hero": talk.HEROES, "trait": talk.TRAITS, "liked": talk.LIKES}
    for relation in RELATIONS:
        lists[relation.name] = [*relation.truths.values(), *(relation.slots[subject]["n"] for subject in relation.subjects)]
    for name, words in lists.items():
        for word in map(bare, words):
            slots.setdefault(word, set()).add(name)
    return {word: "/".join(sorted(names)) for word, names in slots.items() if " " not in word}


CLASSES = _classes()


def _sentences(text: str) -> list[list[str]]:
    """Tokens between edges, a sentence's first word as in the middle of one; whoever is addressed at its end is left out."""
    return [[EDGE, *_tokens(CALL.sub("", part)), EDGE] for part in re.split(r"(?<=[.!?])\s+", text.strip())]


def _tokens(sentence: str) -> Iterator[str]:
    if not (sentence[:1].isupper() or sentence[:1].isdigit()):
        yield "uncapitalised"
    for token in TOKEN.findall(lower_first(sentence)):
        yield "7" if token.isdigit() else CLASSES.get(token, token)
