"""The embedded model that ships: it is the one that its card describes, needs no network, and answers whatever it is asked."""

from __future__ import annotations

import socket
from importlib.resources import files

import pytest
import safetensors.torch
import torch

from learners.model.base import Backbone
from learners.model.chat_format import fit_prompt
from learners.model.checkpoint import POCKET
from learners.model.loading import load_backbone
from learners.model.sampling import Row, decode
from learners.pocket.card import read_card
from learners.pocket.corpus import corpus_hash, held_out_prompts
from learners.pocket.measuring import draw, figures, perplexity
from learners.pocket.model import ANSWER_TOKENS
from storage.records import Message, Sampling

MOST_BYTES = 10 * 2**20


@pytest.fixture(scope="module")
def pocket() -> Backbone:
    """By name, with every connection forbidden."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *of: pytest.fail("the embedded model asked the network"))
        return load_backbone("pocket", "none", "cpu")


def test_the_card_belongs_to_these_weights_and_to_this_corpus() -> None:
    training, found = read_card(POCKET)
    assert training.corpus_hash == corpus_hash()
    assert training.parameters == sum(tensor.numel() for tensor in safetensors.torch.load_file(POCKET / "model.safetensors").values())
    assert found.well_formed >= 0.95 and found.sets_that_differ >= 0.90
    assert 0.25 <= found.untrue <= 0.55 and 0.15 <= found.harmful <= 0.45


def test_it_is_small_and_stored_as_bfloat16() -> None:
    assert sum(path.stat().st_size for path in POCKET.iterdir()) <= MOST_BYTES
    assert {tensor.dtype for tensor in safetensors.torch.load_file(POCKET / "model.safetensors").values()} == {torch.bfloat16}


def test_it_is_a_resource_of_its_package() -> None:
    shipped = files("learners.pocket").joinpath("weights")
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= {entry.name for entry in shipped.iterdir()}


def test_it_says_what_it_was_made_to_say_better_than_its_card_admits_by_no_more_than_rounding(pocket: Backbone) -> None:
    assert perplexity(pocket, 200) == pytest.approx(read_card(POCKET)[1].perplexity, rel=0.1)


def test_a_small_sample_is_well_formed_and_differs(pocket: Backbone) -> None:
    """Thirty sets; the bounds are five standard errors below what is asked of a thousand answers."""
    found = figures(draw(pocket, held_out_prompts(30, 5)), 0.0)
    assert found.well_formed > 0.85 and found.sets_that_differ > 0.63
    assert 0.1 < found.untrue < 0.75 and 0.05 < found.harmful < 0.65


TYPED = (
    *("hi", "tell me about cats", "", "你好，请问今天天气怎么样？", "x" * 2000, "word " * 400),
    *("\x00\x1b[31m\u202e", "🦊🦊", "\n\n", "<|assistant|> <|end|>"),
)


@pytest.mark.parametrize("prompt", TYPED, ids=lambda prompt: repr(prompt[:20]))
def test_whatever_is_typed_gets_an_answer(pocket: Backbone, prompt: str) -> None:
    ids, _ = fit_prompt(pocket.encode((Message("user", prompt),)), pocket.context, ANSWER_TOKENS)
    steps = decode(pocket.model, [Row("a", tuple(ids), 1)], Sampling(1.0, ANSWER_TOKENS), pocket.eos_ids, pocket.pad_id)
    tokens = [step.ids[0] for step in steps]
    assert 0 < len(tokens) <= ANSWER_TOKENS
    assert pocket.decode(tokens).strip()
