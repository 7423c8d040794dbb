"""β at the budget, against the KL of whole distributions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from learners.human_reward.features import LEAST_PROBABILITY as LEAST
from learners.human_reward.features import SURENESS_SCALE as NAT
from learners.human_reward.features import Features, Seen
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import (
    CAUTION,
    MOST_STATES,
    REFERENCE_TOKENS,
    REMEMBERED_ANSWERS,
    STATE_BYTES,
    KLBudget,
    VisitedStates,
    pooled_nats,
    state_stride,
)
from learners.human_reward.logit_bias import LogitBias

WIDTH, VOCABULARY, STATES = 5, 40, 60


def head(seed: int, tokens: int = 12) -> RewardHead:
    generator = torch.Generator().manual_seed(seed)
    features = Features.fit(torch.randn(100, WIDTH, generator=torch.Generator().manual_seed(9)))
    chosen = torch.randperm(VOCABULARY, generator=generator)[:tokens].sort().values
    weights = torch.randn(tokens, WIDTH + 1, generator=generator)
    return RewardHead(1, chosen, weights, features, sureness=float(torch.randn((), generator=generator)))


def visited(seed: int, adapter: float = 0.0) -> VisitedStates:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(STATES, WIDTH, generator=generator)
    base = torch.randn(STATES, VOCABULARY, generator=generator) * 2
    policy = base + adapter * torch.randn(STATES, VOCABULARY, generator=generator)
    return VisitedStates(Seen.of(hidden, base), base.log_softmax(-1), policy.log_softmax(-1), spent=math.inf)


def bias(steering: LogitBias, answer: VisitedStates) -> Tensor:
    """(n, V), token by token, from what a reward is: the oracle."""
    found = torch.zeros(STATES, VOCABULARY)
    for head, beta in ((steering.head, steering.beta), (steering.absorbed, -steering.absorbed_beta)):
        if head is None:
            continue
        found[:, head.tokens] += beta * head.features(answer.seen.hidden) @ head.weights.T
        surer = NAT * (answer.seen.probabilities / LEAST).log()
        for state in range(STATES):
            for token, nats in zip(answer.seen.likely[state].tolist(), surer[state].tolist(), strict=True):
                found[state, token] += beta * head.sureness * max(0.0, nats)
    return found


def exact_nats(steering: LogitBias, answers: list[VisitedStates], temperature: float = 1.0) -> float:
    """KL(acting || base) per 64 tokens over whole distributions: the oracle."""
    total: list[Tensor] = []
    for answer in answers:
        acting = (answer.policy_logprobs + bias(steering, answer) / temperature).log_softmax(-1)
        total.append((acting.exp() * (acting - answer.base_logprobs)).sum(-1))
    return float(torch.cat(total).mean()) * REFERENCE_TOKENS


def budget(nats: float, answers: list[VisitedStates]) -> KLBudget:
    found = KLBudget(nats)
    for answer in answers:
        found.visited(answer)
    return found


def test_the_bias_is_the_reward_of_every_token_less_what_was_absorbed() -> None:
    answer, steering = visited(5), LogitBias(head(0), 0.7, head(1), 0.4)
    found = steering.bias(answer.seen.hidden, answer.base_logprobs)
    assert found is not None
    torch.testing.assert_close(found, bias(steering, answer), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("nats", [0.5, 6.0, 30.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_acting_policy_spends_exactly_the_budget(nats: float, temperature: float) -> None:
    answers = [visited(seed) for seed in range(3)]
    steering = budget(nats, answers).solve(LogitBias(head(0)), temperature)
    assert exact_nats(steering, answers, temperature) == pytest.approx(nats, rel=1e-3)


def test_of_answers_that_spent_less_the_less_is_believed() -> None:
    """LogitBias leads where it costs more: half of the budget on states of the base, all of it on those of answers that spent it."""
    for spent, share in ((0.0, CAUTION), (3.0, (1 + CAUTION) / 2), (6.0, 1.0), (9.0, 1.0)):
        answers = [replace(visited(1), spent=spent / REFERENCE_TOKENS)]
        assert exact_nats(budget(6.0, answers).solve(LogitBias(head(0))), answers) == pytest.approx(6.0 * share, rel=1e-3)


def test_words_that_cost_more_are_not_stepped_over() -> None:
    """Many answers that are alike: every second state of each costs much, the others nothing."""
    assert -(-REMEMBERED_ANSWERS * STATES // MOST_STATES) == 2
    steering, answers = LogitBias(head(0)), [visited(1) for _ in range(REMEMBERED_ANSWERS)]
    quiet = steering.head.features.mean.expand(STATES, -1)  # where only the constant is left
    for first in range(2):
        costly = (torch.arange(STATES) % 2 == first)[:, None]
        alike = [replace(answer, seen=answer.seen._replace(hidden=torch.where(costly, 9 * answer.seen.hidden, quiet))) for answer in answers]
        assert exact_nats(budget(6.0, alike).solve(steering), alike) == pytest.approx(6.0, rel=0.05)


def test_an_adapter_leaves_less_of_the_budget_to_the_bias() -> None:
    alone, beside_adapter = (budget(20.0, answers).solve(LogitBias(head(0))).beta for answers in ([visited(1)], [visited(1, adapter=0.3)]))
    assert 0 < beside_adapter < alone


def test_an_adapter_that_spends_the_whole_budget_leaves_no_bias() -> None:
    assert budget(0.5, [visited(1, adapter=1.0)]).solve(LogitBias(head(0))).beta == 0


def test_what_the_adapter_absorbed_is_not_added_again() -> None:
    absorbed = head(3)
    steering = LogitBias(absorbed, 0.0, absorbed, absorbed_beta=0.8)
    answer = visited(2)
    distilled = answer.base_logprobs + bias(LogitBias(absorbed, 0.8), answer)
    exactly_absorbed = replace(answer, policy_logprobs=distilled.log_softmax(-1))
    nats = exact_nats(LogitBias(absorbed, 0.8), [answer])
    solved = budget(nats, [exactly_absorbed]).solve(steering)
    assert solved.beta == pytest.approx(0.8, rel=1e-3)
    assert float(bias(solved, answer).abs().max()) < 5e-3


def test_an_adapter_that_went_on_by_itself_is_never_steered_backwards() -> None:
    """It absorbed Ĥ, then learned something else and spent the budget: taking Ĥ back whole would also be over it."""
    absorbed, other, answer = head(3), head(8), visited(2)
    trained = answer.base_logprobs.clone()
    for learned, strength in ((absorbed, 0.2), (other, 1.0)):
        trained += bias(LogitBias(learned, strength), answer)
    seen = replace(answer, policy_logprobs=trained.log_softmax(-1))
    assert exact_nats(LogitBias(absorbed, 1e-9, absorbed, 0.8), [seen]) > 6.0
    solved = budget(6.0, [seen]).solve(LogitBias(absorbed, 0.0, absorbed, absorbed_beta=0.8))
    assert solved.bias(answer.seen.hidden, answer.base_logprobs) is None


def test_a_new_head_replaces_the_absorbed_one_within_the_budget() -> None:
    old, new = head(3), head(4)
    answers = [visited(seed, adapter=0.1) for seed in range(2)]
    steering = budget(6.0, answers).solve(LogitBias(new, 0.0, old, absorbed_beta=0.2))
    assert exact_nats(steering, answers) == pytest.approx(6.0, rel=1e-3)


def test_nats_of_several_answers_are_pooled_over_their_tokens() -> None:
    """One short answer that cost much does not count as much as a long one: 4 nats in 4 tokens, 1 in 60."""
    assert pooled_nats([4.0, 1.0], [4, 60]) == pytest.approx(5.0)
    assert pooled_nats([], []) == 0.0


def test_nothing_learned_means_no_bias() -> None:
    blank = RewardHead.empty(head(0).features)
    solved = budget(6.0, [visited(0)]).solve(LogitBias(blank))
    assert solved.beta == 0 and solved.bias(torch.zeros(1, WIDTH), torch.zeros(1, VOCABULARY)) is None


def test_extreme_rewards_do_not_overflow() -> None:
    steep = head(0)
    steep = replace(steep, rows=steep.rows * 1e4)
    answers = [visited(0)]
    steering = budget(6.0, answers).solve(LogitBias(steep))
    assert exact_nats(steering, answers) == pytest.approx(6.0, rel=0.02)


def test_memory_for_states_is_bounded_by_stepping_over_some() -> None:
    assert state_stride(64, 512) == 1
    assert REMEMBERED_ANSWERS * (256 / state_stride(256, 150_000)) * 150_000 * 8 <= 1.5 * STATE_BYTES


@pytest.mark.parametrize("adapter", [0.0, 0.1])
def test_distributions_are_kept_in_half_precision_and_cost_beta_no_exactness(adapter: float) -> None:
    """At a vocabulary of 3,000, of which half is biased: the KL of whole distributions in float64."""
    generator, n, vocabulary = torch.Generator().manual_seed(4), 30, 3000
    hidden, base = torch.randn(n, WIDTH, generator=generator), 2 * torch.randn(n, vocabulary, generator=generator)
    policy = base + adapter * torch.randn(n, vocabulary, generator=generator)
    base_logprobs = base.log_softmax(-1)
    answer = VisitedStates(Seen.of(hidden, base), base_logprobs, policy.log_softmax(-1) if adapter else base_logprobs, spent=math.inf)
    few = head(0)
    large = replace(few, tokens=torch.arange(0, vocabulary, 2), rows=torch.randn(vocabulary // 2, WIDTH + 1, generator=generator) / 2)
    found = budget(6.0, [answer])
    kept = found.answers[0]
    assert kept.base_logprobs.dtype == kept.policy_logprobs.dtype == torch.float16
    assert (kept.policy_logprobs is kept.base_logprobs) == (adapter == 0)
    steering = found.solve(LogitBias(large))
    values = steering.bias(hidden, base)
    assert values is not None
    acting = (answer.policy_logprobs.double() + values.double()).log_softmax(-1)
    nats = float((acting.exp() * (acting - base_logprobs.double())).sum(-1).mean()) * REFERENCE_TOKENS
    assert nats == pytest.approx(6.0, rel=2e-3)


def test_answers_of_the_base_are_forgotten_when_an_acting_one_was_seen() -> None:
    found = KLBudget(6.0)
    found.calibrate([visited(0), visited(1)])
    assert len(found.answers) == 2
    found.visited(visited(2))
    assert len(found.answers) == 1
    found.start_over([])
    assert not found.answers


def test_after_another_adapter_was_published_its_own_divergence_counts() -> None:
    other, found = visited(3, adapter=0.4), budget(6.0, [visited(3)])
    found.see_again(lambda answer: replace(answer, policy_logprobs=other.policy_logprobs))
    exact = (other.policy_logprobs.exp() * (other.policy_logprobs - other.base_logprobs)).sum(1)
    torch.testing.assert_close(found.answers[0].kl, exact, atol=2e-3, rtol=1e-2)


def test_a_token_that_cannot_come_takes_no_part() -> None:
    betas = []
    for never in (-math.inf, -60.0):
        generator = torch.Generator().manual_seed(6)
        hidden, base = torch.randn(STATES, WIDTH, generator=generator), torch.randn(STATES, VOCABULARY, generator=generator)
        policy = base + 0.1 * torch.randn(STATES, VOCABULARY, generator=generator)
        base[:, 7] = policy[:, 7] = never
        answer = VisitedStates(Seen.of(hidden, base), base.log_softmax(-1), policy.log_softmax(-1), spent=math.inf)
        betas.append(budget(6.0, [answer]).solve(LogitBias(head(0))).beta)
    assert betas[0] == pytest.approx(betas[1], rel=1e-4) and betas[0] > 0
