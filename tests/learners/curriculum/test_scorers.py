"""Ĥ's model fitted to rewards: what it scores, of which judgements, and that taking one back leaves no bit."""

from __future__ import annotations

import pytest
import torch

from learners.curriculum.scorers import HumanRewardScorer, RewardFit
from learners.feedback.snapshot import Feedback
from learners.human_reward.features import Features
from learners.human_reward.fit import HumanRewardSettings
from learners.model.forward import forward
from learners.protocol import Answer, Lesson
from learners.rlhf.rollouts import draw_answers
from storage.records import Critique, Message, Ranking, Rating, Sampling, Tap
from tests.learners.feedback.test_dataset import book
from tests.learners.models import needs_stories, stories, tensor

PROMPT = (Message("user", "Once upon a time, there was a little dog"),)


def lessons(n: int) -> list[Lesson]:
    """Rankings of four answers of the base, the shorter text the better, and a score of the first."""
    backbone, found = stories(), []
    ids = tuple(backbone.encode(PROMPT))
    for seq in range(1, n + 1):
        traces = draw_answers(backbone, backbone.model, [ids] * 4, Sampling(1.0, 16), 100 * seq, adapter=False)
        answers = [Answer(uid=f"{seq}/{i}", messages=PROMPT, text="", prompt_ids=ids, token_ids=tuple(t.ids)) for i, t in enumerate(traces)]
        order = sorted(answers, key=lambda a: len(backbone.decode(a.token_ids)))
        found.append(Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(order)}), answers=tuple(answers)))
    return [*found, Lesson(seq=n + 1, judgement=Rating("s", "1/0", 6), answers=found[0].answers[:1])]


def feedback_of(some: list[Lesson]) -> Feedback:
    dataset = book(context=512)
    for lesson in some:
        dataset.add(lesson)
    return dataset.snapshot()


@pytest.fixture(scope="module")
def features() -> Features:
    return Features.fit(torch.randn(200, stories().width, generator=torch.Generator().manual_seed(0)))


@needs_stories
def test_an_answer_scores_the_mean_reward_of_its_tokens_whatever_else_was_likely(features: Features) -> None:
    backbone, some = stories(), lessons(4)
    head = RewardFit.reading(backbone, backbone.model).head(feedback_of(some), features, None)
    assert head is not None and head.sureness == 0.0
    scorer = HumanRewardScorer(backbone.model, head, rewards=True)
    answers = [answer for lesson in some[:4] for answer in lesson.answers]
    expected = []
    for answer in answers:
        with torch.no_grad():
            states = forward(backbone.model, tensor([[*answer.prompt_ids, *answer.token_ids]])).hidden[0, len(answer.prompt_ids) - 1 : -1]
        rows = dict(zip(head.tokens.tolist(), head.weights, strict=True))
        rewards = [float(rows[t] @ features(state)) if t in rows else 0.0 for t, state in zip(answer.token_ids, states, strict=True)]
        expected.append(sum(rewards) / len(rewards))
    prompts, ids = [a.prompt_ids for a in answers], [a.token_ids for a in answers]
    assert scorer.score(prompts, ids).tolist() == pytest.approx(expected, abs=1e-4)
    scorer.normalise(prompts, ids)
    scaled = scorer.score(prompts, ids)
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-4) and float(scaled.std(correction=0)) == pytest.approx(1, abs=1e-4)
    best = [lesson.judgement.ranks[a.uid] == 1 for lesson in some[:4] for a in lesson.answers]  # type: ignore[union-attr]
    assert all(float(scaled[i : i + 4].argmax()) == best[i : i + 4].index(True) for i in range(0, 16, 4)), "what was taught is known"


@needs_stories
def test_what_is_taken_back_leaves_no_bit_and_critiques_say_nothing(features: Features) -> None:
    backbone, some = stories(), lessons(3)
    fit = RewardFit.reading(backbone, backbone.model)
    before, more = feedback_of(some[:2]), feedback_of(some)
    first, second = fit.head(before, features, None), fit.head(more, features, None)
    again = fit.head(before, features, None)
    assert first is not None and second is not None and again is not None
    assert torch.equal(first.weights, again.weights) and not torch.equal(first.weights, second.weights[: len(first.weights)])
    critique = Lesson(seq=9, judgement=Critique("s", None, "be kind", "all"), answers=some[0].answers[:1])
    same = fit.head(feedback_of([*some[:2], critique]), features, None)
    assert same is not None and torch.equal(same.weights, first.weights)


@needs_stories
def test_where_words_were_tapped_or_nothing_was_compared_it_is_not_asked(features: Features) -> None:
    backbone, some = stories(), lessons(2)
    fit = RewardFit.reading(backbone, backbone.model)
    tapped = Lesson(seq=9, judgement=Tap("s", "1/0", 1.0, "+", 1.0, whole=True), answers=some[0].answers[:1])
    assert fit.head(feedback_of([*some, tapped]), features, None) is None
    assert fit.head(feedback_of([]), features, None) is None


@needs_stories
def test_only_the_newest_judgements_that_are_solved_together_count(features: Features) -> None:
    backbone, some = stories(), lessons(4)[:4]
    fit = RewardFit.reading(backbone, backbone.model, HumanRewardSettings(window=9))
    newest = RewardFit.reading(backbone, backbone.model).head(feedback_of(some[2:]), features, None)
    found = fit.head(feedback_of(some), features, None)
    assert newest is not None and found is not None and torch.equal(newest.weights, found.weights)
