"""β at the budget, against the KL of whole distributions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from learners.features import Features
from learners.human_reward import RewardHead
from learners.steering import REFERENCE_TOKENS, REMEMBERED_ANSWERS, STATE_BYTES, NatsBudget, Steering, Visited, state_stride

WIDTH, VOCABULARY, STATES = 5, 40, 60


def head(seed: int, tokens: int = 12) -> RewardHead:
    generator = torch.Generator().manual_seed(seed)
    features = Features.fit(torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(9)))
    chosen = torch.randperm(VOCABULARY, generator=generator)[:tokens].sort().values
    return RewardHead(1, chosen, torch.randn(tokens, WIDTH + 1, generator=generator), features)


def visited(seed: int, adapter: float = 0.0) -> Visited:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(STATES, WIDTH, generator=generator)
    base = torch.randn(STATES, VOCABULARY, generator=generator) * 2
    policy = base + adapter * torch.randn(STATES, VOCABULARY, generator=generator)
    return Visited(hidden, base.log_softmax(-1), policy.log_softmax(-1))


def exact_nats(steering: Steering, answers: list[Visited], temperature: float = 1.0) -> float:
    """KL(acting || base) per 64 tokens over whole distributions: the oracle."""
    total: list[Tensor] = []
    for answer in answers:
        logits = answer.policy_logprobs.clone()
        biased = steering.bias(answer.hidden)
        if biased is not None:
            tokens, values = biased
            logits[:, tokens] += values / temperature
        acting = logits.log_softmax(-1)
        total.append((acting.exp() * (acting - answer.base_logprobs)).sum(-1))
    return float(torch.cat(total).mean()) * REFERENCE_TOKENS


def budget(nats: float, answers: list[Visited]) -> NatsBudget:
    found = NatsBudget(nats)
    for answer in answers:
        found.visited(answer)
    return found


@pytest.mark.parametrize("nats", [0.5, 6.0, 30.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_acting_policy_spends_exactly_the_budget(nats: float, temperature: float) -> None:
    answers = [visited(seed) for seed in range(3)]
    steering = budget(nats, answers).solve(Steering(head(0)), temperature)
    assert exact_nats(steering, answers, temperature) == pytest.approx(nats, rel=1e-3)


def test_an_adapter_leaves_less_of_the_budget_to_the_bias() -> None:
    alone, beside_adapter = (
        budget(20.0, answers).solve(Steering(head(0))).beta
        for answers in ([visited(1)], [visited(1, adapter=0.3)])
    )
    assert 0 < beside_adapter < alone


def test_an_adapter_that_spends_the_whole_budget_leaves_no_bias() -> None:
    assert budget(0.5, [visited(1, adapter=1.0)]).solve(Steering(head(0))).beta == 0


def test_what_the_adapter_absorbed_is_not_added_again() -> None:
    absorbed = head(3)
    steering = Steering(absorbed, 0.0, absorbed, absorbed_beta=0.8)
    answer = visited(2)
    tokens, values = Steering(absorbed, 0.8).bias(answer.hidden) or pytest.fail("no bias")
    distilled = answer.base_logprobs.clone()
    distilled[:, tokens] += values
    exactly_absorbed = Visited(answer.hidden, answer.base_logprobs, distilled.log_softmax(-1))
    nats = exact_nats(Steering(absorbed, 0.8), [answer])
    solved = budget(nats, [exactly_absorbed]).solve(steering)
    assert solved.beta == pytest.approx(0.8, rel=1e-3)
    extra = solved.bias(answer.hidden)
    assert extra is None or float(extra[1].abs().max()) < 5e-3


def test_an_adapter_that_went_on_by_itself_is_never_steered_backwards() -> None:
    """It absorbed Ĥ, then learned something else and spent the budget: taking Ĥ back whole would also be over it."""
    absorbed, other, answer = head(3), head(8), visited(2)
    trained = answer.base_logprobs.clone()
    for learned, strength in ((absorbed, 0.2), (other, 1.0)):
        tokens, values = Steering(learned, strength).bias(answer.hidden) or pytest.fail("no bias")
        trained[:, tokens] += values
    seen = Visited(answer.hidden, answer.base_logprobs, trained.log_softmax(-1))
    assert exact_nats(Steering(absorbed, 1e-9, absorbed, 0.8), [seen]) > 6.0
    solved = budget(6.0, [seen]).solve(Steering(absorbed, 0.0, absorbed, absorbed_beta=0.8))
    assert solved.bias(answer.hidden) is None


def test_a_new_head_replaces_the_absorbed_one_within_the_budget() -> None:
    old, new = head(3), head(4)
    answers = [visited(seed, adapter=0.1) for seed in range(2)]
    steering = budget(6.0, answers).solve(Steering(new, 0.0, old, absorbed_beta=0.2))
    assert exact_nats(steering, answers) == pytest.approx(6.0, rel=1e-3)


def test_nothing_learned_means_no_bias() -> None:
    blank = RewardHead.empty(head(0).features)
    solved = budget(6.0, [visited(0)]).solve(Steering(blank))
    assert solved.beta == 0 and solved.bias(torch.zeros(1, WIDTH)) is None


def test_extreme_rewards_do_not_overflow() -> None:
    steep = head(0)
    steep = RewardHead(1, steep.tokens, steep.weights * 1e4, steep.features)
    answers = [visited(0)]
    steering = budget(6.0, answers).solve(Steering(steep))
    assert exact_nats(steering, answers) == pytest.approx(6.0, rel=0.02)


def test_memory_for_states_is_bounded_by_stepping_over_some() -> None:
    assert state_stride(64, 512) == 1
    assert REMEMBERED_ANSWERS * (256 / state_stride(256, 150_000)) * 150_000 * 8 <= 1.5 * STATE_BYTES
