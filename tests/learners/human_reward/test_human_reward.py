"""Ĥ fitted to rewards and to advantages: what the first doubts, the second does."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest
import torch

from learners.human_reward.features import Features, Seen
from learners.human_reward.fit import Block, HumanRewardSettings
from learners.human_reward.human_reward import HumanReward
from learners.human_reward.likelihood import Evidence, Level, Pairs
from tests.learners.human_reward.test_fit import add, looked_at

WIDTH, VOCABULARY, LENGTH, RANKINGS = 2, 16, 12, 60


def operator(turned_around: float, **settings: float) -> tuple[HumanReward, list[Evidence], list[bool]]:
    """Rankings by one who likes four tokens, some of them turned around; which."""
    generator, chance = torch.Generator().manual_seed(3), random.Random(5)
    learner = HumanReward(Features.fit(torch.randn(400, WIDTH, generator=generator)), None, HumanRewardSettings(**settings))  # type: ignore[arg-type]
    evidence: list[Evidence] = []
    turned = [chance.random() < turned_around for _ in range(RANKINGS)]
    for i in range(RANKINGS):
        liked = {}
        for uid in (f"{i}/{k}" for k in range(4)):
            ids, seen = torch.randint(0, VOCABULARY, (LENGTH,), generator=generator), looked_at(LENGTH, generator, WIDTH, VOCABULARY)
            liked[uid] = int((ids < 4).sum()) * (1 if turned[i] else -1)
            learner.add_answer(uid, ids.tolist(), seen)
        evidence.append(Pairs.of_ranks(liked))
    return learner, evidence, turned


def believed(learner: HumanReward) -> list[float]:
    return [item.meant for block in learner._of_rewards.believed for item in block.evidence if isinstance(item, Pairs)]


def test_rankings_that_were_turned_around_are_told_and_steer_less() -> None:
    learner, evidence, turned = operator(0.25)
    head = learner.fit(evidence, 1)
    meant = believed(learner)
    slips, others = ([p for p, t in zip(meant, turned, strict=True) if t == wanted] for wanted in (True, False))
    assert statistics.fmean(slips) < 0.5 < 0.8 < statistics.fmean(others)
    weighed = [replace(item, meant=p) for item, p in zip(evidence, meant, strict=True)]
    believing = operator(0.25, lapse=0.0)[0]
    assert torch.equal(head.weights, believing.fit(weighed, 1).weights) and believed(believing) == meant, "what is known to be doubtful is"
    assert not torch.equal(head.weights, believing.fit(evidence, 1).weights)


def test_who_never_slips_is_believed() -> None:
    learner, evidence, _ = operator(0.0)
    learner.fit(evidence, 1)
    assert statistics.fmean(believed(learner)) > 0.99


def test_what_somebody_wrote_is_no_slip() -> None:
    learner, evidence, turned = operator(0.25)
    slip = turned.index(True)
    evidence[slip] = replace(evidence[slip], sure=True)  # type: ignore[type-var]
    learner.fit(evidence, 1)
    assert believed(learner)[slip] == 1.0 > max(p for i, p in enumerate(believed(learner)) if i != slip)


@pytest.mark.parametrize("together", [True, False])
def test_the_opposite_with_a_probability_is_the_comparison_with_the_rest_of_it(together: bool) -> None:
    """Half meant says nothing, and not meant at all says the opposite."""
    generator = torch.Generator().manual_seed(0)
    learner = HumanReward(Features.fit(torch.randn(200, WIDTH, generator=generator)), None, HumanRewardSettings(lapse=0.0))
    for uid in ("a0", "a1"):
        add(learner, uid, [1, 2, 3], looked_at(3, generator, WIDTH, VOCABULARY))  # type: ignore[arg-type]
    beside: list[Evidence] = [Level("a0", 0.3)] if together else []
    said = Pairs.of_ranks({"a0": 1, "a1": 2})
    opposite, not_meant, tie, half = (
        learner.fit([*beside, item], 1).weights
        for item in (Pairs.of_ranks({"a0": 2, "a1": 1}), replace(said, meant=0.0), Pairs.of_ranks({"a0": 1, "a1": 1}), replace(said, meant=0.5))
    )
    torch.testing.assert_close(opposite, not_meant)
    torch.testing.assert_close(tie, half)


def test_of_answers_that_are_not_known_yet_nothing_is_doubted() -> None:
    learner, evidence, _ = operator(0.25)
    learner.keep({name for item in evidence[:30] if isinstance(item, Pairs) for name in item.first + item.second})
    assert learner.solved(Block.split(evidence, 512)) == 0
    learner.fit(evidence, 1)
    assert set(believed(learner)[30:]) == {1.0} and max(believed(learner)[:30]) < 1.0


def test_scores_of_whole_answers_are_the_mean_rewards_of_their_tokens() -> None:
    learner, evidence, _ = operator(0.0)
    learner.fit(evidence, 1)
    ids = torch.tensor([1, 5, 1])
    seen = Seen.of(torch.randn(3, WIDTH), torch.randn(3, VOCABULARY))
    rows = dict(zip(learner.rewards.tokens.tolist(), learner.rewards.weights, strict=True))
    wanted = [float(rows[int(token)] @ x) for token, x in zip(ids, learner.features(seen.hidden), strict=True)]
    assert learner.rewards.token_rewards(seen.alone(), ids).tolist() == pytest.approx(wanted, abs=1e-5)
