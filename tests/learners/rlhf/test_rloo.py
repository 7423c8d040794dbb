"""RLOO, which the benchmarks compare PPO with: its baseline and its gradient by hand, and that it learns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from benchmarks.rloo import RLOO, leave_one_out
from learners.model.lora import lora_parameters
from learners.rlhf.ppo import PPOSettings, Reward
from learners.rlhf.rollouts import Rollouts
from storage.records import Sampling
from tests.learners.models import needs_stories, prompt, stirred, stories, tensor
from tests.learners.rlhf.test_ppo import OPENINGS, by_hand, sentences

pytestmark = needs_stories


def rloo_of(settings: PPOSettings, reward: Reward = sentences, policy: nn.Module | None = None) -> RLOO:
    backbone = stories()
    return RLOO(policy or stirred(backbone), backbone.tree(), reward, settings, 0, backbone=backbone, sampling=Sampling(1.0, 12))


def test_the_baseline_is_the_mean_of_the_others_to_the_same_prompt() -> None:
    prompts, rewards = ((1,), (2,), (1,), (3,), (1,), (2,)), [1.0, 5.0, 2.0, 9.0, 6.0, 4.0]
    by_loop = []
    for i, reward in enumerate(rewards):
        others = [rewards[j] for j in range(len(rewards)) if j != i and prompts[j] == prompts[i]]
        by_loop.append(reward - sum(others) / len(others) if others else 0.0)
    assert leave_one_out(torch.tensor(rewards), prompts).tolist() == pytest.approx(by_loop)


def test_its_gradient_is_the_advantage_times_that_of_each_answers_log_probability() -> None:
    """Against REINFORCE written out, answer by answer, with whole-answer log-ratios in the reward."""
    rloo = rloo_of(PPOSettings(kl_coefficient=0.3))
    rollouts = rloo.rollout([prompt(rloo.backbone, text) for text in OPENINGS], 3)
    rows = list(zip(rollouts.prompts, rollouts.answers, strict=True))
    scores, base = sentences(rollouts.prompts, rollouts.answers).tolist(), rloo.backbone.tree()
    said = [[by_hand(tree, p, a) for p, a in rows] for tree in (rloo.policy, base)]
    kl = sum(float((ours.exp() * (ours - theirs)).sum()) for ours, theirs in zip(*said, strict=True)) / len(rows)
    coefficient = 0.3 * min(max(kl / 6.0, 0.25), 2.0)
    taken = [[float(each.gather(1, tensor(a)[:, None]).sum()) for each, (_, a) in zip(of, rows, strict=True)] for of in said]
    rewards = [score - coefficient * (ours - theirs) for score, ours, theirs in zip(scores, *taken, strict=True)]
    found: list[dict[str, Tensor]] = []
    rloo._policy_optimizer.step = lambda: found.append({n: p.grad.clone() for n, p in lora_parameters(rloo.policy).items()}) or 0.0  # type: ignore[method-assign]
    rloo._policy_optimizer.clear()
    rloo.step(rollouts)
    rloo._policy_optimizer.clear()
    tokens = sum(map(len, rollouts.answers))
    for i, (p, a) in enumerate(rows):
        others = [rewards[j] for j in range(len(rows)) if j != i and rollouts.prompts[j] == p]
        logprobs, _ = rloo._evaluate([p], [a])
        (-(rewards[i] - sum(others) / len(others)) * logprobs.sum() / tokens).backward()
    for name, parameter in lora_parameters(rloo.policy).items():
        assert float((parameter.grad - found[0][name]).norm()) < 1e-3 * float(parameter.grad.norm()), name


def test_it_learns_a_reward_that_is_a_plain_function_of_the_answer() -> None:
    """From the base, by its share of even token ids."""

    def even(prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> Tensor:
        return tensor([sum(token % 2 == 0 for token in answer) / len(answer) for answer in answers])

    def scaled(prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> Tensor:
        return 8 * even(prompts, answers)

    backbone = stories()
    rloo = rloo_of(PPOSettings(learning_rate=2e-4, kl_target=6.0, kl_coefficient=0.1), scaled, policy=backbone.adapter_tree(seed=0))
    asked = [prompt(backbone, text) for text in OPENINGS]

    def mean(rollouts: Rollouts) -> float:
        return float(even(rollouts.prompts, rollouts.answers).mean())

    before = mean(rloo.rollout(asked, 16))
    for _ in range(25):
        rloo.step(rloo.rollout(asked, 4))
    assert mean(rloo.rollout(asked, 16)) > before + 0.1
