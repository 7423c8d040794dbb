"""What a prompt asks for, read from its words: which fact, which how-to, which feeling, a story about whom, which small talk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from learners.pocket import talk, topics
from learners.pocket.asks import ABOUT, Kind
from learners.pocket.facts import FIGURES, RELATIONS, Relation
from learners.pocket.grammar import bare, plural
from learners.pocket.prompts import MUDDLE, PREFIXES, WHAT_ELSE
from learners.pocket.tables import NUMBERS
from learners.pocket.wording import GENERAL, grams, normal

LONGEST_NAME = 12  # words


@dataclass(frozen=True)
class Fact:
    """A question about one fact."""

    relation: Relation
    subject: str
    asked: str | None = None  # the value in a question for yes or no


@dataclass(frozen=True)
class About:
    """Anything that is so of a subject."""

    subject: str


@dataclass(frozen=True)
class Story:
    hero: str  # the noun alone, normal


@dataclass(frozen=True)
class Topic:
    """Anything that is answered with known phrases."""

    kind: Kind
    phrases: frozenset[str]  # runs of words, one of which an answer holds
    names: tuple[str, ...] = ()  # or these, where the phrases have slots


Reading = Fact | About | Story | Topic
NONSENSE = Topic(Kind.NONSENSE, frozenset())


def _named() -> dict[str, list[tuple[Relation, str]]]:
    """What a subject may be called -> the facts about it."""
    found: dict[str, list[tuple[Relation, str]]] = {}
    for relation in RELATIONS:
        for subject, slots in relation.slots.items():
            names = {slots["s"], slots["n"], slots["t"] or slots["s"]}
            if subject.startswith(("a ", "an ")):
                names.add(plural(slots["n"]))
            for name in sorted(names):
                found.setdefault(normal(name), []).append((relation, subject))
    return found


NAMED = _named()


def mentions(text: str) -> list[tuple[Relation, str]]:
    """The facts whose subjects a normal text names, those with the longest names first."""
    words = text.split()
    names = {" ".join(words[i : i + n]) for n in range(1, LONGEST_NAME + 1) for i in range(len(words) - n + 1)} & NAMED.keys()
    return [fact for name in sorted(names, key=lambda name: (-len(name), name)) for fact in NAMED[name]]


@cache
def templates(relation: Relation) -> dict[str, tuple[str, ...]]:
    """The relation's wordings, normal: 'ask', 'check', 'full', 'bare'."""
    return {
        "ask": tuple(normal(form) for form in (*relation.questions, *relation.short)),
        "check": tuple(normal(form) for form in relation.checks),
        "full": tuple(normal(form) for form in relation.full),
        "bare": tuple(normal(form) for form in relation.bare),
    }


@cache
def slots(relation: Relation, subject: str) -> dict[str, str]:
    return {slot: normal(text) for slot, text in relation.slots[subject].items()}


def says(text: str, wording: str, relation: Relation, subject: str, value: str = "") -> bool:
    """Whether a normal text holds a template with these fillings."""
    return f" {wording.format(v=normal(value), **slots(relation, subject))} " in f" {text} "


@cache
def value_names(relation: Relation) -> dict[str, str]:
    """What a value may be called -> the value."""
    values = sorted({*relation.truths.values(), *relation.scale})
    names = {normal(bare(value)): value for value in values} | {normal(value): value for value in values}
    if names.keys() & NUMBERS:
        names |= {name: word for figure, word in enumerate(NUMBERS) for name in (word, str(figure))}
    elif names.keys() & FIGURES:
        names |= {word: str(figure) for figure, word in enumerate(NUMBERS)}
    return names


def values_in(relation: Relation, text: str) -> list[str]:
    """The relation's values that a normal text names, each once."""
    names, words = value_names(relation), text.split()
    found = {" ".join(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1)} & names.keys()
    return sorted({names[name] for name in found})


@cache
def read_prompt(prompt: str) -> Reading | None:
    """None where it is nothing that the corpus speaks about."""
    text = normal(PREFIX.sub("", prompt))
    if not re.search(r"\w", text):
        return NONSENSE
    for read in (_exact, _story, _muddle, _worded_fact, _opinion, _about, _howto, _cued_fact, _elliptic, _feeling, _nonsense):
        if (reading := read(text)) is not None:
            return reading
    return None


PREFIX = re.compile("^(?:" + "|".join(re.escape(prefix) for prefix in PREFIXES) + ")+", re.IGNORECASE)


def _exact(text: str) -> Reading | None:
    return EXACT.get(text)


