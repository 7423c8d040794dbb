"""PPO in the curriculum: it comes back under a budget that it begins over, and its KL coefficient belongs to the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from learners.curriculum.distill_stage import DistillPlan, DistillStage
from learners.curriculum.ppo_stage import KLLimit, PPOPlan, PPOStage
from learners.curriculum.runs import ALL_THOUGHT, TOO_SHORT
from learners.engine.assembly import Parts, assemble
from learners.human_reward.kl_budget import REFERENCE_TOKENS
from learners.model.lora import load_lora, lora_state
from learners.protocol import Event, Load, Metrics
from learners.rlhf.ppo import PPO
from learners.rlhf.rollouts import Rollouts, draw_answers
from learners.rlhf.stats import StepStats
from learners.versions.snapshot import PolicySnapshot, VersionState
from tests.learners.curriculum.test_stages import PROMPTS, SAMPLING, Learning, ranking, run


@pytest.fixture
def parts(request: pytest.FixtureRequest) -> Iterator[Parts]:
    model = Path(request.config.rootpath).parent / "shared" / "data" / "stories260k"
    if not model.is_dir():
        pytest.skip(f"the model is not at {model}")
    yield assemble(Load(model=str(model), sampling=SAMPLING, train_prompts=PROMPTS), lambda event: None)


@pytest.fixture
def learning(parts: Parts) -> Learning:
    events: list[Event] = []
    learning = Learning(parts, events.append)
    learning.teach(*(ranking(parts, seq) for seq in (1, 2, 3)))
    return learning


def spent(learning: Learning, seed: int) -> float:
    """Nats per 64 tokens of the adapter alone, on fresh answers."""
    prompts = [tuple(learning.parts.backbone.encode(prompt)) for prompt in PROMPTS] * 4
    drawn = draw_answers(learning.parts.backbone, learning.weights.policy, prompts, SAMPLING, seed, adapter=True)
    return sum(trace.kl for trace in drawn) / sum(len(trace.ids) for trace in drawn) * REFERENCE_TOKENS


def test_updates_that_lower_a_kl_over_the_budget_are_kept_and_the_coefficient_stays_bounded(
    learning: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer is a stub: each of its updates lowers the KL by 1, whatever the coefficient."""
    weight = next(p for name, p in learning.weights.policy.named_parameters() if "lora_B" in name).data.view(-1)

    def lowers(ppo: PPO, rollouts: object, tapped: object) -> StepStats:
        before = float(weight[0])
        weight[0] = before - 1
        return StepStats(loss=0.0, grad_norm=0.0, tokens=1, kl=before)

    monkeypatch.setattr(PPO, "step", lowers)
    stage = PPOStage(*learning.of_policy, None, PPOPlan(prompts=1, answers=1, iterations=18))
    first = stage.first_coefficient(learning.inputs)
    weight[0] = 20.0
    coefficients = []
    for _ in stage.work():
        coefficients.append(stage.ppo.kl_coefficient if stage.ppo else 0.0)
    assert float(weight[0]) == 2.0, "every update was kept: 18 of them from 20"
    assert max(coefficients) < 4 * first


def test_an_update_over_the_limit_is_taken_back_to_the_last_weights_within_it() -> None:
    good, better, bad = ({"w": torch.tensor(x)} for x in (1.0, 2.0, 3.0))
    limit = KLLimit()
    assert limit.look(good, 3.0, 4.0) is None and limit.look(better, 3.9, 4.0) is None
    assert limit.look(bad, 4.1, 4.0) is better and limit.over
    assert limit.look(better, 4.2, 4.0) is None, "estimated anew: weights that were put back are not put back again"
    assert limit.look(bad, 4.5, 4.0) is better


