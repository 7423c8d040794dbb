"""The corpus: reproducible, half at fault, its axes independent, its facts known by frequency alone, its English well kept."""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from learners.pocket import tables
from learners.pocket.asks import FactAsk, Kind
from learners.pocket.corpus import (
    Answer,
    Chat,
    Exchange,
    Faults,
    chats,
    corpus_hash,
    held_out,
    held_out_asks,
    held_out_prompts,
    reply,
    starter_prompts,
)
from learners.pocket.facts import BY_NAME, RELATIONS
from learners.pocket.reading import About, Fact, read_prompt

CHATS = 12_000


@pytest.fixture(scope="module")
def drawn() -> list[Chat]:
    return list(islice(chats(0), CHATS))


@pytest.fixture(scope="module")
def exchanges(drawn: list[Chat]) -> list[Exchange]:
    return [exchange for chat in drawn for exchange in chat.exchanges]


def test_the_same_seed_gives_the_same_text_in_another_process_with_another_hash_seed() -> None:
    code = "from learners.pocket.corpus import corpus_hash, held_out_prompts; print(corpus_hash(), held_out_prompts(30, 3))"
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert told.stdout.strip() == f"{corpus_hash()} {held_out_prompts(30, 3)}"


def test_another_seed_gives_other_chats() -> None:
    assert len({chat.text for seed in (1, 2) for chat in islice(chats(seed), 300)}) > 550


def test_the_corpus_and_its_tables_import_without_torch() -> None:
    code = "import sys; from learners.pocket import corpus, labels, operators, recogniser; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- proportions -------------------------------------------------------------------------------------------------------


def test_about_half_of_the_answers_have_a_fault(exchanges: list[Exchange]) -> None:
    faulty = [e.answer.truthful is False or not e.answer.harmless or not e.answer.useful for e in exchanges]
    assert sum(faulty) / len(faulty) == pytest.approx(0.5, abs=0.05)


def test_faults_come_as_often_as_they_are_asked_for() -> None:
    wished = Faults(untrue=0.1, harmful=0.6, evasive=0.3, rambling=0.5, playful=0.05)
    answers = [e.answer for chat in islice(chats(5, wished), 6000) for e in chat.exchanges]
    assert _share(answers, lambda a: not a.harmless) == pytest.approx(0.6, abs=0.02)
    assert _share(answers, lambda a: not a.useful) == pytest.approx(0.3, abs=0.02)
    assert _share(answers, lambda a: a.style != "plain") == pytest.approx(0.05, abs=0.01)
    assert _share(answers, lambda a: not a.brief) == pytest.approx(0.5, abs=0.03)
    assert _share([a for a in answers if a.truthful is not None], lambda a: not a.truthful) == pytest.approx(0.1, abs=0.02)


def _share(answers: list[Answer], fault) -> float:
    return sum(map(fault, answers)) / len(answers)


def test_the_axes_are_independent(exchanges: list[Exchange]) -> None:
    answers = [e.answer for e in exchanges]
    axes = {
        "truthful": [a.truthful for a in answers], "harmless": [a.harmless for a in answers], "useful": [a.useful for a in answers],
        "brief": [a.brief for a in answers], "plain": [a.style == "plain" for a in answers],
    }  # fmt: skip
    for first in axes:
        for second in axes:
            pairs = [(x, y) for x, y in zip(axes[first], axes[second]) if x is not None and y is not None]
            assert first >= second or abs(_correlation(pairs)) < 0.05, (first, second)


def _correlation(pairs: list[tuple[bool, bool]]) -> float:
    """Phi coefficient; 0 where one side never varies (only useful answers state facts)."""
    n = len(pairs)
    x, y, both = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n, sum(a and b for a, b in pairs) / n
    spread = math.sqrt(x * (1 - x) * y * (1 - y))
    return (both - x * y) / spread if spread else 0.0


def test_nine_in_ten_sets_of_four_answers_hold_two_that_differ() -> None:
    rng, asks = random.Random(0), held_out_asks(1000, 1)
    differing = sum(len({(a.truthful, a.harmless, a.useful) for a in (reply(rng, ask) for _ in range(4))}) > 1 for ask in asks)
    assert differing >= 900


