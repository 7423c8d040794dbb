"""Simulated operators' tastes, six for stories and two for chats: functions `judge(prompt, responses) -> scores`, higher is better, equal is a tie.

Those for stories also as `noisy_…`, wrong on a quarter of the sets.
Operator functions that rewrite one answer (`rename`, `happy_end`) for corrections. No imports beyond the standard library.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

CHEERFUL = frozenset(
    """happy happily glad smile smiled smiling laugh laughed fun play played playing love loved nice kind good great hug hugged friend
    friends dance danced sing sang joy sunny pretty beautiful excited best yay thank thanked share shared""".split()
)
ANIMALS = frozenset(
    """dog dogs cat cats bird birds fish bear bears bunny rabbit frog duck ducks mouse lion monkey elephant horse cow pig sheep fox owl
    bee butterfly squirrel puppy kitten turtle animal animals ant snake""".split()
)

NATURE = frozenset(
    """tree trees flower flowers sun sky rain wind river lake forest garden grass leaf leaves hill mountain sea beach snow cloud clouds
    park""".split()
)
GLOOM = frozenset(
    """sad cry cried crying scared afraid angry mad bad hurt lost alone dark cold tired sick died fell broke sorry lonely mean""".split()
)
SECOND_PERSON = frozenset("you your yours yourself you're you'll you'd you've".split())


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _share(text: str, wanted: frozenset[str]) -> float:
    found = words(text)
    return sum(word in wanted for word in found) / max(1, len(found))


def _sentence_length(text: str) -> float:
    sentences = [len(words(part)) for part in re.split(r"[.!?]+", text) if words(part)]
    return sum(sentences) / max(1, len(sentences))


def _spoken(text: str) -> float:
    """Share of the characters that stand between quotation marks; an open quotation counts to the end."""
    return sum(len(part) for part in text.split('"')[1::2]) / max(1, len(text))


def cheerful(prompt: str, responses: list[str]) -> list[float]:
    return [_share(text, CHEERFUL) for text in responses]


def animals(prompt: str, responses: list[str]) -> list[float]:
    return [_share(text, ANIMALS) for text in responses]


def nature(prompt: str, responses: list[str]) -> list[float]:
    return [_share(text, NATURE) for text in responses]


def gloom(prompt: str, responses: list[str]) -> list[float]:
    return [_share(text, GLOOM) for text in responses]


def short_sentences(prompt: str, responses: list[str]) -> list[float]:
    return [-_sentence_length(text) for text in responses]


def speech(prompt: str, responses: list[str]) -> list[float]:
    return [_spoken(text) for text in responses]


def short_words(prompt: str, responses: list[str]) -> list[float]:
    return [-sum(map(len, found)) / max(1, len(found)) for found in map(words, responses)]


def second_person(prompt: str, responses: list[str]) -> list[float]:
    return [_share(text, SECOND_PERSON) for text in responses]


def _wrong_on_a_quarter(judge: Callable[[str, list[str]], list[float]]) -> Callable[[str, list[str]], list[float]]:
    """The same judge, who turns the order of every fourth set around; which sets, their texts decide."""

    def judged(prompt: str, responses: list[str]) -> list[float]:
        wrong = zlib.crc32("\n".join([prompt, *sorted(responses)]).encode()) % 4 == 0
        return [-score if wrong else score for score in judge(prompt, responses)]

    return judged


noisy_cheerful, noisy_animals = _wrong_on_a_quarter(cheerful), _wrong_on_a_quarter(animals)
noisy_short_sentences, noisy_speech = _wrong_on_a_quarter(short_sentences), _wrong_on_a_quarter(speech)
noisy_nature, noisy_gloom = _wrong_on_a_quarter(nature), _wrong_on_a_quarter(gloom)

# those that benchmarks take where none are named; by name any function of this file serves
TASTES = {"cheerful": cheerful, "short_sentences": short_sentences, "speech": speech, "animals": animals}

ADJECTIVES = ["little", "big", "brave", "quiet", "funny", "old", "young", "clever", "sleepy", "hungry", "lonely", "curious", "tiny", "gentle", "shy"]
NOUNS = ["girl", "boy", "dog", "cat", "bird", "bear", "rabbit", "princess", "king", "farmer", "tree", "car", "boat", "frog", "mouse"]


def story_prompts() -> list[str]:
    """225 openings, one for each adjective and noun."""
    return [f"Once upon a time, there was a {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]


def write_prompts(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(story_prompts()) + "\n")


# --- corrections: each changes one thing ------------------------------------------------------------------------------------


def rename(prompt: str, response: str) -> str:
    """Everybody who is introduced by name is called Sam."""
    for name in re.findall(r"named ([A-Z][a-z]+)", response):
        response = re.sub(rf"\b{name}\b", "Sam", response)
    return response


def renamed(prompt: str, responses: list[str]) -> list[float]:
    return [float("Sam" in text) for text in responses]


def happy_end(prompt: str, response: str) -> str:
    """After the second sentence comes the end."""
    sentences = re.findall(r"[^.!?]+[.!?]+", response)
    return "".join(sentences[:2]).rstrip() + " They were happy. The end." if sentences else response


def ended_happily(prompt: str, responses: list[str]) -> list[float]:
    return [float("The end." in text) for text in responses]