def test_ppo_that_begins_over_the_budget_comes_back_under_it(learning: Learning) -> None:
    run(DistillStage(*learning.of_policy, DistillPlan(steps=20, batch=8)).work())
    over = spent(learning, 1)
    learning.tell(nats=over / 1.2)  # distilled for more than may be spent now
    stage = PPOStage(*learning.of_policy, None, PPOPlan(prompts=4, answers=3, iterations=16))
    first = stage.first_coefficient(learning.inputs)
    run(stage.work())
    assert stage.ppo is not None and stage.ppo.kl_coefficient < 100 * first
    assert spent(learning, 1) < learning.inputs.nats


def test_the_kl_coefficient_is_derived_for_new_weights_and_kept_for_restored_ones(learning: Learning) -> None:
    stage = PPOStage(*learning.of_policy, None, PPOPlan(prompts=2, answers=2, iterations=1))
    run(stage.work())
    assert stage.ppo is not None
    stage.ppo.kl_coefficient = 123.0
    target = stage.ppo.kl_target
    state = VersionState(
        PolicySnapshot("v1", lora_state(learning.weights.policy)), learning.inputs.head, value_state=stage.value_state, seqs=(1, 2, 3)
    )
    run(DistillStage(*learning.of_policy, DistillPlan(steps=2, batch=4)).work())
    assert stage.value_state is None, "what belonged to the weights before is gone"
    run(stage.work())
    derived = stage.first_coefficient(learning.inputs)
    assert stage.ppo is not None and derived / 5 < stage.ppo.kl_coefficient < derived * 5
    learning.weights.replace(state)
    run(stage.work())
    assert stage.ppo.kl_coefficient == pytest.approx(123.0 * (target / stage.ppo.kl_target) ** 0.5, rel=0.3)


def test_the_value_head_and_the_moments_belong_to_the_weights(learning: Learning) -> None:
    stage = PPOStage(*learning.of_policy, None, PPOPlan(prompts=2, answers=2, iterations=2))
    run(stage.work())
    first = stage.ppo
    run(stage.work())
    assert first is not None and stage.ppo is first, "PPO goes on in its own"
    learning.weights.return_to(VersionState(PolicySnapshot(), None))
    assert stage.ppo is None
    before = lora_state(learning.weights.policy)
    work = stage.work()
    next(work)
    assert stage.ppo is not None and stage.ppo is not first
    assert all(float(p.detach().abs().max()) == 0 for p in stage.ppo.value_head.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in lora_state(learning.weights.policy).items())
    load_lora(learning.weights.policy, None)


def test_at_the_first_coefficient_the_optimum_is_the_steered_policy_at_any_temperature(
    learning: Learning, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one state, by the closed form of an optimum under a KL penalty."""
    tokens = 20.0
    for temperature in (0.6, 1.0, 1.7):
        practice = learning.practice
        practice.sampling = replace(practice.sampling, temperature=temperature)
        monkeypatch.setattr(practice, "base_length", lambda: tokens)
        stage = PPOStage(*learning.of_policy, None)
        coefficient = stage.first_coefficient(learning.inputs)
        gain, beta = stage._head_scorer(learning.inputs).gain, stage._teacher.steering.beta
        base, reward = (torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
        reference, reward = (base / temperature).log_softmax(0), reward / 10
        optimum = (reference + gain * reward / tokens / coefficient).softmax(0)
        assert beta > 0 and torch.allclose(optimum, ((base + beta * reward) / temperature).softmax(0), atol=1e-5)


@pytest.mark.parametrize("answers", [0, 1])
def test_rollouts_with_fewer_than_two_tokens_in_all_end_the_round_with_a_note(
    learning: Learning, answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Rollouts(((1, 2),) * answers, ((5,),) * answers, ("eos",) * answers, ((-1.0,),) * answers)
    monkeypatch.setattr(PPO, "rollout", lambda *_: drawn)
    notes: list[Event] = []
    learning.runs.emit = notes.append
    run(PPOStage(*learning.of_policy, None, PPOPlan(prompts=1, answers=1, iterations=3)).work())
    (told,) = [event for event in notes if isinstance(event, Metrics)]
    assert told.note == (TOO_SHORT if answers else ALL_THOUGHT)
