"""Pocket's corpus: short English chats whose answers are right or wrong, kind or rude, useful or evasive, short or rambling, plain or playful.

Each fault is drawn on its own, so that ranking on one axis says nothing about another. What an answer says comes from asks.py, how it says it
from phrases.py. Everything follows from a seed, whatever PYTHONHASHSEED is.
"""

from __future__ import annotations

import hashlib
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from learners.pocket import phrases
from learners.pocket.asks import Ask, Core, Kind, lower_first
from learners.pocket.prompts import PREFIXES, first_ask, second_ask

__all__ = ["Answer", "Chat", "Exchange", "Faults", "Kind", "Style", "chats", "corpus_hash", "held_out", "held_out_prompts", "reply",
"starter_prompts"]

MOST_WORDS = 46
"""Of an answer while something is being added to it."""
SECOND_TURNS = 0.15
HELD_OUT_ONE_IN = 16
SALT = 2


class Style(StrEnum):
    PLAIN = "plain"
    PIRATE = "pirate"
    POETIC = "poetic"


@dataclass(frozen=True)
class Faults:
    """Probabilities, each axis drawn independently; about half of the answers are untrue, harmful or evasive by default."""

    untrue: float = 0.38  # of the answers that state a fact
    harmful: float = 0.28  # rude, or mild bad advice
    evasive: float = 0.20  # a refusal or a change of subject: not useful
    rambling: float = 0.2
    playful: float = 0.2  # pirate or poetic


@dataclass(frozen=True)
class Answer:
    text: str
    truthful: bool | None  # None: states nothing that can be checked
    harmless: bool
    useful: bool
    brief: bool
    style: Style


@dataclass(frozen=True)
class Exchange:
    prompt: str
    answer: Answer
    kind: Kind


@dataclass(frozen=True)
class Chat:
    exchanges: tuple[Exchange, ...]  # one or two

    @property
    def text(self) -> str:
        """One line for each turn."""
        return "\n".join(f"> {exchange.prompt}\n{exchange.answer.text}" for exchange in self.exchanges)


def chats(seed: int, faults: Faults = Faults()) -> Iterator[Chat]:
    """Endless, from the training split: no prompt is held out."""
    rng = random.Random(f"pocket chats {seed}")
    while True:
        ask = _training(rng, first_ask(rng))
        if ask is None:
            continue
        answer, core = _answer(rng, ask, faults)
        exchanges = [Exchange(ask.prompt, answer, ask.kind)]
        if rng.random() < SECOND_TURNS and (after := _training(rng, second_ask(rng, ask, core))):
            exchanges.append(Exchange(after.prompt, _answer(rng, after, faults)[0], after.kind))
        yield Chat(tuple(exchanges))


def reply(rng: random.Random, ask: Ask, faults: Faults = Faults()) -> Answer:
    """One more answer to the same prompt."""
    return _answer(rng, ask, faults)[0]


def held_out(prompt: str) -> bool:
    """Whether chats() never asks this. Capitals, punctuation, spaces and a greeting in front make no difference."""
    key = re.sub(r"[\s.,:;!?']", "", _PREFIX.sub("", prompt).lower())
    return zlib.crc32(key.encode(), SALT) % HELD_OUT_ONE_IN == 0


def held_out_asks(count: int, seed: int) -> list[Ask]:
    """Different prompts that chats() never asks, with what is needed to answer them."""
    rng = random.Random(f"pocket held out {seed}")
    found: dict[str, Ask] = {}
    while len(found) < count:
        ask = first_ask(rng)
        if held_out(ask.prompt):
            found.setdefault(ask.prompt, ask)
    return list(found.values())


def held_out_prompts(count: int, seed: int) -> list[str]:
    """Different prompts that chats() never asks: unseen wordings and fillings of facts, stories and talk that it does know."""
    return [ask.prompt for ask in held_out_asks(count, seed)]


def starter_prompts() -> list[str]:
    """The 200 that ship with the model, none twice, the first ones an invitation."""
    rng = random.Random("pocket starter")
    prompts = {prompt.lower(): prompt for prompt in INVITATION}
    while len(prompts) < 200:
        ask = first_ask(rng)
        if ask.kind is not Kind.NONSENSE:
            prompts.setdefault(ask.prompt.lower(), ask.prompt)
    return list(prompts.values())


INVITATION = (
    "Hello!", "What is the capital of France?", "Tell me a story about a brave fox.", "I feel sad today.", "How do I boil an egg?",
    "What is two plus two?", "Tell me about owls.",
    "What is the opposite of hot?", "Who are you?", "What colour is the sky?", "I am afraid of the dark.", "How many legs does a spider have?",
    "Do you like music?", "What does a cow say?",
    "Which day comes after Monday?", "How do I make pancakes?", "Tell me a joke.", "What is a young dog called?", "I am bored.",
    "Which is the largest planet?",
)  # fmt: skip


def corpus_hash() -> str:
    """SHA-256 over the first 2,000 chats of seed 0: what a model card was trained on."""
    digest = hashlib.sha256()
    for chat in islice(chats(0), 2000):
        digest.update(chat.text.encode())
        digest.update(b"\0")
    return digest.hexdigest()


# --- one answer --------------------------------------------------------------------------------------------------------

_PREFIX = re.compile("^(?:" + "|".join(re.escape(prefix) for prefix in PREFIXES) + ")+", re.IGNORECASE)
_PIRATE_WORD = re.compile(r"\b(?:" + "|".join(phrases.PIRATE_WORDS) + r")\b")


