"""LoRA adapters on trees (Hu et al. 2021), by PEFT, one per tree and under one name.

What differs from plain PEFT: A is drawn from a seed of its own, never from the global generator; LoRA weights are float32 whatever the base is; and
a tensor can take the place of the scaling, one factor per row, so that adapted and base rows share one forward.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.model.lora_forward import ADAPTER, INPUT, FirstRows, refresh, simplify
from learners.model.replicas import replicate

USED_BY_KERNELS = {"falcon_h1": {"out_proj"}, "nemotron_h": {"out_proj"}}
"""Layers whose weight is read past their forward, by model type: a LoRA there would not be seen."""


@dataclass(frozen=True)
class LoraSettings:
    """Size of an adapter. Rank 16 on all linear layers: Dettmers et al. 2023 (QLoRA), section 4."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0  # anything else makes PPO's ratio differ from 1 before the first step


def adapter_tree(model: nn.Module, settings: LoraSettings, seed: int) -> nn.Module:
    """A replica of the base with a LoRA on the layers that `adapted_layers` names. B is 0: it computes what the base computes."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=adapted_layers(model),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice between PEFT and transformers
        tree = get_peft_model(replicate(model), config, adapter_name=ADAPTER)  # type: ignore[arg-type]
    for parameter in lora_parameters(tree).values():
        parameter.data = parameter.data.float()
    _draw_a(tree, seed)
    simplify(tree)
    return tree.eval()


def adapted_layers(model: nn.Module) -> list[str]:
    """The layers that carry a LoRA, by last name where that says it all: every linear layer of the language model, but neither the LM head nor
    experts and their routers, which are no linear layers in most families and are left alone in the others too.
    """
    from transformers.pytorch_utils import Conv1D

    decoder: Any = model.get_decoder()  # type: ignore[operator]
    own = {id(module) for module in decoder.modules()} - {id(model.get_output_embeddings())}  # type: ignore[operator]
    modules = dict(model.named_modules())
    linear = {name for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D) and id(module) in own}
    wanted = {name for name in linear if "experts" not in name.split(".") and _last(name) != "router"}
    taken = _meant_as_experts(model, {_last(name) for name in wanted}) | USED_BY_KERNELS.get(model.config.model_type, set())  # type: ignore[union-attr, operator]
    wanted = {name for name in wanted if _last(name) not in taken}
    ambiguous = {_last(name) for name in modules.keys() - wanted}
    return sorted({name if _last(name) in ambiguous else _last(name) for name in wanted})


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _meant_as_experts(model: nn.Module, names: set[str]) -> set[str]:
    """Of names of layers those that PEFT takes for experts in this family: they were in older checkpoints, and a shared expert's still are."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    def taken(name: str) -> bool:
        config = LoraConfig(target_modules=[name])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # one of several that only go together
            return True
        return bool(config.target_parameters)

    return {name for name in names if taken(name)}


def _draw_a(tree: nn.Module, seed: int) -> None:
    """Kaiming-uniform with a = √5, as PEFT does: U(-1/√in, 1/√in)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in lora_parameters(tree).items():
        if "lora_A" in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
            parameter.data.copy_(drawn)


def lora_parameters(tree: nn.Module) -> dict[str, Tensor]:
    """The live LoRA weights by the names that they have in `adapter_model.safetensors`; empty for a tree without an adapter."""
    marker = f".{ADAPTER}."
    return {name.replace(marker, "."): p for name, p in tree.named_parameters() if ".lora_" in name}


def draw_in(tree: nn.Module, dtype: torch.dtype) -> None:
    """Keep the LoRA in the base's dtype, for a tree that only draws: a step of a few rows then takes half as many kernels."""
    for parameter in lora_parameters(tree).values():
        parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def lora_state(tree: nn.Module) -> dict[str, Tensor]:
    """A copy of the LoRA weights."""
    return {name: parameter.detach().clone() for name, parameter in lora_parameters(tree).items()}


@torch.no_grad()
def load_lora(tree: nn.Module, state: Mapping[str, Tensor] | None) -> None:
    """Put these weights into the tree; None makes it compute what the base computes. ValueError unless names and shapes fit."""
    parameters = lora_parameters(tree)
    if state is None:
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.zero_()
        refresh(tree)
        return
    if parameters.keys() != state.keys() or any(p.shape != state[name].shape for name, p in parameters.items()):
        raise ValueError("these LoRA weights belong to another model or rank")
    for name, parameter in parameters.items():
        parameter.copy_(state[name])
    refresh(tree)


def copy_lora(source: nn.Module, target: nn.Module) -> None:
    """Publish: the target computes from now on what the source computes."""
    load_lora(target, lora_parameters(source))


def has_adapter(tree: nn.Module) -> bool:
    """Whether the tree carries a LoRA."""
    return "base_model" in tree._modules  # PEFT's wrapper


def set_row_scaling(tree: nn.Module, scaling: Tensor | AdaptedRows | None) -> None:
    """Scale the LoRA of each row by itself; None restores the adapter's own scaling.

    scaling: (B,), factors of the adapter's own scaling: 1 for a row with the adapter, 0 for a row of the base; or how many rows come before those of
    the base.
    """
    layers = _lora_layers(tree)
    if not layers:
        return
    own = layers[0].lora_alpha[ADAPTER] / layers[0].r[ADAPTER]
    if scaling is None:
        for layer in layers:
            layer.scaling[ADAPTER] = own
        return
    if isinstance(scaling, AdaptedRows):
        first = FirstRows(*scaling, own)
        for layer in layers:
            layer.scaling[ADAPTER] = first
        return
    flat = scaling * own
    rows, any_shape = flat.view(-1, 1, 1), _RowFactors(flat)
    for layer in layers:
        layer.scaling[ADAPTER] = rows if INPUT in layer.__dict__ else any_shape


class AdaptedRows(NamedTuple):
    """The first `rows` of `of` rows have the adapter, the others are the base's."""

    rows: int
    of: int


class _RowFactors:
    """Factors by row for PEFT's own layers, which may see (B·T, d), as shared experts do."""

    def __init__(self, factors: Tensor) -> None:
        self._factors = factors

    def __rmul__(self, delta: Tensor) -> Tensor:
        rows = self._factors.repeat_interleave(delta.shape[0] // len(self._factors)).to(delta.dtype)
        return delta * rows.view(-1, *[1] * (delta.dim() - 1))


@contextmanager
def row_scaling(tree: nn.Module, scaling: Tensor | AdaptedRows | None) -> Iterator[None]:
    """`set_row_scaling` while the block runs."""
    if scaling is None or not has_adapter(tree):
        yield
        return
    set_row_scaling(tree, scaling)
    try:
        yield
    finally:
        set_row_scaling(tree, None)


def _lora_layers(tree: nn.Module) -> list[Any]:
    known = tree.__dict__.get("_lora_layers")
    if known is None:
        known = tree.__dict__["_lora_layers"] = [m for m in tree.modules() if hasattr(m, "lora_A") and ADAPTER in m.lora_A]  # type: ignore[operator]
    return known
