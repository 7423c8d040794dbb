"""Truncated sampling against transformers' own processors, which are written another way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from learners.model.truncation import said_tokens, truncated, truncates
from storage.records import Sampling

VOCABULARY = 40


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
    found = truncated(logits, sampling, said_tokens(ids.tolist(), VOCABULARY, torch.device("cpu")))
    expected = by_transformers(logits, sampling, ids)
    assert (found.isinf() == expected.isinf()).all()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampling", [Sampling(0.5, 8, top_p=1e-9), Sampling(2.0, 8, min_p=1.0), Sampling(1.0, 8, top_k=1)])
def test_the_likeliest_token_is_always_kept(sampling: Sampling) -> None:
    logits = torch.tensor([[0.1, 0.3, 0.2], [5.0, -torch.inf, -torch.inf]])
    assert truncated(logits, sampling).exp().tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_plain_sampling_cuts_nothing() -> None:
    assert not truncates(Sampling(0.7, 8))
    logits = torch.randn(2, VOCABULARY)
    torch.testing.assert_close(truncated(logits, Sampling(0.7, 8)), (logits / 0.7).log_softmax(-1))
