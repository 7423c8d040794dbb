"""One forward of a module tree: logits, and the states that enter the LM head."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from learners.model.replicas import ENTERING


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
