"""One process of several that a launcher has started (`accelerate launch`, torchrun): joins their group, by Accelerate, and chooses its device."""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec

import torch
from msgspec.structs import replace

from learners.model import shards
from learners.model.checkpoint import ModelError
from learners.protocol import Load

PATIENCE = timedelta(minutes=10)
"""For another rank. One that died is known at once; this is for one that hangs."""
FSDP, DEEPSPEED, MEGATRON = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"
"""How Accelerate says who cuts a model into pieces."""


def join() -> None:
    """Join the others; alone, nothing happens. Raises ModelError."""
    if _said(MEGATRON):
        raise ModelError("Megatron-LM builds a model of its own, and here five roles share one base", "launch with FSDP2")
    if _said(DEEPSPEED) and find_spec("deepspeed") is None:
        raise ModelError("DeepSpeed is not installed", "pip install deepspeed, or launch with FSDP2, which shards a base the same way")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ModelError("several processes need Accelerate", "pip install 'tamer-tui[distributed]'") from error
    PartialState(cpu=_said("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    if _said(FSDP):
        shards.ask_for(_fsdp2())
    if _said(DEEPSPEED):
        shards.ask_for(_zero3())


def _fsdp2() -> shards.Sharding:
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
    return shards.Sharding(plugin.cpu_offload, copies=int(os.environ.get("PARALLELISM_CONFIG_DP_REPLICATE_SIZE", "1")))


def _zero3() -> shards.Sharding:
    """The same of DeepSpeed's configuration."""
    from accelerate import DeepSpeedPlugin

    plugin = DeepSpeedPlugin()
    settings = {name: value for name, value in plugin.deepspeed_config["zero_optimization"].items() if value not in ("auto", None)}
    if plugin.zero_stage != 3:
        raise ModelError("below ZeRO's third stage a base is whole everywhere, and adapters are small", "set zero_stage: 3, or leave DeepSpeed out")
    kept = settings.pop("offload_param", {}).get("device")
    if kept == "nvme":
        raise ModelError("shards on NVMe are not read here", "set offload_param_device: cpu or none")
    settings.pop("offload_optimizer", None)  # of adapters alone
    return shards.Sharding(zero3={**settings, **({"offload_param": {"device": "cpu"}} if kept == "cpu" else {})})


def _said(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")


def placed(load: Load) -> Load:
    """The same on this process's own device."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or load.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return load
    return replace(load, device="cpu" if _said("ACCELERATE_USE_CPU") else f"cuda:{local}")
