"""Ĥ's model fitted to rewards: what it scores, of which judgements, and that taking one back leaves no bit."""

from __future__ import annotations

import pytest
import torch

from learners.curriculum.scorers import HumanRewardScorer
from learners.human_reward.features import Features
from learners.human_reward.online import OnlineHumanReward
from learners.model.forward import forward
from learners.protocol import Answer, Lesson
from learners.rlhf.rollouts import draw_answers, states_before
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


def taught(features: Features, some: list[Lesson]) -> OnlineHumanReward:
    backbone = stories()
    live = OnlineHumanReward(book(context=512), features, lambda prompt, answers: states_before(backbone, backbone.model, prompt, answers))
    for lesson in some:
        live.learn(lesson)
    return live


@pytest.fixture(scope="module")
def features() -> Features:
    return Features.fit(torch.randn(200, stories().width, generator=torch.Generator().manual_seed(0)))


@needs_stories
def test_an_answer_scores_the_mean_reward_of_its_tokens_whatever_else_was_likely(features: Features) -> None:
    backbone, some = stories(), lessons(4)
    head = taught(features, some).rewards
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
    some = lessons(3)
    first, live = taught(features, some[:2]).rewards, taught(features, some)
    second = live.rewards
    for lesson in some[2:]:
        live.retract(lesson.seq)
    again = live.rewards
    assert first is not None and second is not None and again is not None
    assert torch.equal(first.weights, again.weights) and not torch.equal(first.weights, second.weights[: len(first.weights)])
    live.learn(Lesson(seq=9, judgement=Critique("s", None, "be kind", "all"), answers=some[0].answers[:1]))
    assert live.rewards is not None and torch.equal(live.rewards.weights, first.weights)


@needs_stories
def test_where_words_were_tapped_or_nothing_was_compared_it_is_not_asked(features: Features) -> None:
    some = lessons(2)
    tapped = Lesson(seq=9, judgement=Tap("s", "1/0", 1.0, "+", 1.0, whole=True), answers=some[0].answers[:1])
    live = taught(features, some)
    assert live.rewards is not None
    live.learn(tapped)
    assert live.rewards is None and taught(features, []).rewards is None
