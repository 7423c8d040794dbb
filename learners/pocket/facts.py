"""Relations: how a table's facts are asked, how they are told, and what a wrong answer is drawn from.

Right and wrong values go through the same statements. A wrong value is the value of another fact of the relation, so that every value is wrong
about as often as it is right and nothing but knowledge tells them apart.

Slots of a template: {s} the subject, {v} the value, {n} the subject without its article, {h} and {t} its two halves ("days", "in a week").
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from learners.pocket import tables
from learners.pocket.grammar import bare, expand

KNOW = "(Do you know|Can you tell me)"
PLAIN = expand("It is {v}.", "The answer is {v}.", "That is {v}.", "I would say {v}.", "I think it is {v}.", "That would be {v}.", "It must be {v}.")
"""Statements that leave the subject out, for any value that can stand alone."""


@dataclass(frozen=True, eq=False)
class Relation:
    """Facts of one sort: subject -> value."""

    name: str
    weight: float  # how often it is asked, against the other relations
    cue: str  # a pattern that marks a question about this relation, however it is typed
    truths: Mapping[str, str]
    questions: tuple[str, ...]
    short: tuple[str, ...]  # careless questions
    full: tuple[str, ...]  # statements that name the subject
    bare: tuple[str, ...] = PLAIN  # statements that do not
    checks: tuple[str, ...] = ()  # questions for yes or no
    scale: tuple[str, ...] = field(default=(), repr=False)  # values in order: wrong ones are neighbours

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.truths)

    @cached_property
    def slots(self) -> dict[str, dict[str, str]]:
        """subject -> what fills the slots of a template."""
        return {subject: _slots(subject) for subject in self.truths}

    @cached_property
    def _pool(self) -> tuple[str, ...]:
        return tuple(self.truths.values())

    def wrong(self, rng: random.Random, subject: str) -> str:
        """A value that is another fact's, and not the subject itself."""
        truth = self.truths[subject]
        if self.scale:
            at = self.scale.index(truth)
            near = [value for value in self.scale[max(0, at - 3) : at + 4] if value != truth]
            return rng.choice(near)
        while (value := rng.choice(self._pool)) in (truth, subject):
            pass
        return value

    def say(self, template: str, subject: str, value: str = "") -> str:
        return template.format(v=value, **self.slots[subject])


def _slots(subject: str) -> dict[str, str]:
    head, _, tail = subject.partition(" / ")
    return {"s": f"{head} {tail}".strip(), "n": bare(subject), "h": head, "t": tail}


def _neighbours(name: str, weight: float, kind: str, cycle: list[str], step: int) -> Relation:
    """The day or month before or after."""
    side, today, was = ("after", "tomorrow", "is") if step > 0 else ("before", "yesterday", "was")
    asks = expand(f"(Which|What) {kind} comes {side} {{s}}?", f"What is the {kind} {side} {{s}}?", f"{KNOW} which {kind} comes {side} {{s}}?")
    if kind == "day":
        asks += expand(f"If today is {{s}}, (what|which) day {was} {today}?", f"It is {{s}}. (What|Which) day {was} {today}?")
    return Relation(
        name, weight, rf"\b{side}\b|\b{today}\b", tables.next_in(cycle, step), asks, expand(f"(the|which) {kind} {side} {{s}}", f"{side} {{s}}"),
        (f"{{v}} comes {side} {{s}}.", f"The {kind} {side} {{s}} is {{v}}.",
        f"{side.capitalize()} {{s}} comes {{v}}." if step > 0 else f"{{v}} is {side} {{s}}."),
    )  # fmt: skip


def _sums(name: str, weight: float, sign: str, numbers: list[str]) -> Relation:
    """Sums or differences, in words or in figures."""
    truths = tables.sums(sign, numbers)
    asks = expand("What is {s}?", "How much is {s}?", f"{KNOW} what {{s}} is?", "What do you get for {s}?", "I need to know what {s} is.",
    "What does {s} make?")
    short = ("{s}", "{s} is", "{s} =") if numbers[1] == "1" else ("{s}", "{s} is")
    full = ("{s} is {v}.", "{s} makes {v}.", "{s} equals {v}.", "The answer to {s} is {v}.")
    return Relation(name, weight, r"[+-]|\b(?:plus|minus)\b", truths, asks, short, full, (*PLAIN, "It makes {v}."), scale=tuple(numbers[:22]))


