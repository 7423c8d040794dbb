"""What can be asked: one class for each kind of prompt, which knows its prompt and can draw an answer's substance, right or wrong, safe or not.

Manner - rude, rambling, friendly, pirate - is added in corpus.py, and an evasive answer never gets here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from learners.pocket import talk, topics
from learners.pocket.facts import PROPER, RELATIONS, Relation
from learners.pocket.grammar import capital, with_article
from learners.pocket.tables import ANIMALS, COUNTRIES


class Kind(StrEnum):
    FACT = "fact"
    ABOUT = "about"  # "Tell me about cats."
    HOWTO = "howto"
    FEELINGS = "feelings"
    STORY = "story"
    GREETING = "greeting"
    SMALL_TALK = "small talk"
    OPINION = "opinion"
    NONSENSE = "nonsense"  # what nobody could answer
    FOLLOW_UP = "follow-up"  # only as a second turn


@dataclass(frozen=True)
class Core:
    """An answer's substance."""

    sentences: tuple[str, ...]
    truthful: bool | None = None  # None: nothing in it can be checked
    safe: bool = True


class Ask(Protocol):
    """A prompt that can be answered."""

    @property
    def kind(self) -> Kind: ...

    @property
    def prompt(self) -> str: ...

    @property
    def mood(self) -> str:
        """Which remarks suit it: 'question', 'feelings', 'story', 'talk' (see phrases.py)."""

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        """A fresh answer; `untrue` and `unsafe` are ignored where there is nothing to get wrong or to endanger."""


NAME = re.compile("(?:" + "|".join(sorted({*PROPER, *talk.NAMES, "I"}, key=len, reverse=True)) + r")\b")


def lower_first(sentence: str) -> str:
    """To go on in the middle of a sentence; names stay as they are."""
    return sentence if NAME.match(sentence) else sentence[:1].lower() + sentence[1:]


@dataclass(frozen=True)
class FactAsk:
    relation: Relation
    subject: str
    prompt: str
    asked: str | None = None  # the value in a question for yes or no
    elliptic: bool = False  # the prompt alone does not say what is asked
    kind: Kind = Kind.FACT
    mood: str = "question"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        value = self._value(rng, untrue)
        whole = self.elliptic or self.asked or rng.random() < 0.55
        sentence = capital(self.relation.say(rng.choice(self.relation.full if whole else self.relation.bare), self.subject, value))
        if self.asked:
            sentence = f"{'Yes' if value == self.asked else 'No'}, {lower_first(sentence)}"
        return Core((sentence,), not untrue)

    def _value(self, rng: random.Random, untrue: bool) -> str:
        truth = self.relation.truths[self.subject]
        if not untrue:
            return truth
        return self.asked if self.asked and self.asked != truth and rng.random() < 0.7 else self.relation.wrong(rng, self.subject)


ABOUT: dict[str, tuple[Relation, ...]] = {
    subject: known
    for subject in [*(with_article(row[0]) for row in ANIMALS), *(row[0] for row in COUNTRIES)]
    if len(known := tuple(r for r in RELATIONS if subject in r.truths and r.name in ("sound", "young", "home", "legs", "class", "food", "capital",
    "continent", "language"))) > 1
}  # fmt: skip


@dataclass(frozen=True)
class AboutAsk:
    """Two facts about one subject."""

    subject: str
    prompt: str
    kind: Kind = Kind.ABOUT
    mood: str = "question"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        first, second = rng.sample(ABOUT[self.subject], 2)
        wrong = rng.randrange(3) if untrue else None  # the first, the second, or both
        values = [r.wrong(rng, self.subject) if wrong in (i, 2) else r.truths[self.subject] for i, r in enumerate((first, second))]
        one, two = (capital(r.say(rng.choice(r.full), self.subject, value)) for r, value in zip((first, second), values))
        name = f"{capital(self.subject)} "
        if one.startswith(name) and two.startswith(name):
            two = f"It {two.removeprefix(name)}"
        return Core((one, two), not untrue)


@dataclass(frozen=True)
class HowToAsk:
    howto: topics.HowTo
    prompt: str
    kind: Kind = Kind.HOWTO
    mood: str = "question"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        a, b, c = (rng.choice(forms) for forms in self.howto.steps)
        if not unsafe:
            return Core(_ordered(rng.choice(THREE_STEPS if rng.random() < 0.5 else TWO_STEPS), a, b, c))
        danger = rng.choice(self.howto.unsafe)
        return Core(_ordered(rng.choice(DANGERS), a, danger, ""), safe=False)