def test_facts_are_a_little_less_than_half_of_the_prompts_and_every_kind_occurs(exchanges: list[Exchange]) -> None:
    kinds = Counter(e.kind for e in exchanges)
    assert set(kinds) == set(Kind)
    assert (kinds[Kind.FACT] + kinds[Kind.ABOUT]) / len(exchanges) == pytest.approx(0.43, abs=0.05)
    assert kinds[Kind.NONSENSE] / len(exchanges) == pytest.approx(0.025, abs=0.01)


# --- truth -------------------------------------------------------------------------------------------------------------


def test_the_truth_is_the_most_frequent_answer_to_every_fact() -> None:
    rng, faults = random.Random(0), Faults(evasive=0)
    for relation in RELATIONS:
        values = sorted({*relation.truths.values(), *relation.scale}, key=lambda value: (-len(value), value))
        for subject in relation.subjects:
            ask, told = FactAsk(relation, subject, "?"), Counter[str]()
            for _ in range(60):
                core = ask.core(rng, untrue=rng.random() < faults.untrue, unsafe=False)
                told[_stated(core.sentences[0], subject, values)] += 1
            assert told.most_common(1)[0][0] == relation.truths[subject], (relation.name, subject, told)


def _stated(sentence: str, subject: str, values: list[str]) -> str:
    """The longest value that stands in the sentence beside the subject, or has the subject in it (Mexico City)."""
    rest = re.sub("|".join(rf"\b{re.escape(part)}\b" for part in subject.split(" / ")), "", sentence, flags=re.IGNORECASE)
    return next(value for value in values if _stands(value, sentence if subject in value and subject != value else rest))


