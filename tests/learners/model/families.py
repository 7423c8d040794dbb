"""Tiny random models of the families that people have, and what is special of each: bare ones in memory, and whole ones on disk."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learners.model.architectures import model_class
from learners.model.lora import LoraSettings, adapter_tree, lora_parameters
from learners.model.replicas import freeze, watch_head
from tests.learners.models import DEVICE

TOKENS = 260
"""Of the tokenizer: all bytes and four special ones."""
BOS, EOS, PAD, END = range(256, TOKENS)
VOCABULARY = 264
"""Rows of the LM head: more than the tokenizer has tokens, as in most models."""
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4}
LINEAR = {
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"], "head_dim": 8,
}  # fmt: skip
MAMBA: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2, "mamba_d_state": 8, "mamba_chunk_size": 16,
         "layer_types": ["mamba", "attention"]}  # fmt: skip
OLD = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": EOS, "eos_token_id": EOS}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
QWEN_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0],
               "deepstack_visual_indexes": [0]}  # fmt: skip
ROTATED = {"rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
ALTERNATING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}  # a window shorter than an answer


@dataclass(frozen=True)
class Family:
    """A model type by transformers' name, how it is configured, and with what tokenizer it comes."""

    type: str
    sizes: dict[str, Any]
    template: bool = True  # a chat template, whose turns end with a token of their own
    bos: bool = True  # a text opens with a token
    pad: bool = True
    end: bool = True  # a token that ends an answer
    vision: dict[str, Any] | None = None  # of a multimodal model, whose text part has the sizes above


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", COMMON | {"eos_token_id": [EOS, END]}),  # ends by any of a list
    "mistral": Family("mistral", COMMON | {"sliding_window": 8, "head_dim": 8, "pad_token_id": None}, pad=False),
    "qwen2": Family("qwen2", COMMON | {"tie_word_embeddings": True, "bos_token_id": None}, bos=False),
    "qwen3": Family("qwen3", COMMON | {"head_dim": 8}, bos=False),
    "qwen2_moe": Family("qwen2_moe", COMMON | EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3_moe": Family("qwen3_moe", COMMON | EXPERTS | {"head_dim": 8}),
    "qwen3_next": Family("qwen3_next", COMMON | EXPERTS | LINEAR | {"shared_expert_intermediate_size": 16}),
    "qwen3_5": Family("qwen3_5_text", COMMON | LINEAR),  # keeps more than keys and values
    "qwen3_5_moe": Family("qwen3_5_moe_text", COMMON | EXPERTS | LINEAR | {"shared_expert_intermediate_size": 16}),
    "gemma2": Family("gemma2", COMMON | {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 8}),
    "gemma3": Family("gemma3_text", COMMON | ALTERNATING | {"head_dim": 8}),
    "gemma3_multimodal": Family("gemma3", COMMON | ALTERNATING | {"head_dim": 8}, vision=VISION),
    "gemma4": Family("gemma4_text", COMMON | ALTERNATING | {"head_dim": 8, "global_head_dim": 8, "vocab_size_per_layer_input": VOCABULARY,
                                                            "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}),  # a vector a layer
    "llama4": Family("llama4_text", COMMON | LOCAL_EXPERTS | {"head_dim": 8, "intermediate_size_mlp": 48}),
    "qwen2_5_vl": Family("qwen2_5_vl", COMMON | ROTATED, vision=QWEN_VISION),  # positions in three dimensions
    "qwen3_vl": Family("qwen3_vl", COMMON | ROTATED | {"head_dim": 8}, vision=QWEN_VISION | {"num_position_embeddings": 16}),
    "mistral3": Family("mistral3", COMMON | {"model_type": "mistral", "head_dim": 8}, vision=VISION | {"model_type": "pixtral"}),
    "phi": Family("phi", COMMON, template=False),
    "phi3": Family("phi3", COMMON | {"sliding_window": 8}),  # one projection for queries, keys and values
    "gpt2": Family("gpt2", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "bos_token_id": EOS,
                            "eos_token_id": EOS}, template=False, bos=False, pad=False),  # learned positions, Conv1D layers
    "gpt_neox": Family("gpt_neox", COMMON, template=False, pad=False),
    "smollm3": Family("smollm3", COMMON | {"no_rope_layers": [1, 0]}),  # a layer without positions
    "olmo2": Family("olmo2", COMMON),
    "granite": Family("granite", COMMON | {"logits_scaling": 3.0}),
    "granite_hybrid": Family("granitemoehybrid", COMMON | LOCAL_EXPERTS | MAMBA | {"shared_intermediate_size": 24}),
    "cohere": Family("cohere", COMMON | {"logit_scale": 0.3}),
    "cohere2": Family("cohere2", COMMON | ALTERNATING | {"logit_scale": 0.3}),
    "lfm2": Family("lfm2", COMMON | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "block_auto_adjust_ff_dim": False}),
    "gpt_oss": Family("gpt_oss", COMMON | LOCAL_EXPERTS | {"head_dim": 8, "sliding_window": 8}),  # sinks; experts with biases
    "mixtral": Family("mixtral", COMMON | LOCAL_EXPERTS),
    "deepseek_v3": Family("deepseek_v3", COMMON | LATENT | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
                                                            "n_shared_experts": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1}),
    "starcoder2": Family("starcoder2", COMMON | {"sliding_window": 8}, template=False),
    "falcon": Family("falcon", OLD, template=False, pad=False),
    "bloom": Family("bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": EOS, "eos_token_id": EOS,
                              "pad_token_id": PAD}, template=False),  # positions as a bias of attention
    "stablelm": Family("stablelm", COMMON),
    "glm4": Family("glm4", COMMON | {"head_dim": 8, "eos_token_id": [EOS, END]}),
    "exaone4": Family("exaone4", COMMON | ALTERNATING),
    "opt": Family("opt", OLD | {"ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 16, "pad_token_id": PAD},
                  template=False),  # feed-forward over (B·T, d)
    "deep": Family("llama", COMMON | {"num_hidden_layers": 24}),
    "deeper": Family("llama", COMMON | {"num_hidden_layers": 96, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}),
    "endless": Family("llama", COMMON | {"eos_token_id": None}, template=False, end=False),
}  # fmt: skip
MECHANICS = ("llama", "gpt2", "opt", "gemma2", "granite", "cohere", "qwen2_moe", "lfm2")
"""Of each kind of body, cache and head one."""


