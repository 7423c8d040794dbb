"""Heads stay on the CPU, states are on the base's device. Fake tensors of a device that is not here tell where the two would meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from learners.curriculum import canary
from learners.human_reward.critique_bias import BiasWithCritiques, CriticisedStates, CritiqueBias, _nats
from learners.human_reward.features import Features, Seen, token_similarity
from learners.human_reward.fit import RewardFit
from learners.human_reward.fixed_bias import FixedHeads
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import VisitedStates, _KLCurve, _States
from learners.human_reward.likelihood import Pairs
from learners.human_reward.logit_bias import LogitBias
from learners.model.rows import Context, Layout, Row
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import Trace
from tests.learners.models import cpu_only

pytestmark = cpu_only  # a real device tells by itself

WIDTH, VOCABULARY = 16, 50
GPU = torch.device("lazy", 0)
"""Any device will do that is no CPU; of this one every build of torch can index fake tensors."""


def fitted(seed: int) -> RewardHead:
    """A head that was taught, as the fit leaves it."""
    generator = torch.Generator().manual_seed(seed)
    features = Features.fit(torch.randn(100, WIDTH, generator=generator))
    human_reward = RewardFit(features, token_similarity(torch.randn(VOCABULARY, WIDTH, generator=generator)))
    for name in ("good", "bad"):
        ids = torch.randint(0, VOCABULARY, (6,), generator=generator).tolist()
        human_reward.add_answer(name, ids, Seen.of(torch.randn(6, WIDTH, generator=generator), torch.randn(6, VOCABULARY, generator=generator)))
    head = human_reward.fit([Pairs.of_ranks({"good": 1, "bad": 2})], 1)
    assert head.weights.device.type == "cpu"  # computed when first asked for: here, and not among fake tensors
    return head


def restored(seed: int) -> RewardHead:
    return RewardHead.from_state(fitted(seed).state())


def elsewhere() -> FakeTensorMode:
    """A machine with a GPU, as far as shapes and devices go. Heads that crossed to another such machine are forgotten."""
    for head in itertools.chain(*HEADS.values()):
        head._elsewhere.clear()
    return FakeTensorMode(allow_non_fake_inputs=True)


def biases(kind: str) -> Iterator[LogitBias]:
    """Without and with an adapter that absorbed another head. Which tokens they bias is known: fake tensors cannot tell how many are distinct."""
    new, old = HEADS[kind]
    for bias in (LogitBias(new, 0.7), LogitBias(new, 0.7, old, 0.4)):
        bias.tokens(torch.device("cpu"))
        yield bias


HEADS = {name: (make(0), make(1)) for name, make in (("fitted", fitted), ("restored", restored))}


def on_gpu(*shape: int) -> Tensor:
    return torch.randn(*shape, device=GPU)


def test_fake_tensors_tell_two_devices_apart() -> None:
    with elsewhere(), pytest.raises(RuntimeError, match="on the same device"):
        on_gpu(2, 3) @ torch.randn(3, 2)


@pytest.mark.parametrize("kind", HEADS)
def test_the_reward_of_every_token_and_of_taken_tokens_is_where_the_states_are(kind: str) -> None:
    head, _ = HEADS[kind]
    with elsewhere():
        hidden = on_gpu(2, 5, WIDTH)
        assert head.rewards(hidden).device == GPU
        ids = torch.zeros(2, 5, dtype=torch.int64, device=GPU)
        assert head.token_rewards(Seen.of(hidden, on_gpu(2, 5, VOCABULARY)), ids).device == GPU
        assert head.tokens.device.type == "cpu" and head.on(GPU) is head.on(GPU)


@pytest.mark.parametrize("kind", HEADS)
def test_the_logit_bias_is_where_the_logits_are(kind: str) -> None:
    """As drawing and the teacher of distillation use it."""
    for bias in biases(kind):
        with elsewhere():
            found = bias.bias(on_gpu(4, WIDTH), on_gpu(4, VOCABULARY))
            assert found is not None and found.device == GPU and found.shape == (4, VOCABULARY)


@pytest.mark.parametrize("kind", HEADS)
def test_the_fixed_bias_of_captured_steps_is_where_the_logits_are(kind: str) -> None:
    for bias in biases(kind):
        with elsewhere():
            fixed = FixedHeads(bias, GPU)
            assert fixed.take(bias)
            found = fixed.bias(on_gpu(4, WIDTH), on_gpu(4, VOCABULARY))
            assert found.device == GPU and found.shape == (4, VOCABULARY)
            wish, rows = on_gpu(4, VOCABULARY), torch.ones(4, 1, dtype=torch.bool, device=GPU)
            assert fixed.take(bias, CritiqueBias(0.7, 0.5))
            found = fixed.criticised(on_gpu(4, WIDTH), on_gpu(4, VOCABULARY), wish, rows)
            assert found.device == GPU and found.shape == (4, VOCABULARY)
            assert fixed.take(LogitBias(bias.head))  # steering is switched off


def test_beta_is_solved_where_the_states_are() -> None:
    for bias in biases("restored"):
        with elsewhere():
            logits = on_gpu(7, VOCABULARY)
            answer = VisitedStates(Seen.of(on_gpu(7, WIDTH), logits), logits.log_softmax(-1), on_gpu(7, VOCABULARY).log_softmax(-1))
            assert _KLCurve.of(bias, _States.of([answer, answer]), 1.0).nats(0.5).device == GPU


def test_what_critiques_ask_for_and_what_it_costs_is_where_the_logits_are() -> None:
    """Two answers, of which the second has two contexts; with the base and beside an adapter that absorbed another head."""
    contexts = (Context(1.0, (1, 2, 3)), Context(-2.0, (1, 2, 4)))
    rows = [Row("a", (1, 2), 0, adapter=False, steer=True), Row("b", (1, 2), 1, adapter=False, steer=True, contexts=contexts)]
    for bias in biases("fitted"):
        with elsewhere():
            layout, logits, hidden = Layout(rows, False, False, GPU), on_gpu(4, VOCABULARY), on_gpu(4, WIDTH)
            policy, base, state = layout.split(logits, hidden)
            wish = layout.wish(logits, base)
            assert wish is not None and wish.device == GPU and wish.shape == policy.shape == (2, VOCABULARY)
            found = BiasWithCritiques(bias, CritiqueBias(0.7, 0.5)).criticised(state, base, wish, layout.criticised)
            assert found.device == GPU and found.shape == (2, VOCABULARY)
            states = CriticisedStates.pooled([CriticisedStates(state, base, wish), CriticisedStates(state, base, wish, on_gpu(2, VOCABULARY))])
            assert states.policy is not None
            acting = states.policy + CritiqueBias().bias(bias, states.hidden, states.base, states.wish)
            assert _nats(acting, states.base.log_softmax(1), 0.9).device == GPU


def test_features_and_token_similarity_of_a_base_elsewhere_stay_on_the_cpu() -> None:
    with elsewhere():
        features = Features.fit(on_gpu(100, WIDTH))
        assert {features.mean.device.type, features.basis.device.type} == {"cpu"}
        assert token_similarity(on_gpu(VOCABULARY, WIDTH)).device.type == "cpu"
        assert RewardHead.empty(features).weights.device.type == "cpu"


# --- a device without float64 ------------------------------------------------------------------------------------------


class Mps(Tensor):
    """Numbers as they would be on Apple's GPUs: what follows from them is there too, until it is brought here, and none of it is float64."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("mps")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.cpu or (function is Tensor.to and torch.device("cpu") in args):
            return args[0].as_subclass(Tensor)
        found = super().__torch_function__(function, types, args, kwargs)
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor) and each.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return found