def _named(name: str, weight: float, truths: Mapping[str, str]) -> Relation:
    """Things known by a description."""
    asks = expand("What is {s}?", "Do you know {s}?", "What is {s} called?", "What do (you|people) call {s}?", "Can you name {s}?")
    full = ("{s} is {v}.", "{v} is {s}.", "They say that {s} is {v}.")
    return Relation(name, weight, r"^\b$", truths, asks, ("{s}", "name of {s}"), full)


FIGURES = [str(number) for number in range(22)]

RELATIONS = (
    Relation("capital", 5.5, r"\bcapital\b", tables.column(tables.COUNTRIES, 0, 1),
        expand("(What|Which city) is the capital of {s}?", f"{KNOW} the capital of {{s}}?", "(Tell me|Please tell me|Name) the capital of {s}.",
               "I forgot the capital of {s}. (What is it|Can you help me)?", "What is the capital city of {s}?"),
        expand("(capital of|the capital of|capital city of) {s}", "{s} capital"),
        expand("The (capital|capital city) of {s} is {v}.", "{v} is the capital of {s}.", "People in {s} call {v} their capital."),
        checks=expand("Is {v} the capital of {s}?", "Is the capital of {s} {v}?", "{v} is the capital of {s}, is it not?")),
    Relation("country", 3.5, r"\bcountry\b|\bwhere\b", {city: land for land, city in tables.column(tables.COUNTRIES, 0, 1).items()},
        expand("(In which|In what) country is {s}?", "(Which|What) country is {s} in?", "(Where|In which country) can I find {s}?",
        "To which country does {s} belong?",
               f"{KNOW} where {{s}} is?"),
        expand("where is {s}", "country of {s}", "{s} is in which country"),
        expand("{s} is in {v}.", "{s} is a city in {v}.", "{s} lies in {v}.", "{s} belongs to {v}."),
        expand("It is in {v}.", "The country is {v}.", "It is a city in {v}.", "It belongs to {v}.", "I think it is in {v}.")),
    Relation("continent", 2.5, r"\bcontinent\b|\bwhere\b|part of the world", tables.column(tables.COUNTRIES, 0, 2),
        expand("On (which|what) continent is {s}?", "(Which|What) continent is {s} on?", "Where (in the world|on the map) is {s}?",
        "In which part of the world is {s}?"),
        expand("where is {s}", "continent of {s}"),
        expand("{s} is in {v}.", "{s} lies in {v}.", "{s} is a part of {v}.", "You will find {s} in {v}."),
        expand("It is in {v}.", "The continent is {v}.", "I think it is in {v}.", "It lies in {v}.")),
    Relation("language", 2, r"\blanguage\b|\bspeak\b|\bspoken\b", tables.column(tables.COUNTRIES, 0, 3),
        expand("(Which|What) language do people speak in {s}?", "What do people speak in {s}?", "What is the language of {s}?",
        f"{KNOW} the language of {{s}}?"),
        expand("language of {s}", "language in {s}"),
        expand("People in {s} speak {v}.", "The language of {s} is {v}.", "In {s} people speak {v}.", "{v} is the language of {s}."),
        (*PLAIN, "They speak {v}.", "People there speak {v}.")),
    Relation("colour", 4.5, r"\bcolou?r\b", tables.COLOURS,
        expand("(What|Which) colour is {s}?", "What is the colour of {s}?", f"{KNOW} what colour {{s}} is?", "Tell me the colour of {s}.",
        "Which colour does {s} have?"),
        expand("(colour|color) of {s}", "what color is {s}", "{n} colour"),
        expand("{s} is {v}.", "The colour of {s} is {v}.", "{v} is the colour of {s}.", "Most people say that {s} is {v}."),
        (*PLAIN, "It looks {v}.", "The colour is {v}."),
        checks=expand("Is {s} {v}?", "{s} is {v}, is it not?", "Is it true that {s} is {v}?")),
    Relation("sound", 2.5, r"\b(?:sounds?|noise|says?)\b", tables.of_animals(3),
        expand("What does {s} say?", "(What|Which) (sound|noise) does {s} make?", "How does {s} sound?", "Tell me how {s} sounds.",
               "Do you know what {s} says?"),
        expand("sound of {s}", "{n} sound", "noise of {s}"),
        expand("{s} says {v}.", "{s} goes {v}.", "The sound of {s} is {v}.", "You can hear {s} say {v}."),
        expand("It says {v}.", "It goes {v}.", "The sound is {v}.", "I think it says {v}.")),
    Relation("young", 2.5, r"\b(?:young|baby|babies|child)\b", tables.of_animals(4),
        expand("What is a (baby|young) {n} called?", "What do (you|we|people) call a (baby|young) {n}?",
        "What is the (name|word) for a (baby|young) {n}?",
               "How do you call the child of {s}?"),
        expand("(baby|young) {n}", "name of a (baby|young) {n}"),
        expand("A (baby|young) {n} is called {v}.", "A young {n} is {v}.", "People call a young {n} {v}.", "The child of {s} is {v}."),
        (*PLAIN, "It is called {v}.", "We call it {v}.")),
    Relation("home", 2, r"\b(?:live|lives|home|house|find)\b", tables.of_animals(5),
        expand("Where does {s} live?", "Where (can I|do you) find {s}?", "In what place does {s} live?", f"{KNOW} where {{s}} lives?"),
        expand("home of {s}", "{n} home", "where do i find {s}"),
        expand("{s} lives {v}.", "You (can|will) find {s} {v}.", "{s} has its home {v}.", "{s} is at home {v}."),
        expand("It lives {v}.", "You can find it {v}.", "Look {v}.", "I think it lives {v}.")),
    Relation("legs", 2.2, r"\blegs?\b|\bfeet\b", tables.of_animals(2),
        expand("How many legs does {s} have?", "How many legs has {s}?", f"{KNOW} how many legs {{s}} has?", "{s} has how many legs?"),
        expand("legs of {s}", "{n} legs", "how many legs {s}"),
        expand("{s} has {v} legs.", "{s} has {v} legs in all.", "{s} has got {v} legs.", "Everybody knows that {s} has {v} legs."),
        expand("It has {v} legs.", "I think it has {v} legs.", "It has {v} legs in all.", "It has got {v} legs."),
        checks=expand("Does {s} have {v} legs?", "{s} has {v} legs, has it not?")),
    Relation("class", 2, r"\b(?:kind|sort|type|group)\b", tables.of_animals(1),
        expand("What (kind|sort) of animal is {s}?", "What is {s}?", f"{KNOW} what (kind|sort) of animal {{s}} is?"),
        expand("what is {s}", "what kind of animal is {s}"),
        expand("{s} is {v}.", "{s} counts as {v}.", "People who know animals call {s} {v}.", "As you may know, {s} is {v}."),
        checks=expand("Is {s} {v}?", "Is it true that {s} is {v}?")),
    _sums("sum in words", 4, "plus", tables.NUMBERS),
    _sums("sum in figures", 4, "+", FIGURES),
    _sums("difference in words", 2.5, "minus", tables.NUMBERS),
    _sums("difference in figures", 2.5, "-", FIGURES),
    Relation("opposite", 5.5, r"\bopposite\b|\bcontrary\b", tables.OPPOSITES | {value: key for key, value in tables.OPPOSITES.items()},
        expand("What is the opposite of {s}?", "(Which|What) word is the opposite of {s}?", f"{KNOW} the opposite of {{s}}?",
        "(Tell me|Name) the opposite of {s}.",
               "(Which|What) word means the opposite of {s}?"),
        expand("(opposite of|the opposite of) {s}", "{s} opposite"),
        expand("The opposite of {s} is {v}.", "{v} is the opposite of {s}.", "The word {v} is the opposite of {s}.",
        "The opposite of {s} must be {v}."),
        (*PLAIN, "The word is {v}."),
        checks=expand("Is {v} the opposite of {s}?", "Is the opposite of {s} {v}?")),
    _neighbours("day after", 1.3, "day", tables.DAYS, 1),
    _neighbours("day before", 1, "day", tables.DAYS, -1),
    _neighbours("month after", 1.3, "month", tables.MONTHS, 1),
    _neighbours("month before", 1, "month", tables.MONTHS, -1),
    Relation("month length", 1, r"\bdays\b|\blong\b", dict(zip(tables.MONTHS, tables.MONTH_LENGTHS, strict=True)),
        expand("How many days does {s} have?", "How many days are in {s}?", "How many days are there in {s}?"), expand("days in {s}",
        "how long is {s}"),
        expand("{s} has {v} days.", "There are {v} days in {s}.", "You can count {v} days in {s}."), expand("It has {v} days.", "There are {v} days.",
        "I count {v} days.")),
    Relation("month number", 1, r"\bmonth\b", {f"the {nth} month": month for nth, month in zip(tables.ORDINALS, tables.MONTHS, strict=True)},
        expand("(Which|What) is {s} of the year?", "What is the name of {s} of the year?", f"{KNOW} {{s}} of the year?"), expand("{s} of the year",
        "{s}"),
        expand("{s} of the year is {v}.", "{v} is {s} of the year.", "{s} is called {v}.")),
    Relation("count", 3, r"\bhow many\b|\bnumber of\b", tables.COUNTS,
        expand("How many {h} are there {t}?", "How many {h} can you count {t}?", f"{KNOW} how many {{h}} there are {{t}}?",
        "Tell me the number of {h} {t}."),
        expand("how many {h} {t}", "number of {h} {t}"),
        expand("There are {v} {h} {t}.", "You can count {v} {h} {t}.", "The number of {h} {t} is {v}.", "Everybody counts {v} {h} {t}."),
        expand("There are {v}.", "The answer is {v}.", "I count {v}.", "There are {v} of them.", "The number is {v}.", "It must be {v}.")),
    Relation("material", 2, r"\bmade\b|\bmake\b", tables.MATERIALS,
        expand("What is {s} made (of|from)?", f"{KNOW} what {{s}} is made of?", "What do people make {s} from?"), expand("{s} is made of",
        "{n} made of"),
        expand("{s} is made (of|from) {v}.", "People make {s} from {v}.", "You need {v} to make {s}."),
        expand("It is made (of|from) {v}.", "People make it from {v}.", "I think it is made of {v}.")),
    Relation("food", 1.8, r"\beats?\b|\bfood\b|\bfeed\b", tables.of_animals(6),
        expand("What does {s} eat?", "What does {s} like to eat?", "What is the food of {s}?", f"{KNOW} what {{s}} eats?"), expand("food of {s}",
        "{n} food"),
        expand("{s} eats {v}.", "{s} likes to eat {v}.", "The food of {s} is {v}.", "You can feed {s} with {v}."),
        expand("It eats {v}.", "It likes to eat {v}.", "I think it eats {v}.", "The food is {v}.")),
    Relation("tool", 2.2, r"\buse\b|\bneed\b|\bhelps?\b", tables.TOOLS,
        expand("What do (you|we|people) use to {s}?", "What do I need to {s}?", "(Which|What) thing helps me to {s}?"), expand("tool to {s}",
        "thing to {s} with"),
        expand("You use {v} to {s}.", "To {s}, you use {v}.", "People use {v} to {s}.", "If you want to {s}, you need {v}."),
        expand("You use {v}.", "You need {v}.", "Take {v}.", "I would use {v}.")),
    Relation("job", 2.2, r"\bwho\b|\bsomebody\b", tables.JOBS,
        expand("Who {s}?", "What do you call somebody who {s}?", f"{KNOW} who {{s}}?", "What is the name for somebody who {s}?"),
        expand("who {s}", "somebody who {s}"),
        expand("{v} {s}.", "Somebody who {s} is {v}.", "It is {v} who {s}.", "Somebody who {s} is called {v}."),
        expand("It is {v}.", "That is {v}.", "I think it is {v}.", "The answer is {v}.", "We say {v}.", "That would be {v}.")),
    Relation("change", 2, r"\bbecomes?\b|\bturns? into\b|\bgrows?\b", tables.BECOMES,
        expand("What does {s} (become|turn into)?", "What will {s} be in the end?", f"{KNOW} what {{s}} turns into?"), expand("{s} becomes",
        "{s} turns into"),
        expand("{s} (becomes|turns into) {v}.", "In the end {s} will be {v}."),
        expand("It (becomes|turns into) {v}.", "It will be {v}.", "In the end it is {v}.", "I think it becomes {v}.")),
    Relation("taste", 1.2, r"\btastes?\b", tables.TASTES,
        expand("How does {s} taste?", "What is the taste of {s}?", f"{KNOW} how {{s}} tastes?", "What does {s} taste like?"), expand("taste of {s}",
        "{n} taste"),
        expand("{s} tastes {v}.", "The taste of {s} is {v}.", "Most people find that {s} tastes {v}."),
        expand("It tastes {v}.", "The taste is {v}.", "I think it tastes {v}.", "It is {v}.")),
    _named("planet", 1, tables.PLANETS),
    _named("record", 1.5, tables.RECORDS),
)  # fmt: skip
BY_NAME = {relation.name: relation for relation in RELATIONS}
PROPER = (
    {cell for row in tables.COUNTRIES for cell in row} | set(tables.DAYS) | set(tables.MONTHS) | set(tables.PLANETS.values())
) - {"-"}  # fmt: skip
"""Names that keep their capital inside a sentence."""
