"""Drawing what somebody says to Pocket: the kinds and their shares, the wordings, how carelessly they are typed, and what comes second."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import accumulate

from learners.pocket import talk, topics
from learners.pocket.asks import ABOUT, AboutAsk, Ask, Core, FactAsk, FeelingAsk, HowToAsk, Kind, NonsenseAsk, StoryAsk, SureAsk, TalkAsk, lower_first
from learners.pocket.facts import RELATIONS, Relation
from learners.pocket.grammar import bare, capital, plural, with_article

GREETED = ("Hi! ", "Hello. ", "Hey Pocket! ", "One more thing. ")
PREFIXES = (*GREETED, "Please tell me: ", "I have a question. ", "Quick question: ", "Can you help me? ")


def careless(prompt: str) -> str:
    """As somebody in a hurry types it."""
    return prompt.lower().rstrip("?.!")


UNFINISHED = (" is", "=", " of", " into", " becomes", " country")


def dressed(rng: random.Random, question: str, short: str | None = None) -> str:
    """The question as it is, in its short form, carelessly typed, or after a few words of courtesy."""
    luck = rng.random()
    if short and luck < 0.2:
        return short.lower() + rng.choice(("", "", "?", "" if short.endswith(UNFINISHED) else " please"))
    if luck < 0.35:
        return careless(question) + rng.choice(("", "", "?"))
    if luck < 0.9:
        return question
    return rng.choice(PREFIXES if question[0] in "WH" else GREETED) + question


ABOUT_SUBJECTS = tuple(ABOUT)
ABOUT_PROMPTS = ("Tell me about {x}.", "Tell me something about {x}.", "What do you know about {x}?", "What can you tell me about {x}?",
"Do you know anything about {x}?", "Talk about {x}.")
HOWTO_PROMPTS = ("How do I {x}?", "How can I {x}?", "How do you {x}?", "What is the best way to {x}?", "Can you tell me how to {x}?",
"Tell me how to {x}.", "I want to {x}. How do I start?", "Explain how to {x}.")
WEIGHTS = tuple(accumulate(relation.weight for relation in RELATIONS))


def fact(rng: random.Random) -> FactAsk:
    relation = rng.choices(RELATIONS, cum_weights=WEIGHTS)[0]
    subject = rng.choice(relation.subjects)
    if relation.checks and rng.random() < 0.15:
        value = relation.truths[subject] if rng.random() < 0.5 else relation.wrong(rng, subject)
        return FactAsk(relation, subject, dressed(rng, capital(relation.say(rng.choice(relation.checks), subject, value))), value)
    prompt = dressed(rng, capital(relation.say(rng.choice(relation.questions), subject)), relation.say(rng.choice(relation.short), subject))
    if "figures" in relation.name and rng.random() < 0.3:
        prompt = re.sub(r" ([+-]) ", r"\1", prompt)
    return FactAsk(relation, subject, prompt)


def about(rng: random.Random) -> AboutAsk:
    subject = rng.choice(ABOUT_SUBJECTS)
    name = plural(bare(subject)) if subject.startswith(("a ", "an ")) and rng.random() < 0.7 else subject
    return AboutAsk(subject, dressed(rng, rng.choice(ABOUT_PROMPTS).format(x=name)))


def howto(rng: random.Random) -> HowToAsk:
    chosen = rng.choice(topics.HOWTOS)
    task = re.sub(r"\bmy\b", "your", chosen.task) if (form := rng.choice(HOWTO_PROMPTS)) == "How do you {x}?" else chosen.task
    return HowToAsk(chosen, dressed(rng, form.format(x=task), rng.choice((f"how to {chosen.task}", chosen.task))))


def feelings(rng: random.Random) -> FeelingAsk:
    chosen = rng.choice(topics.FEELINGS)
    return FeelingAsk(chosen, _maybe_careless(rng, rng.choice(chosen.prompts)))


def story(rng: random.Random) -> StoryAsk:
    hero = rng.choice(talk.HEROES)
    hero = f"{rng.choice(talk.TRAITS)} {hero}" if rng.random() < 0.75 and " " not in hero else hero
    slots = {"x": with_article(hero)}
    return StoryAsk(slots["x"], dressed(rng, rng.choice(talk.STORY_PROMPTS).format(**slots), rng.choice(talk.STORY_SHORT).format(**slots)))


def _talk(kind: Kind, groups: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> Callable[[random.Random], TalkAsk]:
    pairs = tuple(groups.values())

    def draw(rng: random.Random) -> TalkAsk:
        prompts, answers = rng.choice(pairs)
        return TalkAsk(_maybe_careless(rng, rng.choice(prompts)), answers, kind)

    return draw


def opinion(rng: random.Random) -> TalkAsk:
    x, y = rng.sample(talk.LIKES, 2)
    slots = (("x", x), ("y", y))
    if rng.random() < 0.6:
        return TalkAsk(dressed(rng, capital(rng.choice(talk.LIKE_PROMPTS).format(x=x))), talk.LIKE_ANSWERS, Kind.OPINION, slots)
    return TalkAsk(dressed(rng, capital(rng.choice(talk.CHOICE_PROMPTS).format(x=x, y=y))), talk.CHOICE_ANSWERS, Kind.OPINION, slots)


def nonsense(rng: random.Random) -> NonsenseAsk:
    sort = rng.random()
    if sort < 0.1:
        return NonsenseAsk(rng.choice(("", " ", "...", "?", "!!", "??", "-", ". . .")))
    if sort < 0.45:
        return NonsenseAsk(" ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz;,", k=rng.randint(2, 9))) for _ in range(rng.randint(1, 4))))
    if sort < 0.75:
        first, last = rng.choice(SCRIPTS)
        return NonsenseAsk("".join(chr(rng.randint(first, last)) if rng.random() < 0.9 else " " for _ in range(rng.randint(2, 12))).strip())
    if sort < 0.9:
        return NonsenseAsk(" ".join(rng.choices(MUDDLE, k=rng.randint(3, 9))))
    return NonsenseAsk(" ".join(rng.choices(MUDDLE, k=rng.randint(40, 120))))


SCRIPTS = ((0x4E00, 0x9FA5), (0x0430, 0x044F), (0x03B1, 0x03C9), (0x0621, 0x064A), (0x05D0, 0x05EA), (0x0E01, 0x0E2E), (0x3042, 0x3093),
(0x1F600, 0x1F64F), (0x20, 0x40))
_NAMING = {word for relation in RELATIONS for subject in relation.subjects for word in subject.split() if word.isalpha()}
MUDDLE = tuple(sorted({*_NAMING, *talk.HEROES, *"of to and but with the a".split()}))


def _maybe_careless(rng: random.Random, prompt: str) -> str:
    return careless(prompt) if rng.random() < 0.2 else prompt


DRAWS: tuple[tuple[float, Callable[[random.Random], Ask]], ...] = (
    (0.41, fact), (0.045, about), (0.115, howto), (0.11, feelings), (0.11, story), (0.065, _talk(Kind.GREETING, talk.GREETINGS)),
    (0.085, _talk(Kind.SMALL_TALK, talk.SMALL_TALK)), (0.035, opinion), (0.025, nonsense),
)  # fmt: skip
SHARES = tuple(accumulate(share for share, _ in DRAWS))
MAKERS = tuple(draw for _, draw in DRAWS)


def first_ask(rng: random.Random) -> Ask:
    """A prompt that opens a chat."""
    return rng.choices(MAKERS, cum_weights=SHARES)[0](rng)


# --- drawing a second one ----------------------------------------------------------------------------------------------


def second_ask(rng: random.Random, before: Ask, core: Core | None) -> Ask:
    """What somebody says next; `core` is the substance they were told, None after an evasive answer."""
    luck = rng.random()
    if luck < 0.3 or (core is None and luck < 0.6):
        return _follow(rng, "any")
    if isinstance(before, FactAsk) and luck < 0.85:
        return _another(rng, before.relation)
    if isinstance(before, FactAsk) and core is not None:
        return SureAsk(_maybe_careless(rng, rng.choice(talk.FOLLOW_UPS["sure"][0])), core)
    if isinstance(before, StoryAsk) and core is not None and luck < 0.8:
        return _follow(rng, "more", (("name", _named_in(core)),))
    if isinstance(before, HowToAsk) and core is not None and luck < 0.7:
        return _follow(rng, "effort")
    if isinstance(before, FeelingAsk) and core is not None and luck < 0.85:
        if luck < 0.55 and core.safe:
            return _follow(rng, "why")
        return FeelingAsk(before.feeling, _maybe_careless(rng, rng.choice(WHAT_ELSE)), Kind.FOLLOW_UP)
    return first_ask(rng)


WHAT_ELSE = ("What else can I do?", "Is there something else that helps?", "Do you have another idea?", "What else?", "Anything else?")


def _another(rng: random.Random, relation: Relation) -> FactAsk:
    """The same question about another subject."""
    subject = rng.choice(relation.subjects)
    if rng.random() < 0.3 and relation.name not in ("count", "tool", "job") and "sum" not in relation.name:
        name = relation.slots[subject]["s"]
        return FactAsk(relation, subject, _maybe_careless(rng, rng.choice(("And {}?", "What about {}?",
        "And what about {}?")).format(name)), elliptic=True, kind=Kind.FOLLOW_UP)
    question = relation.say(rng.choice(relation.questions), subject)
    prompt = f"And {lower_first(capital(question))}" if question[0] in "WH" and rng.random() < 0.7 else capital(question)
    return FactAsk(relation, subject, _maybe_careless(rng, prompt), kind=Kind.FOLLOW_UP)


def _follow(rng: random.Random, name: str, slots: tuple[tuple[str, str], ...] = ()) -> TalkAsk:
    prompts, answers = talk.FOLLOW_UPS[name]
    return TalkAsk(_maybe_careless(rng, rng.choice(prompts)), answers, Kind.FOLLOW_UP, slots)


def _named_in(core: Core) -> str:
    return next(name for sentence in core.sentences for name in re.findall(r"\w+", sentence) if name in talk.NAMES)