def test_what_needs_float64_is_computed_on_the_cpu_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    head = torch.randn(600, WIDTH, generator=torch.Generator().manual_seed(1))
    there = head.as_subclass(Mps)
    with pytest.raises(TypeError):
        there.double()
    assert torch.equal(token_similarity(there), token_similarity(head))
    assert torch.equal(Features.fit(there).basis, Features.fit(head).basis)
    model = object.__new__(RewardModel)
    scores = torch.tensor([1.0, 2.0, 6.0])
    monkeypatch.setattr(RewardModel, "score", lambda *_: scores.as_subclass(Mps))
    model.normalise([(1,)] * 3, [(1,)] * 3)
    assert model.gain * scores.double().std(correction=0) == pytest.approx(1.0) and model.gain * 3 + model.bias == pytest.approx(0.0)
    monkeypatch.setattr(canary, "states_before", lambda *_: torch.zeros(1, 2, 1))
    monkeypatch.setattr(canary, "LMHead", lambda base: None)
    monkeypatch.setattr(canary, "token_logprobs", lambda *_: torch.tensor([-1.0, -2.0]).as_subclass(Mps))
    backbone: Any = SimpleNamespace(memory_budget=SimpleNamespace(parts=lambda *_, **__: [[0]]))
    assert canary.loss_under(backbone, torch.nn.Module(), [Trace((1,), ids=[4, 5])]) == 1.5
