"""One process of several that a launcher has started (`accelerate launch`, torchrun): joins their group, by Accelerate, and chooses its device."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from msgspec.structs import replace

from learners.model.checkpoint import ModelError
from learners.protocol import Load

PATIENCE = timedelta(minutes=10)
"""For another rank. One that died is known at once; this is for one that hangs."""
SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def join() -> None:
    """Join the others; alone, nothing happens. Raises ModelError."""
    for variable, name in SHARDING.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ModelError(f"{name} would shard the base, which several roles share here", "launch with DDP; --quantize nf4 makes a base small")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ModelError("several processes need Accelerate", "pip install 'tamer-tui[distributed]'") from error
    PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1"), timeout=PATIENCE)


def placed(load: Load) -> Load:
    """The same on this process's own device."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or load.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return load
    return replace(load, device="cpu" if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1") else f"cuda:{local}")
