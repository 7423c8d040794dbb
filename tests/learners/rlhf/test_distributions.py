"""Numbers of next-token distributions against loops, cross-entropy and PyTorch's own gradients; no chunk size changes them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from learners.rlhf import distributions


class Logits:
    """A head of which states are the logits."""

    def __init__(self, positions: int = 100) -> None:
        self.positions = positions
        self.largest = 0

    def __call__(self, hidden: Tensor) -> Tensor:
        self.largest = max(self.largest, len(hidden))
        return hidden


class Linear(Logits):
    """A frozen linear head with soft-capping, as Gemma's."""

    def __init__(self, width: int, vocabulary: int, positions: int = 100) -> None:
        super().__init__(positions)
        self.weight = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(9))

    def __call__(self, hidden: Tensor) -> Tensor:
        return 5 * torch.tanh(nn.functional.linear(super().__call__(hidden), self.weight) / 5)


def given(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_logprobs_are_those_of_the_tempered_softmax(chunk: int, temperature: float) -> None:
    logits, taken = given(8, 9), torch.randint(9, (8,), generator=torch.Generator().manual_seed(0))
    found = distributions.token_logprobs(Logits(chunk), logits, taken, temperature)
    for t in range(8):
        weights = [math.exp(x / temperature) for x in logits[t].tolist()]
        assert found[t].item() == pytest.approx(math.log(weights[taken[t]] / sum(weights)), abs=1e-5)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_are_those_of_cross_entropy_through_the_whole_head(chunk: int, temperature: float) -> None:
    head, taken, weights = Linear(6, 11, chunk), torch.tensor([0, 4, 2, 10, 4]), given(5, seed=3)
    ours, theirs = (given(5, 6).requires_grad_() for _ in range(2))
    (distributions.token_logprobs(head, ours, taken, temperature) * weights).sum().backward()
    (-nn.functional.cross_entropy(head(theirs) / temperature, taken, reduction="none") * weights).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_token_logprobs_have_the_gradient_of_a_softmax() -> None:
    logits = given(3, 5).requires_grad_()
    taken = torch.tensor([0, 4, 2])
    distributions.token_logprobs(Logits(2), logits, taken).sum().backward()
    one_hot = nn.functional.one_hot(taken, 5)
    assert logits.grad is not None
    assert torch.allclose(logits.grad, one_hot - logits.detach().softmax(1), atol=1e-6)


@pytest.mark.parametrize("chunk", [2, 100])
def test_the_kl_from_a_target_and_its_gradient_are_pytorchs(chunk: int) -> None:
    head, target, weights = Linear(6, 11, chunk), given(5, 11, seed=2), given(5, seed=3)
    ours, theirs = (given(5, 6).requires_grad_() for _ in range(2))
    found = distributions.forward_kl(head, ours, lambda rows: target[rows])
    wanted = nn.functional.kl_div(head(theirs).log_softmax(-1), target.log_softmax(-1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_the_kl_from_a_target_is_least_where_the_policy_is_the_target() -> None:
    target = given(3, 5)
    assert torch.allclose(distributions.forward_kl(Logits(), target + 3.0, lambda rows: target[rows]), torch.zeros(3), atol=1e-6)
    assert (distributions.forward_kl(Logits(), torch.zeros_like(target), lambda rows: target[rows]) > 0).all()


def test_the_kl_from_a_target_moves_the_policy_by_the_difference_of_probabilities() -> None:
    student, target = given(1, 5).requires_grad_(), given(1, 5, seed=1)
    distributions.forward_kl(Logits(), student, lambda rows: target[rows]).sum().backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, student.detach().softmax(-1) - target.softmax(-1), atol=1e-6)


def test_entropy_of_a_uniform_distribution_is_the_log_of_its_size() -> None:
    logits = torch.zeros(3, 8)
    found = distributions.compare(Logits(2), logits, logits, torch.zeros(3, dtype=torch.int64))
    assert torch.allclose(found.entropy, torch.full((3,), math.log(8)))


def test_exact_kl_is_the_sum_over_the_vocabulary() -> None:
    p, q = given(2, 5, seed=1)
    by_hand = sum(a * math.log(a / b) for a, b in zip(p.softmax(0).tolist(), q.softmax(0).tolist(), strict=True))
    assert distributions.compare(Logits(), p[None], q[None], torch.zeros(1, dtype=torch.int64)).kl.item() == pytest.approx(by_hand, abs=1e-6)


def test_policy_and_reference_are_compared_at_the_temperature_in_chunks() -> None:
    policy, reference, taken = given(7, 9), given(7, 9, seed=1), torch.arange(7)
    found = distributions.compare(Logits(3), policy, reference, taken, 0.7)
    p, q = (logits.div(0.7).log_softmax(-1) for logits in (policy, reference))
    assert torch.allclose(found.logprobs, p[range(7), range(7)], atol=1e-6)
    assert torch.allclose(found.ref_logprobs, q[range(7), range(7)], atol=1e-6)
    assert torch.allclose(found.entropy, torch.distributions.Categorical(logits=policy / 0.7).entropy(), atol=1e-5)
    assert torch.allclose(found.kl, (p.exp() * (p - q)).sum(1), atol=1e-6)


def test_impossible_tokens_do_not_break_entropy_or_kl_but_nan_shows() -> None:
    taken, logits = torch.zeros(1, dtype=torch.int64), torch.tensor([[0.0, 0.0, -math.inf]])
    found = distributions.compare(Logits(), logits, logits, taken)
    assert found.entropy.item() == pytest.approx(math.log(2)) and found.kl.item() == 0
    assert distributions.forward_kl(Logits(), logits, lambda rows: logits[rows]).item() == 0
    assert distributions.compare(Logits(), torch.full((1, 3), math.nan), torch.zeros(1, 3), taken).kl.isnan().all()


def test_an_impossible_token_has_a_finite_gradient() -> None:
    logits = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    distributions.forward_kl(Logits(), logits, lambda rows: torch.tensor([[0.0, 0.0, -math.inf]])).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[0, 2] == 0


def test_no_more_positions_than_asked_for_go_through_the_head_at_once_and_none_is_kept() -> None:
    head, hidden = Linear(6, 11, positions=4), given(30, 6).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        distributions.token_logprobs(head, hidden, torch.zeros(30, dtype=torch.int64)).sum()
        within = len(kept)  # of the chunks' own graphs, which are gone by now
        assert [tuple(t.shape) for t in kept[-1:]] == [(30, 6)], within
    assert head.largest == 4


def test_no_positions_give_no_numbers() -> None:
    hidden = torch.zeros(0, 6, requires_grad=True)
    found = distributions.token_logprobs(Linear(6, 11), hidden, torch.zeros(0, dtype=torch.int64))
    found.sum().backward()
    assert found.shape == (0,)
