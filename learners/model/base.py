"""A frozen causal language model, and the module trees that share its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from learners.model.chat_format import Renderer
from learners.model.checkpoint import Hashes
from learners.model.lora import LoraSettings, adapter_tree
from learners.model.memory import MemoryBudget
from learners.model.replicas import distinct_bytes, replicate
from storage.records import Message, Sampling


@dataclass(frozen=True)
class Backbone:
    """The base model. `model` is its bare tree: hand out `tree()` or `adapter_tree()`, one to each thread."""

    model: nn.Module
    tokenizer: Any
    renderer: Renderer
    name: str
    device: torch.device
    dtype: torch.dtype
    quantize: str  # 'none', 'nf4' or 'int8'; 'fp4' where it was stored so
    width: int  # d, of the state entering the LM head
    vocabulary: int  # V, number of logits
    layers: int
    parameters: int
    context: int  # tokens
    hashes: Hashes
    notes: tuple[str, ...] = ()  # what a person should know of how it was loaded
    drawing: Mapping[str, float] = field(default_factory=dict)  # of its own generation settings, those that say how to draw

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

    @cached_property
    def memory_budget(self) -> MemoryBudget:
        """How much goes into one forward."""
        return MemoryBudget.of(self)

    def tree(self) -> nn.Module:
        """A replica without an adapter."""
        return replicate(self.model)

    def adapter_tree(self, settings: LoraSettings | None = None, seed: int = 0) -> nn.Module:
        """A replica with a LoRA that changes nothing yet."""
        return adapter_tree(self.model, settings or LoraSettings(), seed)

    def adapter_trees(self, n: int, settings: LoraSettings | None = None, seed: int = 0) -> list[nn.Module]:
        """So many at once: PEFT takes a second for each of some hundred layers, a copy does not."""
        first = self.adapter_tree(settings, seed)
        return [first, *(replicate(first, self.model) for _ in range(n - 1))]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Prompt ids, never empty; see `fit` for long ones. Raises PromptError."""
        return self.renderer.encode(messages)

    def fit(self, messages: Sequence[Message], answer_tokens: int) -> tuple[list[int], int]:
        """Prompt ids that leave room for an answer of so many tokens, and how many were dropped. Raises PromptError.

        An answer that may be longer than the context leaves the prompt one id.
        """
        return self.renderer.fit(messages, max(1, self.context - answer_tokens))

    def most_tokens(self, sampling: Sampling) -> int:
        """That an answer can have, with a thought and what closes it where thoughts have a budget of their own; the prompt keeps one token."""
        renderer = self.renderer
        thought = 0 if renderer.thoughts is None or sampling.max_thinking_tokens is None else sampling.max_thinking_tokens + len(renderer.closing)
        return min(sampling.max_new_tokens + thought, self.context - 1)

    def encode_completion(self, text: str) -> list[int]:
        """Ids of a whole answer, closed by an end token if the model has one. Raises PromptError."""
        return self.renderer.encode_completion(text)

    def spoken(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A prompt with what was thought, and what was said; see Renderer."""
        return self.renderer.spoken(prompt_ids, ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of answer ids."""
        return self.renderer.decode(ids)

    def memory(self, *trees: nn.Module) -> int:
        """Bytes of the base and of what these trees add to it."""
        return distinct_bytes(self.model, *trees)
