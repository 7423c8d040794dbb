"""Pocket's architecture: a Llama small enough for a laptop's CPU, made from nothing or written out as bfloat16 safetensors."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from learners.pocket.tokens import CONTEXT

ANSWER_TOKENS = 80
"""At most, unless a caller asks for more."""

SHARPNESS = 1.08
"""A model this small leaves a little probability on every piece, and answers are drawn piece by piece: one in eighteen had a garbled word. The
logits are scaled by this when the weights are written, so that temperature 1 draws as 0.93 drew before. Perplexity does not change."""


@dataclass(frozen=True)
class Shape:
    """Wide and shallow: at equal size, fewer and larger products are faster on a CPU, in training and at every token of an answer."""

    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 4
    num_attention_heads: int = 4


SHAPE = Shape()


def make_model(shape: Shape, tokenizer: Any, seed: int) -> Any:
    """A LlamaForCausalLM with weights drawn from the seed, whatever the caller's own generator says; float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **asdict(shape),
    )  # fmt: skip
    config._attn_implementation = "eager"  # a third faster than sdpa on chats as short as these
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        for layer in model.model.layers:  # what is added to the residual stream starts small, as in GPT-2
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                matrix.data /= math.sqrt(2 * shape.num_hidden_layers)
    return model


def write_weights(model: Any, tokenizer: Any, out: Path) -> None:
    """The whole directory of a model in Hugging Face format. It is put in place of `out` when it is complete."""
    from transformers import GenerationConfig

    made = out.with_name(out.name + ".new")
    shutil.rmtree(made, ignore_errors=True)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, max_new_tokens=ANSWER_TOKENS, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    state = {name: tensor.detach() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    state["model.norm.weight"] = state["model.norm.weight"] * SHARPNESS  # the last thing before the head, which shares the embedding's weights
    state = {name: tensor.to("cpu", torch.bfloat16) for name, tensor in state.items()}
    model.config.dtype = torch.bfloat16
    model.save_pretrained(made, state_dict=state)
    tokenizer.save_pretrained(made)
    replace_directory(made, out)


def replace_directory(made: Path, out: Path) -> None:
    """Move `made` to `out`; what was there goes, but not before its successor is in place."""
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    made.rename(out)
    shutil.rmtree(old, ignore_errors=True)
