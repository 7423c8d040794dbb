"""A frozen causal language model, and the module trees that share its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.adapters import LoraSettings, adapter_tree
from learners.checkpoint import Hashes
from learners.pretrained import ModelError as ModelError
from learners.pretrained import load_pretrained
from learners.protocol import Loading
from learners.rendering import Renderer
from learners.rendering import fit_prompt as fit_prompt
from learners.trees import ENTERING, distinct_bytes, replicate
from storage.records import Message


def _ignore(progress: Loading) -> None:
    return None


@dataclass(frozen=True)
class Backbone:
    """The base model. `model` is its bare tree: hand out `tree()` or `adapter_tree()`, one to each thread."""

    model: nn.Module
    tokenizer: Any
    renderer: Renderer
    name: str
    device: torch.device
    dtype: torch.dtype
    quantize: str  # 'none', 'nf4' or 'int8'
    width: int  # d, of the state entering the LM head
    vocabulary: int  # V, number of logits
    layers: int
    parameters: int
    context: int  # tokens
    hashes: Hashes

    @staticmethod
    def load(
        model: str,
        quantize: str = "auto",
        device: str = "auto",
        progress: Callable[[Loading], None] = _ignore,
        trust_remote_code: bool = False,
    ) -> Backbone:
        """Load a directory, a hub id or 'pocket'. Raises ModelError with one clear line and what to do."""
        parts = load_pretrained(model, quantize, device, progress, trust_remote_code)
        return Backbone(**vars(parts))

    @property
    def base_hash(self) -> str:
        """SHA-256 of weights, tokenizer files and chat template."""
        return self.hashes.base

    @property
    def template_sha256(self) -> str | None:
        """None without a chat template."""
        template = self.tokenizer.chat_template
        return hashlib.sha256(str(template).encode()).hexdigest() if template else None

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer; may be empty."""
        return self.renderer.eos_ids

    @property
    def pad_id(self) -> int:
        """A valid id for masked positions; may be an end token."""
        return self.renderer.pad_id

    @property
    def chat_template(self) -> bool:
        """Whether answers are turns of a chat; else they continue the prompt."""
        return self.renderer.chat_template

    def tree(self) -> nn.Module:
        """A replica without an adapter."""
        return replicate(self.model)

    def adapter_tree(self, settings: LoraSettings | None = None, seed: int = 0) -> nn.Module:
        """A replica with a LoRA that changes nothing yet."""
        return adapter_tree(self.model, settings or LoraSettings(), seed)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Prompt ids, never empty; see `fit_prompt` for long ones."""
        return self.renderer.encode(messages)

    def encode_completion(self, text: str) -> list[int]:
        """Ids of a whole answer, closed by an end token if the model has one."""
        return self.renderer.encode_completion(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of answer ids."""
        return self.renderer.decode(ids)

    def memory(self, *trees: nn.Module) -> int:
        """Bytes of the base and of what these trees add to it."""
        return distinct_bytes(self.model, *trees)


class Output(NamedTuple):
    """What a forward gives for the last n positions (all of them without `keep`)."""

    logits: Tensor  # (B, n, V) float32
    hidden: Tensor  # (B, n, d) float32, entering the LM head
    past: Any  # transformers Cache, None when none was given


def forward(
    tree: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    keep: int | None = None,
) -> Output:
    """One forward of a tree of a `Backbone`.

    input_ids: (B, T). attention_mask: (B, past + T), 1 on real tokens, which padding may precede or follow; None is all ones. past_key_values: a
    DynamicCache, which grows in place; None keeps no cache. keep: logits and states for that many last positions only.
    """
    model = causal_model(tree)
    length = input_ids.shape[1]
    positions = None
    if attention_mask is not None:
        positions = (attention_mask.cumsum(-1)[:, -length:] - 1).clamp_min(0)
    output = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=positions,
        past_key_values=past_key_values,
        use_cache=past_key_values is not None,
        logits_to_keep=keep or 0,
    )
    hidden = model.get_output_embeddings().__dict__.pop(ENTERING)
    n = keep or length
    return Output(output.logits[:, -n:].float(), hidden[:, -n:].float(), past_key_values)


def causal_model(tree: nn.Module) -> Any:
    """The language model inside a tree, past PEFT's wrapper."""
    wrapper: Any = tree._modules.get("base_model")  # PEFT's; transformers' models have no such module
    return tree if wrapper is None else wrapper.model
