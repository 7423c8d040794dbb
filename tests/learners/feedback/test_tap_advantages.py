"""Taps as advantages: credited, capped, never summed along an answer; and what they do to the policy."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from learners.feedback.dataset import FeedbackDataset
from learners.feedback.tap_advantages import MOST_BLAME, Tapped, tapped_of
from learners.feedback.tap_attribution import Near, attribute
from learners.feedback.tap_credit import Uniform, credit
from learners.model.lora import lora_state
from learners.protocol import Answer, Lesson
from learners.rlhf.ppo import PPO, PPOSettings
from storage.records import Message, Sampling, Tap
from tests.learners.models import needs_stories, prompt, stories
from tests.learners.rlhf.test_ppo import by_hand, same

SHOWN = tuple(i / 6 for i in range(12))
PROMPT = (Message("user", "p"),)


def book(*lessons: Lesson, words_of: int = 1) -> FeedbackDataset:
    """Every word has so many tokens."""
    made = FeedbackDataset(
        lambda messages, room: ([1, 2], 0),
        lambda messages, text: [0],
        lambda ids: ["a" if i % words_of else " a" for i in range(len(ids))],
        frozenset(),
        512,
    )
    for lesson in lessons:
        made.add(lesson)
    return made


def tap(seq: int, value: float, seconds: float, n: int, uid: str = "a") -> Lesson:
    answer = Answer(uid=uid, messages=PROMPT, text="", prompt_ids=(1, 2), token_ids=tuple(range(10, 10 + n)))
    return Lesson(seq=seq, judgement=Tap("s", uid, value, "+", seconds), answers=(answer,), shown=SHOWN[:n])


def test_an_answers_advantages_are_the_credited_sums_of_its_taps() -> None:
    lessons = book(tap(1, 1.0, 1.2, 8), tap(2, 1.0, 1.5, 10), tap(3, -0.5, 1.9, 12)).snapshot()
    found = tapped_of(lessons)
    assert found is not None and found.prompts == ((1, 2),) and len(found.answers[0]) == 12
    expected, answer = [0.0] * 12, found.answers[0]
    near = {}
    for value, time, n in ((1.0, 1.2, 8), (1.0, 1.5, 10), (-0.5, 1.9, 12)):
        complete = [*SHOWN[1:n], SHOWN[n - 1] + 1 / 6]  # each token is a word, which is known when the next one appears
        near[value, time] = [(i, share) for i, share in enumerate(credit(time, complete, Uniform()).shares) if share >= 0.02]
    taps = [Near(value > 0, tuple((answer[i],) for i, _ in some)) for (value, _), some in near.items()]
    for (value, _), some, attributed in zip(near, near.values(), attribute(taps, Counter(answer)), strict=True):
        for (i, _), share in zip(some, attributed.shares, strict=True):
            expected[i] += value * share
    assert found.advantages[0] == pytest.approx(expected) and min(expected) < 0 < max(expected)
    assert math.fsum(found.advantages[0]) == pytest.approx(1.5, abs=0.1), "a tap is worth as much in a long answer as in a short one"


def test_the_tokens_of_a_word_have_equal_parts_of_its_credit() -> None:
    found = tapped_of(book(tap(1, 1.0, 1.2, 8), words_of=2).snapshot())
    assert found is not None
    firsts, seconds = found.advantages[0][::2], found.advantages[0][1::2]
    assert firsts == seconds and sum(firsts) == pytest.approx(0.5) and max(firsts) < 0.5


def test_blame_is_capped_and_praise_is_not() -> None:
    blamed = tapped_of(book(*(tap(i, -10.0, 1.2, 8) for i in range(1, 9))).snapshot())
    praised = tapped_of(book(*(tap(i, 10.0, 1.2, 8) for i in range(1, 9))).snapshot())
    assert blamed is not None and min(blamed.advantages[0]) == -MOST_BLAME
    assert praised is not None and max(praised.advantages[0]) > 10 * MOST_BLAME


def test_taps_on_whole_answers_and_useless_ones_are_no_advantages() -> None:
    whole = Lesson(seq=1, judgement=Tap("s", "a", 1.0, "+", 9.0, whole=True), answers=tap(1, 1.0, 1.0, 8).answers)
    early = tap(2, 1.0, 0.1, 1)
    assert tapped_of(book(whole, early).snapshot()) is None


@needs_stories
def test_what_was_praised_becomes_likelier_what_was_blamed_less_likely() -> None:
    backbone = stories()
    start, answer = prompt(backbone, "Once upon a time"), tuple(backbone.encode_completion(", there was a big dog. He was very happy and"))[:12]
    policy = backbone.adapter_tree()
    before = by_hand(policy, start, answer)
    praised, blamed = sorted(range(len(answer)), key=lambda i: float(before[i, answer[i]]))[:2]  # of a certain token there is nothing to raise
    advantages = [float(i == praised) - float(i == blamed) for i in range(len(answer))]
    settings = PPOSettings(tap_weight=20.0, step_kl=10.0)  # so that what moves is moved by the taps
    ppo = PPO(policy, backbone.tree(), lambda p, a: torch.zeros(len(a)), settings, backbone=backbone, sampling=Sampling(1.0, 8))
    for _ in range(4):
        ppo.step(ppo.rollout([start], 4), Tapped((start,), (answer,), (tuple(advantages),)))
    moved = [float(by_hand(policy, start, answer)[i, token] - before[i, token]) for i, token in enumerate(answer)]
    assert moved[praised] > 0.1 and moved[blamed] < -0.1
    rest = [abs(m) for i, m in enumerate(moved) if i not in (praised, blamed)]
    assert min(moved[praised], -moved[blamed]) > sum(rest) / len(rest), "and less of what nobody said anything about"


@needs_stories
def test_without_taps_the_update_is_bitwise_what_it_was() -> None:
    backbone = stories()
    states = []
    for tapped in (None, Tapped((prompt(backbone),), ((5, 6, 7),), ((0.0, 0.0, 0.0),))):
        policy = backbone.adapter_tree()
        ppo = PPO(policy, backbone.tree(), lambda p, a: torch.arange(float(len(a))), seed=3, backbone=backbone, sampling=Sampling(1.0, 8))
        ppo.step(ppo.rollout([prompt(backbone)], 4), tapped)
        states.append(lora_state(policy))
    assert same(*states), "taps that say nothing change nothing"