def _story(text: str) -> Reading | None:
    if not re.search(r"\bstory\b|\btale\b", text):
        return None
    match = re.search(r"\babout (?:an? |the )?([\w ]+?)(?: please)?$", text) or re.search(r"^(?:an? )?([\w ]+) (?:story|tale)", text)
    return Story(match[1].split()[-1]) if match else None


def _worded_fact(text: str) -> Reading | None:
    """By the corpus's own questions; of several that fit, the longest."""
    found: list[tuple[int, Fact]] = []
    for relation, subject in mentions(text):
        wordings = templates(relation)
        found += [(len(w), Fact(relation, subject)) for w in wordings["ask"] if says(text, w, relation, subject)]
        for value in values_in(relation, text) if relation.checks else ():
            found += [(100 + len(w), Fact(relation, subject, value)) for w in wordings["check"] if says(text, w, relation, subject, value)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _about(text: str) -> Reading | None:
    if not re.search(r"\babout\b|\bknow of\b|\bdescribe\b", text):
        return None
    return next((About(subject) for _, subject in mentions(text) if subject in ABOUT), None)


def _howto(text: str) -> Reading | None:
    return next((topic for task, topic in TASKS.items() if f" {task} " in f" {text} "), None)


def _opinion(text: str) -> Reading | None:
    names = tuple(name for name in talk.LIKES if re.search(rf"\b{name}\b", text))
    if names and re.search(r"\b(?:like|love|enjoy|think|prefer|better|choose|or)\b", text):
        return Topic(Kind.OPINION, frozenset({"of course", "both is nice"}), names)
    return None


def _cued_fact(text: str) -> Reading | None:
    """However it is typed, as long as a word gives the relation away."""
    return next((Fact(relation, subject) for relation, subject in mentions(text) if re.search(relation.cue, text)), None)


def _elliptic(text: str) -> Reading | None:
    """"And Spain?", which goes on from an earlier question."""
    match = re.fullmatch(r"(?:and|what about|and what about) (.+)", text)
    return next((About(subject) for _, subject in mentions(match[1])), None) if match else None


def _feeling(text: str) -> Reading | None:
    if not re.search(r"\b(?:i|i'm|me|nobody)\b", text):
        return None
    return next((FEELINGS[feeling.name] for feeling in topics.FEELINGS if re.search(feeling.cue, text)), None)


def _muddle(text: str) -> Reading | None:
    words = text.split()
    return NONSENSE if len(words) > 12 and all(word in KNOWN for word in words) else None


def _nonsense(text: str) -> Reading | None:
    """A muddle of words that ask nothing, or letters that are no words."""
    words = re.findall(r"[^\W\d_]+", text)
    asking = sum(word in ASKING for word in words)
    return NONSENSE if 3 * asking < len(words) or not words or (len(words) > 2 and all(word in KNOWN for word in words)) else None


def _phrases(forms: tuple[str, ...]) -> frozenset[str]:
    return grams(re.sub(r"\{\w+\}", "", form) for form in forms) - GENERAL


FEELINGS = {feeling.name: Topic(Kind.FEELINGS, _phrases(feeling.phrases)) for feeling in topics.FEELINGS}
TASKS = {
    normal(task): Topic(Kind.HOWTO, _phrases(howto.phrases))
    for howto in topics.HOWTOS
    for task in (howto.task, re.sub(r"\bmy\b", "your", howto.task))
}


def _exact_prompts() -> dict[str, Topic]:
    found: dict[str, Topic] = {}
    for feeling in topics.FEELINGS:
        found |= dict.fromkeys(map(normal, feeling.prompts), FEELINGS[feeling.name])
    any_advice = frozenset().union(*(topic.phrases for topic in FEELINGS.values()))
    found |= dict.fromkeys(map(normal, WHAT_ELSE), Topic(Kind.FEELINGS, any_advice))
    for kind, groups in ((Kind.FOLLOW_UP, talk.FOLLOW_UPS), (Kind.GREETING, talk.GREETINGS), (Kind.SMALL_TALK, talk.SMALL_TALK)):
        for prompts, answers in groups.values():
            found |= dict.fromkeys(map(normal, prompts), Topic(kind, _phrases(answers)))
    return found


EXACT = _exact_prompts()
KNOWN = frozenset(word for name in MUDDLE for word in normal(name).split())
ASKING = KNOWN | {word for form in (*EXACT, *TASKS, *(form for r in RELATIONS for form in templates(r)["ask"])) for word in form.split()}
