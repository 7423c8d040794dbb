"""Which device the learners compute on."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from learners.model.checkpoint import ModelError, first_line

NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
"""Where a GPU shows even to a torch that knows nothing of it."""
GET_TORCH = "install torch's CUDA build (pytorch.org/get-started/locally), then `make TORCH=keep`"


def choose_device(asked: str = "auto") -> torch.device:
    """'auto' is the first of cuda, mps, cpu that works. Raises ModelError for what is unknown or absent."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(name for name, there in found.items() if there))
    kind = asked.split(":")[0]
    if kind not in found:
        raise ModelError(f"unknown device: {asked}", "use auto, cpu, cuda or mps")
    if not found[kind]:
        raise ModelError(cpu_build() or f"no {kind} device here", GET_TORCH if cpu_build() else "use --device auto")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ModelError(f"no such device: {asked}", f"use {kind}, or a number as in cuda:0") from error
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (device.index or 0) >= count:
        have = f"one {kind} device, {kind}:0" if count == 1 else f"{count} of them, {kind}:0 to {kind}:{count - 1}"
        raise ModelError(f"no device {asked}: there is {have}" if count == 1 else f"no device {asked}: there are {have}", "choose one of those")
    try:
        torch.empty(1, device=device)
    except RuntimeError as error:
        raise unusable(asked, error) from error
    return device


def unusable(device: str, error: RuntimeError) -> ModelError:
    """What it comes to that a device said this."""
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
        return ModelError(f"the memory of {device} is full", "end what uses it (nvidia-smi), or use another device")
    return ModelError(f"device {device} does not work: {first_line(error)}", "use --device auto")


def working_seconds(device: torch.device) -> float:
    """A clock of this thread's work: the processor's on a CPU, so that what else runs on the machine is not counted; the wall's where others work."""
    return time.thread_time() if device.type == "cpu" else time.monotonic()


def cpu_build() -> str | None:
    """What is wrong when a GPU is present that this torch cannot use; None if all is well."""
    present = any(path.exists() for path in NVIDIA)
    return "GPU present but torch is a CPU build" if present and torch.version.cuda is None else None
