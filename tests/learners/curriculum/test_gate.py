"""The gate over a real model: what it refuses, and what it leaves in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learners.curriculum.gate import Contender, Gate, GateSettings
from learners.engine.assembly import Parts, assemble
from learners.model.lora import load_lora, lora_state
from learners.protocol import Load
from learners.rlhf.rollouts import Trace
from storage.records import Message, Prompt, Sampling
from tests.learners.models import DEVICE, tensor

PROMPTS = tuple(Prompt.of(f"Once upon a time, there was a {noun}") for noun in ("dog", "cat", "girl", "king", "frog", "bird", "tree", "boat"))
SAMPLING = Sampling(1.0, 16)


@pytest.fixture(scope="module")
def parts(request: pytest.FixtureRequest) -> Parts:
    model = Path(request.config.rootpath).parent / "shared" / "data" / "stories260k"
    if not model.is_dir():
        pytest.skip(f"the model is not at {model}")
    return assemble(Load(model=str(model), sampling=SAMPLING), lambda event: None)


@pytest.fixture
def gate(parts: Parts) -> Gate:
    load_lora(parts.trees.policy, None)
    return Gate(parts.backbone, parts.trees.policy, SAMPLING, GateSettings(prompts=8, answers=3))


def prompts(parts: Parts) -> list[tuple[int, ...]]:
    return [tuple(parts.backbone.encode((Message("user", p.text),))) for p in PROMPTS]


def disturbed(parts: Parts, size: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """LoRA weights that change the policy by about `size`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: size * torch.randn(w.shape, generator=generator).to(w.device) if "lora_B" in name else w
        for name, w in lora_state(parts.trees.policy).items()
    }


def contender(parts: Parts, lora: dict[str, torch.Tensor] | None) -> Contender:
    return Contender(lambda: load_lora(parts.trees.policy, lora), None)


def favouring(token_ids: set[int]):  # type: ignore[no-untyped-def]
    """A judge that counts tokens."""
    return lambda prompts, answers: tensor([sum(t in token_ids for t in answer) / len(answer) for answer in answers])


def test_a_candidate_that_is_the_live_policy_passes(parts: Parts, gate: Gate) -> None:
    base = contender(parts, None)
    verdict = gate.compare(base, base, lambda p, a: torch.zeros(len(a)), prompts(parts), 6.0, 1)
    assert verdict.published and verdict.kl == pytest.approx(0, abs=1e-6) and verdict.win_rate == 0.5
    assert "no worse on 8 prompts" in verdict.reason


def test_a_clearly_worse_candidate_is_refused_with_the_reason(parts: Parts, gate: Gate) -> None:
    noise = disturbed(parts, 0.4)
    load_lora(parts.trees.policy, None)
    common = {token for prompt in prompts(parts) for token in prompt}

    def likes_the_base(asked, answers):  # type: ignore[no-untyped-def]
        from learners.rlhf.rollouts import states_before

        scores = []
        for prompt, answer in zip(asked, answers, strict=True):
            states = states_before(parts.backbone, parts.backbone.model, prompt, [answer])[0].hidden.to(DEVICE)
            logits = parts.backbone.model.get_output_embeddings()(states)  # type: ignore[operator]
            scores.append(logits.log_softmax(-1).gather(1, tensor(answer)[:, None]).mean())
        return torch.stack(scores)

    verdict = gate.compare(contender(parts, noise), contender(parts, None), likes_the_base, prompts(parts), 1e6, 2)
    assert not verdict.published and verdict.code == "worse" and verdict.reason.startswith("worse on 8 prompts")
    assert verdict.win_rate is not None and verdict.win_rate < 0.4 and common


def test_a_candidate_over_the_budget_is_refused_before_any_judging(parts: Parts, gate: Gate) -> None:
    def never(asked, answers):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing to judge")

    verdict = gate.compare(contender(parts, disturbed(parts, 0.4)), contender(parts, None), never, prompts(parts), 1.0, 3)
    assert verdict.code == "over budget" and verdict.kl is not None and verdict.kl > 1.1 and "of 1 nats" in verdict.reason


def test_weights_that_are_no_numbers_are_refused(parts: Parts, gate: Gate) -> None:
    broken = disturbed(parts, 0.1)
    next(iter(broken.values())).view(-1)[0] = float("nan")
    verdict = gate.compare(contender(parts, broken), contender(parts, None), favouring(set()), prompts(parts), 6.0, 4)
    assert not verdict.published and verdict.code == "not finite"
    load_lora(parts.trees.policy, disturbed(parts, 0.0))
    for parameter in parts.trees.policy.parameters():
        if parameter.requires_grad:
            parameter.data.nan_to_num_()


def test_the_candidate_is_in_the_tree_afterwards(parts: Parts, gate: Gate) -> None:
    mine = disturbed(parts, 0.05, seed=7)
    gate.compare(contender(parts, mine), contender(parts, None), lambda p, a: torch.zeros(len(a)), prompts(parts), 1e6, 5)
    left = lora_state(parts.trees.policy)
    assert all(torch.equal(left[name], weight) for name, weight in mine.items())


def test_its_nats_are_those_of_all_answers_together(parts: Parts, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """One short answer that costs much among long ones that cost little: a mean over answers would refuse the candidate."""
    short, long = Trace((1,), ids=[5], logprobs=[0.0], unbiased=[0.0], kls=[2.0]), Trace((1,), ids=[5] * 63, kls=[0.0] * 63)
    assert (short.nats, long.nats) == (128.0, 0.0)
    monkeypatch.setattr(gate, "_draw", lambda asked, seed, steering: [short, long] * 12)
    verdict = gate.compare(contender(parts, None), contender(parts, None), lambda p, a: torch.zeros(len(a)), prompts(parts), 6.0, 1)
    assert verdict.kl == pytest.approx(2.0) and verdict.published
