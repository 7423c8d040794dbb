"""A run's checkpoint: one file that is whole or not there, read by torch's restricted unpickler: plain values and tensors, nothing that could run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from learners.model.checkpoint import ModelError


def write(file: Path, state: dict[str, Any]) -> None:
    """In place of the last one. Raises OSError."""
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)


def read(file: Path, device: torch.device) -> dict[str, Any] | None:
    """None where there is none. Raises ModelError for a file that is none."""
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location=lambda storage, place: storage if place == "cpu" else storage.to(device=device), weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{file} cannot be read: {error!s:.200}", "remove it to begin again") from error
