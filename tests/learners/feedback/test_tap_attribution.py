"""Attribution: words whose taps are known are found among their neighbours."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.feedback.tap_attribution import PRIOR, ROUNDS, Near, attribute
from learners.feedback.tap_credit import Uniform, credit

GUILTY, SORRY, INNOCENT = 0, 1, range(2, 40)


def stream(seed: int, seconds: float = 120.0) -> tuple[list[Near], Counter[int], list[int]]:
    """A text at six words a second: praise 0.2 to 0.8 s after each word 0, blame after each word 1, three of ten missed. Also what each was about."""
    rng = random.Random(seed)
    words = [GUILTY if (luck := rng.random()) < 0.08 else SORRY if luck < 0.12 else rng.choice(INNOCENT) for _ in range(int(seconds * 6))]
    times = [i / 6 for i in range(len(words))]
    taps, causes = [], []
    for word, time in zip(words, times, strict=True):
        if word > SORRY or rng.random() < 0.3:
            continue
        shares = credit(time + rng.uniform(0.2, 0.8), times, Uniform()).shares
        near = [(i, share) for i, share in enumerate(shares) if share > 0]
        taps.append(Near(word == GUILTY, tuple((words[i],) for i, _ in near)))
        causes.append(word)
    return taps, Counter(words), causes


@pytest.mark.parametrize("seed", range(3))
def test_the_word_that_was_meant_is_told_from_its_neighbours(seed: int) -> None:
    taps, shown, causes = stream(seed)
    hits = {"time": 0.0, "all": 0.0}
    present = 0
    for near, found, cause in zip(taps, attribute(taps, shown), causes, strict=True):
        if (cause,) in near.words:  # its own word may have left the window's edge
            present += 1
            hits["time"] += near.words.count((cause,)) / len(near.words)
            hits["all"] += sum(share for tokens, share in zip(near.words, found.shares, strict=True) if tokens == (cause,))
    assert present > 30
    assert hits["time"] / present < 0.5 and hits["all"] / present > 0.9


def test_what_earned_most_is_trusted_and_its_neighbours_are_not() -> None:
    taps, shown, _ = stream(7)
    trust: dict[int, float] = {}
    for near, found in zip(taps, attribute(taps, shown), strict=True):
        if near.praise:
            trust |= {token: one for (token,), one in zip(near.words, found.trust, strict=True)}
    assert trust[GUILTY] == 1.0
    assert sorted(trust.values())[-2] < 0.5


WORD = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)


@given(st.lists(st.builds(Near, st.booleans(), st.lists(WORD, min_size=1, max_size=6).map(tuple)), max_size=12))
def test_shares_of_a_tap_sum_to_one_and_trust_is_a_share(taps: list[Near]) -> None:
    shown = Counter(token for tap in taps for word in tap.words for token in word)
    for tap, found in zip(taps, attribute(taps, shown), strict=True):
        assert len(found.shares) == len(found.trust) == len(tap.words)
        assert sum(found.shares) == pytest.approx(1) and all(0 <= share <= 1 + 1e-12 for share in found.shares)
        assert all(0 < trust <= 1 for trust in found.trust)
    assert attribute(taps, shown) == attribute(taps, shown)


def test_one_tap_alone_is_shared_evenly_among_words_that_were_shown_as_often() -> None:
    (found,) = attribute([Near(True, ((4,), (5,)))], {4: 1, 5: 1})
    assert found == ((0.5, 0.5), (1.0, 1.0))


def test_praise_and_blame_do_not_mix() -> None:
    taps = [Near(True, ((1,), (2,))), Near(False, ((2,), (3,)))]
    with_both = attribute(taps, {1: 1, 2: 9, 3: 1})
    assert with_both[0] == attribute(taps[:1], {1: 1, 2: 9, 3: 1})[0]
    assert with_both[0].shares[0] > 0.5 and with_both[1].shares[1] > 0.5  # the word that was shown nine times is the less likely cause


def test_words_of_several_tokens_are_attributed_as_counting_says() -> None:
    """Expectation maximisation by hand, one tap, one word and one token after another."""
    taps = [Near(True, ((1, 2), (3,))), Near(True, ((3,), (1, 4), (5,))), Near(True, ((1, 2),))]
    shown = {1: 5, 2: 2, 3: 9, 4: 1, 5: 4}
    mean = len(taps) / sum(shown.values())
    shares = [[[1 / sum(map(len, tap.words))] * len(word) for word in tap.words] for tap in taps]
    for _ in range(ROUNDS):
        earned = Counter[int]()
        for tap, of_tap in zip(taps, shares, strict=True):
            for word, of_word in zip(tap.words, of_tap, strict=True):
                for token, share in zip(word, of_word, strict=True):
                    earned[token] += share
        rates = {token: (earned[token] + PRIOR * mean) / (n + PRIOR) for token, n in shown.items()}
        totals = [sum(rates[token] for word in tap.words for token in word) for tap in taps]
        shares = [[[rates[token] / total for token in word] for word in tap.words] for tap, total in zip(taps, totals, strict=True)]
    for tap, of_tap, found in zip(taps, shares, attribute(taps, shown), strict=True):
        assert found.shares == pytest.approx([sum(of_word) for of_word in of_tap])
        assert found.trust == pytest.approx([max(rates[token] for token in word) / max(rates.values()) for word in tap.words])
