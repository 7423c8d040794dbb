"""Tiny random models of several families, bare: what differs between their bodies, caches and heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from learners.model.lora import LoraSettings, adapter_tree, lora_parameters
from learners.model.replicas import freeze, watch_head

VOCABULARY = 97
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", COMMON),
    "gpt2": ("GPT2", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}),
    "opt": ("OPT", {"vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "max_position_embeddings": 128, "word_embed_proj_dim": 16}),
    "gemma2": ("Gemma2", COMMON | {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 8, "pad_token_id": 0}),
    "granite": ("Granite", COMMON | {"logits_scaling": 3.0}),
    "cohere": ("Cohere", COMMON | {"logit_scale": 0.3, "pad_token_id": 0}),
    "qwen2_moe": ("Qwen2Moe", COMMON | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                                        "shared_expert_intermediate_size": 24}),
    "lfm2": ("Lfm2", COMMON | {"layer_types": ["conv", "full_attention"], "pad_token_id": 0}),  # keeps more than keys and values
}  # fmt: skip


def random_model(family: str) -> nn.Module:
    """Frozen and watched, as `load_backbone` makes it."""
    import transformers

    name, sizes = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}{'LMHead' if family == 'gpt2' else 'ForCausal'}{'Model' if family == 'gpt2' else 'LM'}")(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(4)  # far from uniform, so that tokens differ
    freeze(model)
    watch_head(model)
    return model


def random_tree(family: str) -> nn.Module:
    """With an adapter that changes what it computes."""
    tree = adapter_tree(random_model(family), LoraSettings(), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in lora_parameters(tree).items():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3 / parameter.shape[1] ** 0.5, generator=generator)
    return tree
