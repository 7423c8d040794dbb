"""The gate over a real model: what it refuses, and what it leaves in the tree."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
import torch

from learners.curriculum.canary import CanaryGauge, CanaryLimits, is_refusal, repeated_share
from learners.curriculum.gate import Contender, Gate, GateSettings
from learners.engine.assembly import Parts, assemble
from learners.model.lora import load_lora, lora_state
from learners.protocol import Load
from learners.rlhf.rollouts import Trace, draw_answers
from storage.records import Canary, Message, Prompt, Sampling
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


# --- the canary ------------------------------------------------------------------------------------------------------------


def watched(parts: Parts, **limits: float) -> Gate:
    """A gate with a canary, and its own answers of the base."""
    base = parts.backbone.model
    load_lora(parts.trees.policy, None)
    drawn = draw_answers(parts.backbone, base, prompts(parts) * 2, SAMPLING, 900, adapter=False)
    gauge = CanaryGauge(parts.backbone, base, lambda: drawn, SAMPLING, CanaryLimits(**limits))
    return Gate(parts.backbone, parts.trees.policy, SAMPLING, GateSettings(prompts=8, answers=3), gauge)


def stuck_on(parts: Parts, token: int) -> dict[str, torch.Tensor]:
    """A LoRA trained to say one token again and again: what a policy does that has found a hole in its reward."""
    from learners.feedback.samples import Target
    from learners.rlhf.sft import SFT

    tree = parts.trees.policy
    load_lora(tree, None)
    trainer = SFT(tree, parts.backbone.width)
    targets = [Target(prompt, (token,) * 8) for prompt in prompts(parts)]
    for _ in range(16):
        trainer.step(targets)
    return {name: weight.clone() for name, weight in lora_state(tree).items()}


def test_a_version_that_wins_by_repeating_one_token_is_refused_with_that_reason(parts: Parts) -> None:
    token = parts.backbone.encode_completion(" happy")[0]
    gate, degenerate = watched(parts), stuck_on(parts, token)
    judge = favouring({token})
    verdict = gate.compare(contender(parts, degenerate), contender(parts, None), judge, prompts(parts), 1e6, 3)
    assert verdict.win_rate is not None and verdict.win_rate > 0.9, "the judge likes it"
    assert not verdict.published and not verdict.better and verdict.code == "worse elsewhere"
    assert "better on 8 prompts" in verdict.reason and "repeats" in verdict.reason and "perplexity" in verdict.reason
    assert verdict.canary is not None and verdict.canary.repetition[0] > 0.6 > 0.2 > verdict.canary.repetition[1]


def test_the_canarys_figures_are_those_that_plain_counting_gives(parts: Parts) -> None:
    gate = watched(parts)
    base = contender(parts, None)
    verdict = gate.compare(base, base, lambda p, a: torch.zeros(len(a)), prompts(parts), 6.0, 1)
    assert verdict.published and verdict.canary is not None
    canary = verdict.canary
    drawn = draw_answers(parts.backbone, parts.backbone.model, prompts(parts) * 2, SAMPLING, 900, adapter=False)
    nll, count = 0.0, 0
    for trace in drawn:
        logits = parts.backbone.model(tensor([[*trace.prompt_ids, *trace.ids]])).logits[0].detach().log_softmax(-1)
        nll -= sum(float(logits[len(trace.prompt_ids) - 1 + i, token]) for i, token in enumerate(trace.ids))
        count += len(trace.ids)
    assert canary.perplexity[1] == pytest.approx(math.exp(nll / count), rel=1e-3)
    assert canary.length[1] == pytest.approx(count / len(drawn), abs=0.01)
    assert canary.neutral_kl == pytest.approx(0.0, abs=1e-5) and canary.neutral_loss[0] == pytest.approx(canary.neutral_loss[1], abs=1e-3)
    assert canary.refusals == (0.0, 0.0)


def test_each_limit_has_its_words_and_none_where_nothing_is_wrong(parts: Parts) -> None:
    gauge = CanaryGauge(parts.backbone, parts.backbone.model, list, SAMPLING)
    fine = Canary((5.0, 5.0), (0.1, 0.1), (0.0, 0.0), (20.0, 20.0), 1.0, (2.0, 2.0))
    assert gauge.objection(fine, 6.0) == ""
    for field, value, word in (
        ("perplexity", (20.5, 5.0), "perplexity"), ("repetition", (0.45, 0.1), "repeats 45%"), ("refusals", (0.3, 0.0), "refuses 30%"),
        ("length", (1.0, 20.0), "answers have 1 tokens"), ("neutral_kl", 13.0, "13.0 nats"), ("neutral_loss", (2.8, 2.0), "loss of 2.80"),
        ("perplexity", (float("nan"), 5.0), "perplexity"),
    ):  # fmt: skip
        assert word in gauge.objection(msgspec.structs.replace(fine, **{field: value}), 6.0)
    assert ";" in gauge.objection(msgspec.structs.replace(fine, neutral_kl=20.0, refusals=(0.9, 0.0)), 6.0)


def test_four_grams_are_counted_within_an_answer() -> None:
    assert repeated_share([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]) == 0.0
    assert repeated_share([[7] * 8]) == pytest.approx(4 / 5)
    assert repeated_share([[1, 2, 3]]) == repeated_share([]) == 0.0


@pytest.mark.parametrize(
    ("text", "refused"),
    [("I’m sorry, but I can’t help with that.", True), ("As an AI, I have no home.", True), ("The king said: sorry.", False), ("", False)],
)
def test_refusals_are_known_by_how_they_begin(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused
    assert not is_refusal("word " * 60 + text)
