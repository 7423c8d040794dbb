"""Two processes over gloo do what one does with the union of their rows: losses, gradients, rollouts, whitening, the KL of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learners.curriculum.scorers import HumanRewardScorer
from learners.feedback.samples import Comparison, Scored, Target
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.model.lora import lora_state
from learners.rlhf import ranks
from learners.rlhf.distillation import Distill, DistillBatch
from learners.rlhf.ppo import PPO, PPOSettings
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import draw_answers, nats_on
from learners.rlhf.sft import SFT
from storage.records import Sampling
from tests.learners.models import cpu_only, needs_stories, prompt, stirred, stories
from tests.learners.processes import in_processes

pytestmark = [needs_stories, cpu_only]
TEXTS = (" named Zara. Zara liked to swim.", " named Zara, who had a red hat and a dog.", " called Sam.", " with a big blue ball.", " in a wood.")
OPENINGS = ("Once upon a time, there was a little dog", "There was a big bear", "One day, a boy")
SAMPLING = Sampling(1.0, 10)


def rows() -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    backbone = stories()
    answers = [tuple(backbone.encode_completion(text)) for text in TEXTS]
    return [prompt(backbone, OPENINGS[i % len(OPENINGS)]) for i in range(len(answers))], answers


def imitated() -> tuple[float, dict[str, Tensor]]:
    tree = stirred(stories())
    prompts, answers = rows()
    stats = SFT(tree, 64).step([Target(p, a, (0.1,) * (len(a) - 1) + (1.0,)) for p, a in zip(prompts, answers, strict=True)])
    return stats.loss, lora_state(tree)


def distilled() -> tuple[float, dict[str, Tensor]]:
    tree, wanted = stirred(stories()), torch.randn(512, generator=torch.Generator().manual_seed(0))

    def teacher(prompts: Sequence[Any], answers: Sequence[Any]) -> Any:
        logits = wanted[:512].expand(sum(map(len, answers)), -1)
        return lambda places: logits[places]

    return Distill(tree, teacher, 64).step(DistillBatch(*rows())).loss, lora_state(tree)


def rewarded() -> tuple[float, dict[str, Tensor], Tensor]:
    tree = stirred(stories())
    prompts, answers = rows()
    model = RewardModel(tree, 64)
    items: list[Comparison | Scored] = [
        Comparison(prompts[0], tuple(answers[:3]), (1, 2, 2), 1), Scored(prompts[3], answers[3], 0.5, 2),
        Comparison(prompts[1], tuple(answers[3:]), (2, 1), 3),
    ]  # fmt: skip
    stats = model.step(items)
    return stats.loss, model.state(), model.score(prompts, answers)


def practised() -> tuple[float, dict[str, Tensor], Any]:
    """Whatever was drawn, the numbers of the update, and the adapter afterwards."""
    backbone, tree = stories(), stirred(stories())

    def letters(prompts: Sequence[Any], answers: Sequence[Any]) -> Tensor:
        return torch.tensor([float(backbone.decode(answer).count("e")) for answer in answers])

    ppo = PPO(tree, backbone.tree(), letters, PPOSettings(microbatch=4, minibatch=8, step_kl=1.0), backbone=backbone, sampling=SAMPLING)
    rollouts = ppo.rollout([prompt(backbone, text) for text in OPENINGS], 3)
    stats = ppo.step(rollouts)
    figures = (stats.kl, stats.entropy, stats.value_loss, stats.approx_kl, stats.clip_fraction, stats.grad_norm, stats.explained_variance)
    return stats.loss, lora_state(tree), (rollouts.answers, figures)


def close(a: dict[str, Tensor], b: dict[str, Tensor], within: float) -> bool:
    return all(torch.allclose(a[name].double(), b[name].double(), rtol=0, atol=within) for name in a)


@pytest.mark.parametrize("work", [imitated, distilled, rewarded], ids=lambda work: work.__name__)
def test_a_step_of_two_ranks_is_the_step_of_one_on_the_union_of_their_rows(work: Callable[[], Any], tmp_path: Path) -> None:
    loss, weights, *more = work()
    for theirs, adapter, *beside in in_processes(work, tmp_path):
        assert theirs == pytest.approx(loss, abs=1e-5)
        assert close(adapter, weights, 1e-5)
        for mine, other in zip(more, beside, strict=True):
            torch.testing.assert_close(other, mine, rtol=0, atol=1e-5)


def test_ppo_of_two_ranks_draws_the_same_answers_whitens_over_all_of_them_and_makes_the_same_update(tmp_path: Path) -> None:
    loss, weights, (answers, figures) = practised()
    first, second = in_processes(practised, tmp_path)
    assert close(first[1], second[1], 0.0), "both ranks hold the same bits"
    assert first[2][0] == second[2][0] == answers
    assert first[0] == pytest.approx(loss, abs=1e-5)
    assert first[2][1] == pytest.approx(figures, rel=1e-6, abs=1e-4)
    assert close(first[1], weights, 1e-5)


def test_answers_and_their_states_come_to_every_rank_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    backbone, tree = stories(), stirred(stories())
    prompts = [prompt(backbone, text) for text in OPENINGS]
    features = Features(torch.zeros(64), torch.eye(64))
    head = RewardHead(1, torch.arange(512), torch.randn(512, features.width, generator=torch.Generator().manual_seed(1)), features)

    def work() -> Any:
        traces = draw_answers(backbone, tree, prompts, SAMPLING, 5, adapter=True, keep_states=True)
        answers = [tuple(trace.ids) for trace in traces]
        visited = [trace.visited(1.0) for trace in traces]
        scores = HumanRewardScorer(backbone.tree(), head).score(prompts, answers)
        return answers, torch.cat([each.seen.hidden for each in visited]), nats_on(backbone, tree, visited, 1.0), scores

    answers, states, nats, scores = work()
    for theirs in in_processes(work, tmp_path):
        assert theirs[0] == answers
        torch.testing.assert_close(theirs[1], states, rtol=0, atol=1e-4)
        assert theirs[2] == pytest.approx(nats, abs=1e-4)
        torch.testing.assert_close(theirs[3], scores, rtol=0, atol=1e-4)


def test_a_rank_without_rows_adds_nothing(tmp_path: Path) -> None:
    def work() -> tuple[float, dict[str, Tensor]]:
        tree = stirred(stories())
        prompts, answers = rows()
        return SFT(tree, 64).step([Target(prompts[0], answers[0])]).loss, lora_state(tree)

    loss, weights = work()
    for theirs, adapter in in_processes(work, tmp_path):
        assert theirs == pytest.approx(loss, abs=1e-6)
        assert close(adapter, weights, 1e-6)


def test_shares_are_neighbours_and_make_up_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (1, 2, 3, 7):
        monkeypatch.setattr(ranks, "world", lambda world=world: world)
        for n in (0, 1, 5, 14):
            shares = []
            for rank in range(world):
                monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
                shares.append([*ranks.own(range(n))])
            assert [row for share in shares for row in share] == [*range(n)]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
