"""Forwards of a module tree: its body gives the states that enter the LM head, its LM head gives logits; both at once for decoding.

At a vocabulary of 150,000 the logits of one position take more memory than its state does in all layers of a small model together, so whatever
trains or scores runs the body alone, and the LM head on as many positions at a time as `LMHead.positions` says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.model.memory import COLUMNS_AT_ONCE, positions_at_once
from learners.model.replicas import ENTERING, FIRST_POSITION


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
    """One forward of a tree of a `Backbone`, LM head included.

    input_ids: (B, T). attention_mask: (B, past + T), 1 on real tokens, which padding may precede or follow; None is all ones. past_key_values: a
    DynamicCache, which grows in place; None keeps no cache. keep: logits and states for that many last positions only.
    """
    model = causal_model(tree)
    head, n = model.get_output_embeddings(), keep or input_ids.shape[1]
    found: list[tuple[Tensor, Tensor]] = []
    for output in _run(model, input_ids, attention_mask, past_key_values, keep or 0):
        found = [] if keep else found
        found.append((output.logits[:, -n:].float(), head.__dict__.pop(ENTERING)[:, -n:].float()))
    logits, hidden = (torch.cat(parts, 1) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True))
    return Output(logits, hidden, past_key_values)


def forward_at(tree: nn.Module, input_ids: Tensor, seen: Tensor, positions: Tensor, past_key_values: Any) -> Output:
    """One token of each row at given places, without a word that depends on values: what a step of fixed shape can be captured from.

    input_ids, positions: (B, 1). seen: (B, L) bool, the cache's columns that each row attends to, its own among them.
    """
    model = causal_model(tree)
    mask = torch.where(seen, 0.0, torch.finfo(model.dtype).min).to(model.dtype)[:, None, None]  # added to scores; of a bool each layer makes its own
    output = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=past_key_values,
        use_cache=True,
        logits_to_keep=1,
    )
    hidden = model.get_output_embeddings().__dict__.pop(ENTERING)
    return Output(output.logits[:, -1:].float(), hidden[:, -1:].float(), past_key_values)


def states(tree: nn.Module, input_ids: Tensor, attention_mask: Tensor | None = None, past_key_values: Any = None) -> Tensor:
    """The states (B, T, d), float32, that enter the LM head, which runs on the very first of them alone; arguments as in `forward`."""
    model = causal_model(tree)
    head = model.get_output_embeddings()
    head.__dict__[FIRST_POSITION] = True
    try:
        found = [head.__dict__[ENTERING].float() for _ in _run(model, input_ids, attention_mask, past_key_values, 0)]
        return torch.cat(found, 1) if len(found) > 1 else found[0]
    finally:
        head.__dict__.pop(FIRST_POSITION)
        head.__dict__.pop(ENTERING, None)


def _run(model: Any, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: Any, keep: int) -> Iterator[Any]:
    """The model's outputs, of one part of the columns after another where they are many and no gradients are kept: what all positions of a long
    text are at once in one layer alone may not fit beside a model."""
    columns, size = input_ids.shape[1], max(keep, COLUMNS_AT_ONCE)
    starts = [0]
    if columns > size and not torch.is_grad_enabled() and keeps_keys_and_values(model):
        starts += range(columns % size or size, columns, size)
        past_key_values = plain_cache(model) if past_key_values is None else past_key_values
    begun = attention_mask.shape[1] - columns if attention_mask is not None else 0
    for start, stop in pairwise([*starts, columns]):
        ids, mask = input_ids[:, start:stop], None if attention_mask is None else attention_mask[:, : begun + stop]
        yield model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=None if mask is None else (mask.cumsum(-1)[:, -ids.shape[1] :] - 1).clamp_min(0),
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
            logits_to_keep=keep,
        )


def plain_cache(model: Any) -> Any:
    """Transformers' own for this model, empty."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def keeps_keys_and_values(model: Any) -> bool:
    """Whether nothing but keys and values goes from token to token: then a text can be read in parts."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    own = getattr(model, "_is_stateful", False)
    return not own and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in plain_cache(model).layers)


class LMHead:
    """The LM head of a tree and whatever its model does to the logits after it (soft-capping, scaling), without the model's body.

    It is the model's own forward over a body that returns the given states, so it is right for every family.
    """

    def __init__(self, tree: nn.Module) -> None:
        model = causal_model(tree)
        self._head = model.get_output_embeddings()
        self._forward, self._body = type(model).forward, _GivenStates()
        body = _body_of(model)
        self._shell = copy.copy(model)
        self._shell._modules = {name: module for name, module in model._modules.items() if name != body}
        self._shell.__dict__[body] = self._body
        self._dtype = self._head.weight.dtype
        self.positions = positions_at_once(self._head.weight.shape[0], self._head.weight.device)
        """How many states to give it at once."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """States (n, d) -> logits (n, V) float32; gradients flow into the states."""
        self._body.states = hidden[None].to(self._dtype)
        try:
            output = self._forward(self._shell, input_ids=hidden.new_zeros((1, len(hidden)), dtype=torch.int64), use_cache=False)
            return output.logits[0].float()
        finally:
            self._body.states = None
            self._head.__dict__.pop(ENTERING, None)


def _body_of(model: Any) -> str:
    """The name of the module that holds the layers. TypeError where several do, or none."""
    if model.base_model_prefix in model._modules:
        return str(model.base_model_prefix)
    found = [name for name, module in model._modules.items() if any(isinstance(part, nn.ModuleList) for part in module.modules())]
    if len(found) != 1:
        raise TypeError(f"{type(model).__name__} does not say which of its modules is its body")
    return found[0]


class _GivenStates:
    """In the place of a model's body."""

    states: Tensor | None = None

    def __call__(self, *arguments: Any, **named: Any) -> _BodyOutput:
        return _BodyOutput(self.states)

    def __getattr__(self, name: str) -> _GivenStates:
        """OPT's forward calls `self.model.decoder`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class _BodyOutput(tuple[Any]):
    """The states, and None for whatever else a family's body may give."""

    def __new__(cls, states: Tensor | None) -> _BodyOutput:
        return super().__new__(cls, (states,))

    @property
    def last_hidden_state(self) -> Any:
        return self[0]

    def __getattr__(self, name: str) -> None:
        return None


def causal_model(tree: nn.Module) -> Any:
    """The language model inside a tree, past PEFT's wrapper."""
    wrapper: Any = tree._modules.get("base_model")  # PEFT's; transformers' models have no such module
    return tree if wrapper is None else wrapper.model


def device_of(tree: nn.Module) -> torch.device:
    """Where a tree computes."""
    return next(tree.parameters()).device


def vocabulary_of(tree: nn.Module) -> int:
    """V, the number of logits."""
    return int(causal_model(tree).get_output_embeddings().weight.shape[0])
