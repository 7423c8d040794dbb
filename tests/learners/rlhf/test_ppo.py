"""PPO on a real model: the ratio before the first step, where rewards go, when it stops, and that it learns."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from learners.model.base import Backbone
from learners.model.forward import causal_model, forward
from learners.model.lora import copy_lora, load_lora, lora_state
from learners.model.shared_prompts import states_in_one_row
from learners.rlhf import ops
from learners.rlhf import ppo as ppo_module
from learners.rlhf.ppo import PPO, PPOSettings
from learners.rlhf.rollouts import Rollouts
from storage.records import Sampling
from tests.learners.models import STORIES, needs_stories, prompt, random_llama, stirred, stories, tensor

pytestmark = needs_stories
ROOT = Path(__file__).resolve().parents[3]
STILL = PPOSettings(learning_rate=0.0)
OPENINGS = ("Once upon a time, there was a little dog", "There was a cat", "One day, a boy named Tim")


@pytest.fixture
def backbone() -> Backbone:
    return stories()


def sentences(prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> Tensor:
    """A reward for whole answers."""
    return tensor([float(stories().decode(answer).count(".")) for answer in answers])


def ppo_of(
    backbone: Backbone,
    policy: nn.Module,
    settings: PPOSettings | None = None,
    reward: Callable[..., Tensor] = sentences,
    tokens: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
) -> PPO:
    sampling = Sampling(temperature, tokens)
    return PPO(policy, backbone.tree(), reward, settings, seed, backbone=backbone, sampling=sampling)


def drawn(ppo: PPO, answers: int = 4) -> Rollouts:
    return ppo.rollout([prompt(ppo.backbone, text) for text in OPENINGS], answers)


def of(answers: Sequence[tuple[int, ...]], stops: Sequence[str]) -> Rollouts:
    """Rollouts made by hand."""
    start = prompt(stories())
    return Rollouts(tuple(start for _ in answers), tuple(answers), tuple(stops), tuple((0.0,) * len(a) for a in answers))  # type: ignore[arg-type]


def by_hand(tree: nn.Module, prompt_ids: tuple[int, ...], answer: tuple[int, ...], temperature: float = 1.0) -> Tensor:
    """Log-probabilities (T, V) before each answer token, without padding."""
    with torch.no_grad():
        logits = forward(tree, tensor([[*prompt_ids, *answer]])).logits[0, len(prompt_ids) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


# --- before the first optimizer step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
@pytest.mark.parametrize("microbatch", [2, 8])
def test_until_the_policy_moves_the_ratio_is_exactly_one_and_the_approximate_kl_exactly_zero(quantize: str, microbatch: int) -> None:
    backbone = stories(quantize)
    settings = PPOSettings(learning_rate=0.0, microbatch=microbatch, minibatch=4, epochs=2)
    ppo = ppo_of(backbone, stirred(backbone), settings)
    stats = ppo.step(drawn(ppo, 3))
    assert stats.ratio == 1.0
    assert stats.approx_kl == 0.0
    assert stats.clip_fraction == 0.0


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_before_the_first_optimizer_step_the_ratio_is_one_and_afterwards_the_policy_has_moved(quantize: str) -> None:
    backbone = stories(quantize)
    ppo = ppo_of(backbone, stirred(backbone))
    for _ in range(2):
        stats = ppo.step(drawn(ppo))
        assert stats.ratio == 1.0
        assert stats.approx_kl is not None and stats.approx_kl > 0


def test_the_kl_to_itself_is_zero_and_to_another_policy_the_sum_over_its_states(backbone: Backbone) -> None:
    policy, twin = stirred(backbone), backbone.adapter_tree()
    copy_lora(policy, twin)
    ppo = ppo_of(backbone, policy, STILL)
    rollouts = drawn(ppo)
    expected = 0.0
    for prompt_ids, answer in zip(rollouts.prompts, rollouts.answers, strict=True):
        p, q = by_hand(policy, prompt_ids, answer), by_hand(backbone.tree(), prompt_ids, answer)
        expected += float((p.exp() * (p - q)).sum())
    assert ppo.step(rollouts).kl == pytest.approx(expected / len(rollouts.answers), rel=1e-3)
    ppo.reference = twin
    assert ppo.step(rollouts).kl == pytest.approx(0, abs=1e-5)


def test_entropy_and_kl_are_of_the_tempered_distribution(backbone: Backbone) -> None:
    policy = stirred(backbone)
    ppo = ppo_of(backbone, policy, STILL, temperature=0.7)
    rollouts = drawn(ppo)
    entropy = nats = 0.0
    for prompt_ids, answer in zip(rollouts.prompts, rollouts.answers, strict=True):
        p, q = by_hand(policy, prompt_ids, answer, 0.7), by_hand(backbone.tree(), prompt_ids, answer, 0.7)
        entropy -= float((p.exp() * p).sum())
        nats += float((p.exp() * (p - q)).sum())
    stats = ppo.step(rollouts)
    assert stats.entropy == pytest.approx(entropy / stats.tokens, rel=1e-3)
    assert stats.kl == pytest.approx(nats / len(rollouts.answers), rel=1e-3)


# --- rollouts --------------------------------------------------------------------------------------------------------


def test_rollouts_are_the_policys_own_plain_samples(backbone: Backbone) -> None:
    policy = stirred(backbone)
    rollouts = drawn(ppo_of(backbone, policy, temperature=0.8))
    assert len(rollouts.answers) == len(rollouts.stops) == len(rollouts.prompts) == 12
    for prompt_ids, answer, logprobs in zip(rollouts.prompts, rollouts.answers, rollouts.logprobs, strict=True):
        expected = by_hand(policy, prompt_ids, answer, 0.8).gather(1, tensor(answer)[:, None])[:, 0]
        assert torch.allclose(tensor(logprobs), expected, atol=1e-3)


def test_rollouts_say_how_they_ended(backbone: Backbone) -> None:
    rollouts = drawn(ppo_of(backbone, stirred(backbone), tokens=200), 2)
    for answer, stop in zip(rollouts.answers, rollouts.stops, strict=True):
        assert (answer[-1] in backbone.eos_ids) == (stop == "eos")
        assert stop == "eos" or len(answer) == 200


def test_a_seed_gives_the_same_answers_and_each_answer_is_another(backbone: Backbone) -> None:
    first, again = (drawn(ppo_of(backbone, backbone.adapter_tree(), seed=5)) for _ in range(2))
    assert first == again
    assert drawn(ppo_of(backbone, backbone.adapter_tree(), seed=6)).answers != first.answers
    assert len(set(first.answers)) > 6


# --- rewards ---------------------------------------------------------------------------------------------------------


def test_a_score_is_a_share_of_the_last_token(backbone: Backbone) -> None:
    def on_last(prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> Tensor:
        shares = torch.zeros(len(answers), max(map(len, answers)))
        for row, answer, score in zip(shares, answers, sentences(prompts, answers), strict=True):
            row[len(answer) - 1] = score
        return shares

    whole, shares = stirred(backbone), stirred(backbone)
    first = ppo_of(backbone, whole, PPOSettings(lam_whole=0.9))
    second = ppo_of(backbone, shares, PPOSettings(lam=0.9), on_last)
    assert first.step(drawn(first)) == second.step(drawn(second))
    assert same(lora_state(whole), lora_state(shares))


def test_only_an_answer_cut_off_by_the_length_limit_is_punished_and_only_if_asked_for(backbone: Backbone) -> None:
    rollouts = of([(400, 401), (402, 2), (403,)], ["length", "eos", "stopped"])

    def reward(prompts: object, answers: object) -> Tensor:
        return tensor([1.0, 2.0, 3.0])

    free = ppo_of(backbone, backbone.adapter_tree(), STILL, reward).step(rollouts)
    strict = ppo_of(backbone, backbone.adapter_tree(), PPOSettings(learning_rate=0.0, missing_eos_penalty=1.5), reward).step(rollouts)
    assert free.reward == pytest.approx(2.0)
    assert strict.reward == pytest.approx((1.0 - 1.5 + 2.0 + 3.0) / 3)
    assert free.no_eos == pytest.approx(1 / 3)


@pytest.mark.parametrize("reward", [torch.zeros(5), torch.zeros(3, 9), tensor([0.0, math.nan, 0.0]), tensor([0.0, math.inf, 0.0])])
def test_a_reward_of_the_wrong_shape_or_not_finite_is_refused_and_nothing_is_learned(backbone: Backbone, reward: Tensor) -> None:
    policy = stirred(backbone)
    before = lora_state(policy)
    ppo = ppo_of(backbone, policy, None, lambda prompts, answers: reward)
    with pytest.raises(ValueError, match="reward"):
        ppo.step(of([(400, 401), (402, 2), (403,)], ["length", "eos", "stopped"]))
    assert same(lora_state(policy), before)


# --- the update ------------------------------------------------------------------------------------------------------


def test_it_learns_what_is_rewarded(backbone: Backbone) -> None:
    ppo = ppo_of(backbone, backbone.adapter_tree(), PPOSettings(kl_target=20.0), tokens=32)
    prompts = [prompt(backbone, text) for text in OPENINGS]
    rewards = [ppo.step(ppo.rollout(prompts, 10)).reward or 0.0 for _ in range(10)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.5


def test_with_the_policy_loss_zeroed_only_the_values_learn(backbone: Backbone) -> None:
    policy = stirred(backbone)
    before = lora_state(policy)
    ppo = ppo_of(backbone, policy, PPOSettings(policy_loss_weight=0.0))
    ppo.step(drawn(ppo))
    assert same(lora_state(policy), before)
    assert bool(ppo.value_head.weight.any())


def test_values_begin_at_zero_and_learn_the_returns(backbone: Backbone) -> None:
    ppo = ppo_of(backbone, stirred(backbone), PPOSettings(learning_rate=0.0, kl_coefficient=1e-6))
    rollouts = drawn(ppo)
    stats = [ppo.step(rollouts) for _ in range(12)]
    assert stats[0].explained_variance == pytest.approx(0, abs=1e-4)
    assert stats[-1].explained_variance is not None and stats[-1].explained_variance > 0.2


def test_the_values_do_not_pull_at_the_policy(backbone: Backbone) -> None:
    slow, fast = stirred(backbone), stirred(backbone)
    for policy, value_rate in ((slow, 0.0), (fast, 1.0)):
        ppo = ppo_of(backbone, policy, PPOSettings(value_rate=value_rate))
        ppo.step(drawn(ppo))
    assert same(lora_state(slow), lora_state(fast))


def test_rollouts_are_left_once_the_policy_has_moved_too_far(backbone: Backbone) -> None:
    far = PPOSettings(step_kl=0.0, epochs=4, minibatch=6, microbatch=6, learning_rate=1e-3)
    once = PPOSettings(step_kl=math.inf, epochs=1, minibatch=12, microbatch=6, learning_rate=1e-3)
    policy = stirred(backbone)
    before = lora_state(policy)
    ppo = ppo_of(backbone, policy, far)
    stats = ppo.step(drawn(ppo))
    assert stats.approx_kl is not None and stats.approx_kl > 0
    moved = lora_state(policy)
    assert not same(moved, before)
    rate = ops.rate_for_width(1e-3, backbone.width) / 5  # the first step of the warm-up, and no second one
    assert all(float((moved[name] - before[name]).abs().max()) <= 1.01 * rate for name in moved)
    assert ppo_of(backbone, stirred(backbone), once).step(drawn(ppo)).clip_fraction == 0


def test_how_a_minibatch_is_split_into_forwards_changes_nothing_but_rounding(backbone: Backbone) -> None:
    whole, split = stirred(backbone), stirred(backbone)
    figures = []
    for policy, microbatch in ((whole, 12), (split, 3)):
        ppo = ppo_of(backbone, policy, PPOSettings(minibatch=12, microbatch=microbatch, epochs=1))
        figures.append(ppo.step(drawn(ppo)))
    assert figures[0].loss == pytest.approx(figures[1].loss, abs=1e-5)
    assert figures[0].grad_norm == pytest.approx(figures[1].grad_norm, rel=1e-3)


def test_others_may_compute_between_forwards_and_between_tokens(backbone: Backbone) -> None:
    ppo = ppo_of(backbone, backbone.adapter_tree(), PPOSettings(epochs=2, minibatch=4, microbatch=2, step_kl=math.inf), tokens=5)
    calls: list[None] = []
    ppo.pause = lambda: calls.append(None)
    rollouts = drawn(ppo, 2)
    assert len(calls) >= 5
    calls.clear()
    ppo.step(rollouts)
    assert len(calls) >= 3 + 2 * 3


def test_a_step_that_was_broken_off_leaves_no_gradient_behind(backbone: Backbone) -> None:
    class Abandon(Exception):
        pass

    policy = stirred(backbone)
    before = lora_state(policy)
    ppo = ppo_of(backbone, policy, PPOSettings(minibatch=12, microbatch=3))
    rollouts, calls = drawn(ppo), []

    def pause() -> None:
        calls.append(None)
        if len(calls) == 6:  # four forwards to look, then in the middle of the first minibatch
            raise Abandon

    ppo.pause = pause
    with pytest.raises(Abandon):
        ppo.step(rollouts)
    assert same(lora_state(policy), before)
    ppo.pause, ppo.reward = (lambda: None), lambda prompts, answers: torch.zeros(len(answers))
    ppo.kl_coefficient = 0.0
    ppo.step(rollouts)  # no reward, no KL term: no gradient but what was left
    assert same(lora_state(policy), before)


# --- the KL coefficient ----------------------------------------------------------------------------------------------


def test_the_kl_coefficient_begins_and_moves_with_the_root_of_the_target(backbone: Backbone) -> None:
    ppo = ppo_of(backbone, backbone.adapter_tree(), PPOSettings(kl_target=4.0))
    assert ppo.kl_coefficient == pytest.approx(0.5)
    ppo.kl_target = 16.0
    assert (ppo.kl_target, ppo.kl_coefficient) == (16.0, pytest.approx(0.25))


def test_the_kl_coefficient_falls_while_below_the_target_and_rises_above_it(backbone: Backbone) -> None:
    ppo = ppo_of(backbone, stirred(backbone), PPOSettings(learning_rate=0.0, kl_target=1e-3, kl_coefficient=0.1))
    rollouts = drawn(ppo)
    assert ppo.step(rollouts).kl_coefficient == 0.2, "twice as much at once"
    above = ppo.kl_coefficient
    assert above == pytest.approx(0.1 * (1 + 0.2 * 12 / 100))
    ppo._kl_target = 1e3
    assert ppo.step(rollouts).kl_coefficient == pytest.approx(above / 4)
    assert ppo.kl_coefficient < above


def test_its_state_goes_on_where_it_stopped(backbone: Backbone) -> None:
    ppo, other = (ppo_of(backbone, stirred(backbone)) for _ in range(2))
    ppo.kl_target = 9.0
    ppo.step(drawn(ppo))
    other.load_state(ppo.state())
    assert torch.equal(other.value_head.weight, ppo.value_head.weight)
    assert (other.kl_coefficient, other.kl_target) == (ppo.kl_coefficient, 9.0)


def test_after_a_reset_the_optimizers_begin_anew(backbone: Backbone) -> None:
    used, fresh = stirred(backbone), stirred(backbone)
    before = lora_state(used)
    ppo = ppo_of(backbone, used)
    state = ppo.state()
    rollouts = drawn(ppo)
    ppo.step(rollouts)
    load_lora(used, before)
    ppo.load_state(state)
    ppo.reset_optimizer()
    new = ppo_of(backbone, fresh)
    for one in (ppo, new):
        one._random.manual_seed(3)
    assert ppo.step(rollouts) == new.step(rollouts)
    assert same(lora_state(used), lora_state(fresh))


def test_prompts_are_computed_once_for_the_answers_of_a_forward(backbone: Backbone) -> None:
    policy, shapes = stirred(backbone), []
    ppo = ppo_of(backbone, policy, PPOSettings(microbatch=4, minibatch=12, epochs=1))
    rollouts = drawn(ppo, 4)
    hook = causal_model(policy).get_input_embeddings().register_forward_hook(lambda module, ids, output: shapes.append(tuple(ids[0].shape)))
    ppo.step(rollouts)
    hook.remove()
    lengths = sorted(len(prompt(backbone, text)) for text in OPENINGS)
    for times in (shapes[: len(shapes) // 2], shapes[len(shapes) // 2 :]):  # the look before the update, and the update
        assert sorted(length for rows, length in times if rows == 1) == lengths


def test_its_update_is_that_of_prompts_and_answers_in_one_row(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for in_one_row in (False, True):
        if in_one_row:
            monkeypatch.setattr(ppo_module, "states_before", lambda *read: states_in_one_row(*read[:3])[:, :-1])
        ppo = ppo_of(backbone, stirred(backbone), PPOSettings(epochs=1))
        stats = ppo.step(drawn(ppo))
        assert stats.ratio == 1.0
        found.append(stats)
    for name in ("loss", "grad_norm", "kl", "entropy", "reward", "value_loss"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), rel=1e-3, abs=1e-5)


def test_it_works_at_a_vocabulary_of_fifty_thousand_with_an_untied_head() -> None:
    backbone = random_llama()
    ppo = PPO(
        stirred(backbone), backbone.tree(), lambda prompts, answers: tensor([float(len(set(a))) for a in answers]),
        PPOSettings(microbatch=2, minibatch=4, epochs=1), backbone=backbone, sampling=Sampling(1.0, 6),
    )  # fmt: skip
    stats = ppo.step(ppo.rollout([prompt(backbone, "Hello there")], 4))
    assert stats.ratio == 1.0
    assert math.isfinite(stats.loss) and stats.grad_norm > 0


def test_the_example_runs_on_a_model_directory() -> None:
    command = [sys.executable, str(ROOT / "examples" / "ppo_any_reward.py"), str(STORIES), "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert len([line for line in done.stdout.splitlines() if line.startswith("reward ")]) == 2
