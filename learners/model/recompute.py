"""Layers that are computed again in the backward pass instead of being kept for it (gradient checkpointing, Chen et al. 2016).

transformers' own switches the cache off; here answers attend to the cache of their prompt, so a layer's part of it is put back to what the layer
saw while it is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputing_layers(tree: nn.Module) -> Iterator[None]:
    """Of the layers that run in this block, only the inputs, keys and values are kept. The same states and gradients."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in tree.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.__dict__["forward"] = partial(_recomputed, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _recomputed(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    from transformers import Cache

    caches = [each for each in (*arguments, *named.values()) if isinstance(each, Cache)]  # by place in some families, by name in others
    before = [(layer, dict(vars(layer))) for cache in caches for layer in cache.layers]
    seen: list[tuple[Any, dict[str, Any]]] = []

    def compute(*arguments: Any, **named: Any) -> Any:
        now = [(each, dict(vars(each))) for each, _ in seen]
        _put_back(seen)
        try:
            return forward(*arguments, **named)
        finally:
            _put_back(now)

    output = checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False, **named)
    seen += [(each, was) for each, was in before if any(value is not was.get(name) for name, value in vars(each).items())]
    return output


def _put_back(states: list[tuple[Any, dict[str, Any]]]) -> None:
    for layer, was in states:
        vars(layer).clear()
        vars(layer).update(was)
