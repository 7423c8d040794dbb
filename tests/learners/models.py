"""Real models for tests: stories260k, and tiny random ones at GPT-2's vocabulary."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from learners.model.base import Backbone
from learners.model.loading import load_backbone
from learners.model.lora import lora_parameters
from storage.records import Message

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
STORIES = DATA / "stories260k"
GPT2_TOKENIZER = DATA / "gpt2_tokenizer"

needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason="../shared/data/stories260k is not here")
needs_gpt2 = pytest.mark.skipif(not GPT2_TOKENIZER.is_dir(), reason="../shared/data/gpt2_tokenizer is not here")

QUANTIZED = ("none", "nf4", "int8")
DEVICE = os.environ.get("TAMER_TEST_DEVICE", "cpu")
cpu_only = pytest.mark.skipif(DEVICE != "cpu", reason="of what is done on a CPU alone")


@functools.cache
def stories(quantize: str = "none") -> Backbone:
    """stories260k, loaded once in a test run."""
    return load_backbone(str(STORIES), quantize, DEVICE)


@functools.cache
def random_llama() -> Backbone:
    """A two-layer Llama with untied, 64-wide states and GPT-2's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50257, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, bos_token_id=None, eos_token_id=50256, pad_token_id=None,
    )  # fmt: skip
    return load_backbone(str(saved(LlamaForCausalLM, config)), "none", DEVICE)


@functools.cache
def random_gpt2() -> Backbone:
    """A two-layer GPT-2: learned positions, Conv1D layers, no rotary embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50257, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    return load_backbone(str(saved(GPT2LMHeadModel, config)), "none", DEVICE)


@functools.cache
def random_experts() -> Backbone:
    """A two-layer mixture of experts with a shared one, which sees its tokens without their rows."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        vocab_size=50257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=24, max_position_embeddings=128,
        bos_token_id=None, eos_token_id=50256, pad_token_id=None,
    )  # fmt: skip
    return load_backbone(str(saved(Qwen2MoeForCausalLM, config)), "none", DEVICE)


def saved(kind: type, config: object, seed: int = 0) -> Path:
    """A randomly initialised model with GPT-2's tokenizer, on disk."""
    directory = Path(tempfile.mkdtemp(prefix="tamer-test-model-"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(4)  # far from uniform, so that tokens differ
    model.save_pretrained(directory)
    for file in GPT2_TOKENIZER.iterdir():
        shutil.copy(file, directory)
    return directory


def prompt(backbone: Backbone, text: str = "Once upon a time, there was a little dog") -> tuple[int, ...]:
    return tuple(backbone.encode((Message("user", text),)))


def tensor(values: object, **how: object) -> torch.Tensor:
    """Where the models of the tests are."""
    return torch.tensor(values, device=DEVICE, **how)  # type: ignore[arg-type]


def stirred(backbone: Backbone, seed: int = 0, size: float = 0.3) -> torch.nn.Module:
    """A tree whose adapter changes what it computes."""
    tree = backbone.adapter_tree(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in lora_parameters(tree).items():
        if "lora_B" in name:
            parameter.data.copy_(torch.empty(parameter.shape).normal_(std=size / parameter.shape[1] ** 0.5, generator=generator))
    return tree