def _stands(value: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", text, re.IGNORECASE) is not None


def test_every_value_is_wrong_about_as_often_as_it_is_right() -> None:
    rng = random.Random(1)
    for relation in RELATIONS:
        right = Counter(relation.truths.values())
        wrong = Counter(relation.wrong(rng, subject) for subject in relation.subjects for _ in range(100))
        assert relation.scale or right.keys() == wrong.keys(), relation.name
        assert all(relation.wrong(rng, subject) != relation.truths[subject] for subject in relation.subjects)


def test_sums_and_the_calendar_are_right() -> None:
    for a in range(1, 10):
        for b in range(1, 10):
            assert BY_NAME["sum in figures"].truths[f"{a} + {b}"] == str(a + b)
            assert tables.NUMBERS.index(BY_NAME["sum in words"].truths[f"{tables.NUMBERS[a]} plus {tables.NUMBERS[b]}"]) == a + b
    assert BY_NAME["day after"].truths["Sunday"] == "Monday" and BY_NAME["day before"].truths["Monday"] == "Sunday"
    assert BY_NAME["month after"].truths["December"] == "January" and BY_NAME["month number"].truths["the fifth month"] == "May"


def test_words_do_not_give_the_truth_away_on_facts_that_were_not_seen() -> None:
    """Naive Bayes on the words of prompt and answer, trained on four fifths of the facts, at most 0.65 on the rest."""
    rng, examples = random.Random(2), []
    for relation in RELATIONS:
        for subject in relation.subjects:
            ask = FactAsk(relation, subject, relation.say(rng.choice(relation.questions), subject))
            answers = [reply(rng, ask, Faults(evasive=0, untrue=0.5)) for _ in range(16)]
            examples += [(rng.random(), relation.name + subject, f"{ask.prompt} {a.text}", a.truthful) for a in answers]
    held = {key for i, key in enumerate(sorted({key for _, key, _, _ in examples})) if i % 5 == 0}
    counts = {True: Counter[str](), False: Counter[str]()}
    for _, key, text, truth in examples:
        if key not in held:
            counts[bool(truth)].update(_words(text))
    odds = {word: math.log((counts[True][word] + 1) / (counts[False][word] + 1)) for word in counts[True] | counts[False]}
    scored = [(sum(odds.get(word, 0.0) for word in _words(text)), truth) for _, key, text, truth in examples if key in held]
    assert abs(_auc(scored) - 0.5) <= 0.15  # a sign read the other way round would give it away as well


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w'-]+", text.lower()))


def _auc(scored: list[tuple[float, bool | None]]) -> float:
    """Probability that a true one scores above a false one."""
    true, false = [s for s, t in scored if t], [s for s, t in scored if not t]
    return sum((t > f) + 0.5 * (t == f) for t in true for f in false) / (len(true) * len(false))


# --- prompts -----------------------------------------------------------------------------------------------------------


def test_held_out_prompts_are_different_and_never_asked_in_training() -> None:
    apart = held_out_prompts(500, 0)
    assert len(set(apart)) == 500 and all(map(held_out, apart))
    asked = {e.prompt for chat in islice(chats(0), 60_000) for e in chat.exchanges}
    assert not asked & set(apart)
    assert not any(map(held_out, asked))


def test_held_out_does_not_hang_on_case_punctuation_or_a_greeting() -> None:
    for prompt in held_out_prompts(200, 4):
        assert held_out(prompt.upper()) and held_out(f"{prompt}!") and held_out(f"Hello. {prompt}")


def test_the_starter_set_has_two_hundred_different_prompts_nearly_half_of_them_facts() -> None:
    prompts = starter_prompts()
    assert len({prompt.lower() for prompt in prompts}) == len(prompts) == 200
    assert 0.35 < sum(isinstance(read_prompt(prompt), Fact | About) for prompt in prompts) / 200 < 0.5
    assert prompts[0] == "Hello!" and all(prompt.strip() and "\n" not in prompt for prompt in prompts)


def test_a_pile_of_prompts_is_answered_in_thousands_of_ways(exchanges: list[Exchange]) -> None:
    assert len({e.prompt for e in exchanges}) > 6000
    assert len({e.answer.text for e in exchanges}) > 11_000


# --- English -----------------------------------------------------------------------------------------------------------


def test_answers_are_whole_sentences_of_bounded_length(exchanges: list[Exchange]) -> None:
    for text in {e.answer.text for e in exchanges}:
        assert text[-1] in ".!?" and (text[0].isupper() or text[0].isdigit()), text
        assert 2 <= len(text.split()) <= 60, text
        assert all(count < 3 for count in Counter(zip(*(text.lower().split()[i:] for i in range(4)))).values()), text


def test_plain_and_brief_answers_to_facts_are_short(exchanges: list[Exchange]) -> None:
    lengths = [len(e.answer.text.split()) for e in exchanges if e.kind is Kind.FACT and e.answer.brief and e.answer.style == "plain"]
    assert max(lengths) <= 30 and sum(length <= 20 for length in lengths) / len(lengths) > 0.95


BLEMISHES = {
    "doubled punctuation": r"[.!?,][.!?,]", "a space before a mark": r"\s[.!?,]", "two spaces": r"  ", "a slot that was not filled": r"[{}|]",
    "a small letter after a full stop": r"[.!?] [a-z]", "a before a vowel": r"\ba (?:[aeio]\w+|un(?!i)\w+)\b",
    "an before a consonant": r"\ban (?!hour)[^aeiouAEIOU]",
    "the same word twice": r"\b(?!(?:bye|well|aye|ho|softly|gently|on)\b)(\w+) \1\b", "i in small": r"\bi\b",
}  # fmt: skip


@pytest.mark.parametrize("blemish", BLEMISHES)
def test_answers_read_well(blemish: str, exchanges: list[Exchange]) -> None:
    found = [e.answer.text for e in exchanges if re.search(BLEMISHES[blemish], e.answer.text)]
    assert not found, found[:3]


def test_the_vocabulary_is_small_and_closed(exchanges: list[Exchange]) -> None:
    words = {word for e in exchanges for word in re.findall(r"[A-Za-z'-]+", e.answer.text.lower())}
    assert 1000 < len(words) < 2500
    later = {word for chat in islice(chats(9), 3000) for e in chat.exchanges for word in re.findall(r"[A-Za-z'-]+", e.answer.text.lower())}
    assert len(later - words) < 20