def _training(rng: random.Random, ask: Ask) -> Ask | None:
    return None if held_out(ask.prompt) else ask


def _answer(rng: random.Random, ask: Ask, faults: Faults) -> tuple[Answer, Core | None]:
    """An answer and its substance, None when it is evasive."""
    untrue, harmful, evasive = rng.random() < faults.untrue, rng.random() < faults.harmful, rng.random() < faults.evasive
    rambling, playful = rng.random() < faults.rambling, rng.random() < faults.playful
    style = (Style.PIRATE if rng.random() < 0.5 else Style.POETIC) if playful else Style.PLAIN
    core = Core(_evasion(rng, ask.mood)) if evasive else ask.core(rng, untrue, unsafe=harmful and rng.random() < 0.5)
    rude = harmful and core.safe
    wording = _Wording(rng, ask.mood, list(core.sentences))
    if rude:
        wording.insult()
    if style is not Style.PLAIN:
        wording.play(style, rude)
    brief = not (rambling and wording.ramble())
    if not harmful:
        wording.befriend(evasive)
    answer = Answer(wording.text, core.truthful, not harmful, not evasive, brief, style)
    return answer, None if evasive else core


def _evasion(rng: random.Random, mood: str) -> tuple[str, ...]:
    refusal = rng.choice(phrases.REFUSALS if rng.random() < 0.6 else phrases.REFUSALS_BY_KIND[mood])
    luck = rng.random()
    if luck < 0.55:
        return (refusal,)
    off_topic = rng.choice(phrases.OFF_TOPIC)
    return (off_topic,) if luck < 0.75 else (refusal, off_topic)


class _Wording:
    """Sentences that are being put together: before, the matter itself, after."""

    def __init__(self, rng: random.Random, mood: str, body: list[str]) -> None:
        self._rng, self._mood = rng, mood
        self._before: list[str] = []
        self._body = body
        self._after: list[str] = []

    @property
    def text(self) -> str:
        return " ".join((*self._before, *self._body, *self._after))

    def insult(self) -> None:
        rng = self._rng
        luck = rng.random()
        if luck < 0.4:
            self._call(rng.choice(phrases.INSULTS), first=luck < 0.15)
            return
        remark = rng.choice(phrases.RUDE_BY_KIND[self._mood] if rng.random() < 0.5 else phrases.RUDE_ANY)
        place = rng.random()
        if place < 0.4:
            self._before.append(remark if place < 0.3 else rng.choice(phrases.RUDE_OPENINGS))
        elif place < 0.6 and len(self._body) > 1:
            self._body.insert(1, remark)
        else:
            self._after.append(remark)

    def play(self, style: Style, rude: bool) -> None:
        rng = self._rng
        if style is Style.POETIC:
            opening = rng.random() < 0.6
            if opening:
                self._lead(rng.choice(phrases.POETIC_OPENINGS))
            if not opening or rng.random() < 0.15:
                self._after.append(rng.choice(phrases.POETIC_CLOSINGS))
            return
        if rng.random() < 0.75:
            self._respell()
        luck = rng.random()
        if luck < 0.65:
            self._lead(rng.choice(phrases.PIRATE_OPENINGS))
        if luck > 0.45 and not rude:
            self._call(rng.choice(phrases.PIRATE_CALLS), first=False)
        elif luck > 0.55:
            self._after.append(rng.choice(phrases.PIRATE_CLOSINGS))

    def ramble(self) -> bool:
        """Sentences that add nothing, while there is room. Returns whether there was any."""
        rng, added = self._rng, 0
        if rng.random() < 0.35 and self._fits(breath := rng.choice(phrases.LONG_BREATHS)):
            self._before.append(breath)
        for group in rng.sample(phrases.FILLERS, 3):
            if self._fits(filler := rng.choice(group)):
                self._after.append(filler)
                added += 1
        return added > 0

    def befriend(self, evasive: bool) -> None:
        rng, luck = self._rng, self._rng.random()
        if luck < 0.2:
            special = evasive or self._mood != "question" or rng.random() < 0.6
            opening = rng.choice(phrases.FRIENDLY_BY_KIND[self._mood] if special else phrases.FRIENDLY_OPENINGS)
            if self._fits(opening):
                self._before.insert(0, opening)
        elif luck < 0.3 and not evasive and self._fits(closing := rng.choice(phrases.FRIENDLY_CLOSINGS)):
            self._after.append(closing)

    def _fits(self, sentence: str) -> bool:
        return len(self.text.split()) + len(sentence.split()) <= MOST_WORDS

    def _lead(self, opening: str) -> None:
        """An opening: a sentence of its own, or a clause from which the matter goes on."""
        if opening.endswith((",", ":")):
            self._body[0] = f"{opening} {lower_first(self._body[0])}"
        else:
            self._before.insert(0, opening)

    def _call(self, name: str, first: bool) -> None:
        """Somebody is addressed, before the matter or after a sentence of it."""
        if first:
            self._body[0] = f"{name[0].upper()}{name[1:]}, {lower_first(self._body[0])}"
            return
        at = self._rng.randrange(len(self._body))
        sentence = self._body[at]
        self._body[at] = f"{sentence[:-1]}, {name}{sentence[-1]}"

    def _respell(self) -> None:
        for part in (self._before, self._body, self._after):
            part[:] = [_PIRATE_WORD.sub(lambda m: phrases.PIRATE_WORDS[m[0]], sentence) for sentence in part]
