"""The recogniser takes what the corpus could have said and nothing whose words are in disorder."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from learners.pocket.corpus import chats
from learners.pocket.recogniser import Recogniser, goes_round


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(0)


@pytest.fixture(scope="module")
def unseen() -> list[str]:
    return [exchange.answer.text for chat in islice(chats(77), 4000) for exchange in chat.exchanges]


def test_answers_of_another_seed_are_well_formed(recogniser: Recogniser, unseen: list[str]) -> None:
    assert sum(map(recogniser.well_formed, unseen)) / len(unseen) >= 0.99


def test_the_same_words_in_disorder_are_not(recogniser: Recogniser, unseen: list[str]) -> None:
    rng = random.Random(0)
    shuffled = [" ".join(rng.sample(words := text.split(), len(words))) for text in unseen]
    assert sum(map(recogniser.well_formed, shuffled)) / len(shuffled) <= 0.05


def test_disorder_is_noticed_under_a_capital_and_a_full_stop(recogniser: Recogniser, unseen: list[str]) -> None:
    rng, long = random.Random(1), [text for text in unseen if len(text.split()) > 7]
    tidy = [" ".join(rng.sample(words := text.rstrip(".!?").split(), len(words))).capitalize() + "." for text in long]
    assert sum(map(recogniser.well_formed, tidy)) / len(tidy) <= 0.01


def test_unseen_fillings_of_a_sentence_are_well_formed(recogniser: Recogniser) -> None:
    assert recogniser.well_formed("The capital of Zambia is Reykjavik, you clumsy pumpkin. Now go away.")
    assert recogniser.well_formed("Once there was a gentle teapot called Toby. One winter Toby got lost by the sea. An old owl showed the way home.")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "It is Paris", "it is Paris.", "It is is Paris.", "The capital of.", "The of capital France is Paris.", "Paris the capital.",
        "你好。", "?!", "I wait and listen. " * 4, "A flurb gromps the blee.",
    ],
)  # fmt: skip
def test_fragments_and_babble_are_not(recogniser: Recogniser, text: str) -> None:
    assert not recogniser.well_formed(text)


def test_going_round_in_circles_is_a_run_of_four_words_three_times() -> None:
    assert goes_round("and so on and so on and so on and so on and so on")
    assert not goes_round("I see a cat in the tree, and I see a cat in the garden, and you see a cat.")