def random_model(family: str) -> nn.Module:
    """Frozen and watched, as `load_backbone` makes it."""
    model = _random(FAMILIES[family]).to(DEVICE)
    freeze(model)
    watch_head(model)
    return model


def random_tree(family: str) -> nn.Module:
    return with_adapter(random_model(family))


def with_adapter(model: nn.Module) -> nn.Module:
    """A tree that computes something else than its base."""
    tree = adapter_tree(model, LoraSettings(), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in lora_parameters(tree).items():
        if "lora_B" in name:
            parameter.data.copy_(torch.empty(parameter.shape).normal_(std=0.3 / parameter.shape[1] ** 0.5, generator=generator))
    return tree


@functools.cache
def saved_family(family: str) -> Path:
    """On disk with its tokenizer, once in a test run."""
    directory = Path(tempfile.mkdtemp(prefix=f"tamer-test-{family}-"))
    _random(FAMILIES[family]).save_pretrained(directory)  # type: ignore[operator]
    tokenizer_of(FAMILIES[family]).save_pretrained(directory)
    return directory


def _random(family: Family) -> nn.Module:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    sizes = family.sizes if family.vision is None else {"text_config": family.sizes, "vision_config": family.vision}
    config = CONFIG_MAPPING[family.type](**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class({"model_type": family.type}).from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)  # far from uniform, so that tokens differ
    return model


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer_of(family: Family) -> Any:
    """A token for each byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<|bos|>", "<|eos|>", "<|pad|>", "<|end|>")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>" if family.bos else None,
        eos_token="<|eos|>" if family.end else None,
        pad_token="<|pad|>" if family.pad else None,
    )
    if family.template:
        fast.chat_template = TEMPLATE if family.bos else TEMPLATE.replace("{{ bos_token }}", "")
    return fast
