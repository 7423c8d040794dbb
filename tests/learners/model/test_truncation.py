"""Truncated sampling against transformers' own processors, which are written another way, and against a loop of whole forwards."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from learners.human_reward.logit_bias import LogitBias
from learners.model import static_decoder
from learners.model.base import Backbone
from learners.model.forward import forward
from learners.model.sampling import Row
from learners.model.static_decoder import StaticDecoder
from learners.model.traced_step import traced_decoder
from learners.model.truncation import Truncation
from storage.records import Sampling
from tests.learners.model.test_sampling import PROMPTS, draw
from tests.learners.model.test_static_rows import Graph, head_of, rows_of, same
from tests.learners.models import needs_stories, prompt, stirred, stories

VOCABULARY = 40
CPU = torch.device("cpu")
CUT = Sampling(0.9, 24, top_p=0.9, top_k=30, min_p=0.01, repetition_penalty=1.3)


def by_transformers(logits: torch.Tensor, sampling: Sampling, ids: torch.Tensor) -> torch.Tensor:
    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        chain.append(MinPLogitsWarper(sampling.min_p))
    return chain(ids, logits).log_softmax(-1)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 39, 40, 100]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    penalty=st.sampled_from([1.0, 1.1, 2.0, 0.8]),
)
def test_it_is_the_distribution_of_generate(seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, VOCABULARY, generator=generator)
    ids = torch.randint(0, VOCABULARY, (3, 7), generator=generator)
    sampling = Sampling(temperature, 8, top_p=top_p, top_k=top_k, min_p=min_p, repetition_penalty=penalty)
    law = Truncation.of(sampling, ids.tolist(), VOCABULARY, CPU)
    assert (law is None) == (sampling.plain == sampling)
    if law is not None:
        found, expected = law.logprobs(logits, torch.full((3, 1), temperature)), by_transformers(logits, sampling, ids)
        assert (found.isinf() == expected.isinf()).all()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampling", [Sampling(0.5, 8, top_p=1e-9), Sampling(2.0, 8, min_p=1.0), Sampling(1.0, 8, top_k=1)])
def test_the_likeliest_token_is_always_kept_and_so_are_those_that_are_as_likely(sampling: Sampling) -> None:
    logits = torch.tensor([[0.1, 0.3, 0.2, 0.0], [5.0, -torch.inf, -torch.inf, 5.0]])
    law = Truncation.of(sampling, [(), ()], 4, CPU)
    assert law is not None and law.logprobs(logits, sampling.temperature).exp().tolist() == [[0, 1, 0, 0], [0.5, 0, 0, 0.5]]


def test_a_nucleus_of_everything_loses_no_rare_token_to_rounding() -> None:
    logits = torch.cat([torch.zeros(1, 1), torch.full((1, 50_000), -18.0)], 1)
    law = Truncation.of(Sampling(1.0, 8, repetition_penalty=1.1), [()], 50_001, CPU)
    assert law is not None and not law.logprobs(logits, 1.0).isinf().any()


def naive(backbone: Backbone, row: Row) -> list[tuple[int, float, float]]:
    """Tokens with their log-probabilities, drawn and plain, by whole forwards and transformers' processors."""
    uniforms = torch.rand(CUT.max_new_tokens, generator=torch.Generator().manual_seed(row.seed), dtype=torch.float64).tolist()
    drawn: list[tuple[int, float, float]] = []
    sampling = CUT if row.temperature is None else Sampling(row.temperature, *[getattr(CUT, name) for name in CUT.__struct_fields__[1:]])
    while len(drawn) < CUT.max_new_tokens and (not drawn or drawn[-1][0] not in backbone.eos_ids):
        ids = torch.tensor([[*row.prompt_ids, *(token for token, *_ in drawn)]], device=backbone.device)
        with torch.no_grad():
            logits = forward(backbone.model, ids).logits[:, -1]
        logprobs, plain = by_transformers(logits, sampling, ids)[0], (logits / sampling.temperature).log_softmax(-1)[0]
        point = uniforms[len(drawn)]
        token = next(token for token, total in enumerate(itertools.accumulate(logprobs.double().exp().tolist())) if total > point)
        drawn.append((token, float(logprobs[token]), float(plain[token])))
    return drawn


@needs_stories
def test_answers_are_what_whole_forwards_and_transformers_draw_each_at_its_own_temperature() -> None:
    backbone = stories()
    rows = [Row(str(i), prompt(backbone, text), i, temperature=(None, 0.4, 1.5, 0.9)[i]) for i, text in enumerate(PROMPTS)]
    found = draw(backbone, backbone.model, rows, CUT)
    for row in rows:
        ids, logprobs, plain = zip(*naive(backbone, row), strict=True)
        assert found.ids[row.uid] == list(ids)
        assert found.logprobs[row.uid] == pytest.approx(logprobs, abs=1e-3) and found.unbiased[row.uid] == pytest.approx(plain, abs=1e-3)


@needs_stories
def test_fixed_tensors_and_recorded_steps_draw_the_same_truncated_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoder, "LEAST_LENGTH", 32)  # so that what was said moves to longer tensors
    monkeypatch.setattr(static_decoder, "WORTH_PREPARING", CUT.max_new_tokens)
    backbone = stories()
    tree = stirred(backbone)
    rows = [Row(row.uid, row.prompt_ids, row.seed, row.adapter, row.steer, temperature=0.5 + i / 3) for i, row in enumerate(rows_of(backbone))]
    options = {"twin": True, "steer": LogitBias(head_of(backbone, 1), 2.0)}
    fixed, recorded = StaticDecoder(tree, Graph()), traced_decoder(tree, backbone.layers)
    assert recorded is not None
    other = Sampling(1.1, CUT.max_new_tokens, top_k=30, repetition_penalty=0.9)  # by the same graph
    expected = {sampling: draw(backbone, tree, rows, sampling, decoder=recorded, **options) for sampling in (CUT, other)}
    recorded.prepare(recorded.due())  # type: ignore[arg-type]
    for decoder in (fixed, recorded):
        for sampling, answers in expected.items():
            same(draw(backbone, tree, rows, sampling, decoder=decoder, **options), answers)
    assert len(fixed._buffers) == 2 and len(recorded._buffers) == 1  # lengths of the first, and nothing but the settings of the second
    plain = draw(backbone, tree, rows, Sampling(CUT.temperature, CUT.max_new_tokens), **options)
    same(draw(backbone, tree, rows, Sampling(CUT.temperature, CUT.max_new_tokens), decoder=fixed, **options), plain)