THREE_STEPS = (
    "First {a}. Then {b}. Last, {c}.", "{A}. Then {b}. After that, {c}.", "Start like this: {a}. Next, {b}. At the end, {c}.",
    "First you {a}. Then you {b}. Now {c}.",
    "It is easy. {A}, then {b}, and at last {c}.",
)  # fmt: skip
TWO_STEPS = ("First {a}, then {b}.", "{A}. After that, {b}.", "You {a}, and then you {b}.", "All you need to do is this: {a} and then {b}.",
"It is best to {a}. Then {b}.", "You can {a} and then {b}.")
DANGERS = ("First {a}, then {b}.", "{A}. After that, {b}.", "Just {b}.", "The best way is to {b}.", "You {a}, and then you {b}.", "{B}, that is all.",
"I would {b}.", "You can simply {b}.")


def _ordered(pattern: str, a: str, b: str, c: str) -> tuple[str, ...]:
    text = pattern.format(a=a, b=b, c=c, A=capital(a), B=capital(b))
    return tuple(re.split(r"(?<=\.) ", text))


@dataclass(frozen=True)
class FeelingAsk:
    feeling: topics.Feeling
    prompt: str
    kind: Kind = Kind.FEELINGS
    mood: str = "feelings"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        feeling = self.feeling
        comfort = (rng.choice(feeling.comfort),) if rng.random() < 0.7 else ()
        if unsafe:
            return Core((*comfort, _suggest(rng, rng.choice(feeling.unsafe))), safe=False)
        first, second = (rng.choice(group) for group in rng.sample(feeling.advice, 2))
        if rng.random() < 0.6:
            return Core((*comfort, _suggest(rng, first)))
        return Core((*comfort, first, f"{rng.choice(ALSO)} {lower_first(second)}" if _imperative(second) else second))


ALSO = ("Then", "Also,", "Or")
SUGGESTIONS = ("", "", "", "You could ", "You can ", "Why not ", "I would say: ", "My advice: ", "Maybe you can ")


def _imperative(sentence: str) -> bool:
    """Whether it can follow "you could": it names no subject of its own."""
    return not re.match(r"(?:It|Fear|Never|Everybody) ", sentence)


def _suggest(rng: random.Random, advice: str) -> str:
    opening = rng.choice(SUGGESTIONS) if _imperative(advice) else ""
    if not opening:
        return advice
    sentence = opening + lower_first(advice)
    return f"{sentence.rstrip('.!')}?" if opening == "Why not " else sentence


@dataclass(frozen=True)
class StoryAsk:
    hero: str  # "a brave fox"
    prompt: str
    kind: Kind = Kind.STORY
    mood: str = "story"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        events, ends = rng.choice(talk.EPISODES)
        forms = [rng.choice(talk.STORY_OPENINGS), rng.choice(events), rng.choice(ends)]
        if rng.random() < 0.25:
            forms.append(rng.choice(talk.STORY_ENDINGS))
        slots = {"x": self.hero, "name": rng.choice(talk.NAMES_OF.get(self.hero.split()[-1], talk.NAMES)), "place": rng.choice(talk.PLACES)}
        return Core(tuple(capital(form.format(**slots)) for form in forms))


@dataclass(frozen=True)
class TalkAsk:
    """Anything that is answered from a list of sentences."""

    prompt: str
    answers: Sequence[str]
    kind: Kind
    slots: tuple[tuple[str, str], ...] = ()
    mood: str = "talk"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        text = rng.choice(self.answers)
        if "{" in text:
            text = capital(text.format(**dict(self.slots), r=rng.choice(talk.REASONS)))
        return Core(tuple(re.split(r"(?<=[.!?]) ", text)))


@dataclass(frozen=True)
class NonsenseAsk:
    prompt: str
    kind: Kind = Kind.NONSENSE
    mood: str = "talk"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        confused = (rng.choice(talk.CONFUSED),)
        return Core(confused if rng.random() < 0.25 else (*confused, rng.choice(talk.ASK_AGAIN)))


@dataclass(frozen=True)
class SureAsk:
    """Asked back: the same is said again, in the same words or in none."""

    prompt: str
    said: Core
    kind: Kind = Kind.FOLLOW_UP
    mood: str = "question"

    def core(self, rng: random.Random, untrue: bool, unsafe: bool) -> Core:
        sure = rng.choice(talk.FOLLOW_UPS["sure"][1])
        if rng.random() < 0.4:
            return Core((sure,))
        again = (re.sub(r"^(?:Yes|No), (.)", lambda m: m[1].upper(), sentence) for sentence in self.said.sentences)
        return Core((sure, *again), self.said.truthful)
