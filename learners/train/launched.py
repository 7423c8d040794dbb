"""One process of several that a launcher has started (`accelerate launch`, torchrun): joins their group, by Accelerate, and chooses its device."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from msgspec.structs import replace

from learners.model import shards
from learners.model.checkpoint import ModelError
from learners.protocol import Load

PATIENCE = timedelta(minutes=10)
"""For another rank. One that died is known at once; this is for one that hangs."""
SHARDS = "ACCELERATE_USE_FSDP"
OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
"""Of Accelerate's ways to cut a model into pieces, those that cannot cut one that several trees share."""


def join() -> None:
    """Join the others; alone, nothing happens. Raises ModelError."""
    for variable, name in OTHERS.items():
        if _said(variable):
            raise ModelError(
                f"{name} cuts up one model by its own forwards, and here five roles share the base", "launch with FSDP2, which shards it the same way"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ModelError("several processes need Accelerate", "pip install 'tamer-tui[distributed]'") from error
    PartialState(cpu=_said("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    if _said(SHARDS):
        shards.ask_for(_sharding())


def _sharding() -> shards.Sharding:
    """As Accelerate's configuration says. Raises ModelError for one that would do something else here."""
    from accelerate import FullyShardedDataParallelPlugin

    if os.environ.get("FSDP_VERSION") != "2":
        raise ModelError("FSDP 1 cannot shard a base that several roles share", "set fsdp_version: 2")
    try:
        plugin = FullyShardedDataParallelPlugin()
    except (ValueError, ImportError) as error:
        raise ModelError(f"Accelerate's FSDP settings: {error}", "see examples/accelerate/fsdp2-1x8.yaml") from error
    if not plugin.reshard_after_forward:
        raise ModelError(
            "a base that is not sharded again after a forward is whole everywhere", "leave out fsdp_config, or set fsdp_reshard_after_forward: true"
        )
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # with it transformers leaves weights out in all processes but one
    for cut in ("TP", "CP", "SP"):
        if int(os.environ.get(f"PARALLELISM_CONFIG_{cut}_SIZE", "1")) > 1:
            raise ModelError(f"{cut.lower()}_size: nothing but rows and weights is divided here", "leave it at 1")
    return shards.Sharding(plugin.cpu_offload, int(os.environ.get("PARALLELISM_CONFIG_DP_REPLICATE_SIZE", "1")))


def _said(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")


def placed(load: Load) -> Load:
    """The same on this process's own device."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or load.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return load
    return replace(load, device="cpu" if _said("ACCELERATE_USE_CPU") else f"cuda:{local}")
