"""A training run on disk: one file that is replaced as a whole, and the tokenizer beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

FILE = "run.pt"
TOKENIZER = "tokenizer"


class TrainingError(Exception):
    """A run that cannot start or go on: why, and what to do, in one line."""


@dataclass(frozen=True)
class Saved:
    """A run between two steps. Nothing random is left to save: every step's text follows from its number."""

    identity: dict[str, Any]  # seed, corpus, shape …: what has to be the same for the run to go on
    model: dict[str, Any]
    optimizer: dict[str, Any]
    steps: int
    tokens: int
    seconds: float  # of training, without interruptions


def save_run(work: Path, state: Saved, tokenizer: Any) -> None:
    """Written beside and moved into place: whenever the power fails, one whole checkpoint is there."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / FILE).exists():
        tokenizer.save_pretrained(work / TOKENIZER)
    beside = work / f"{FILE}.new"
    with beside.open("wb") as file:
        torch.save(vars(state), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(work / FILE)


def load_run(work: Path, identity: dict[str, Any]) -> tuple[Saved, Any] | None:
    """The run of a work directory and its tokenizer; None where there is none. Raises TrainingError for another run's, and for damage."""
    if not (work / FILE).exists():
        return None
    from transformers import AutoTokenizer

    try:
        state = Saved(**torch.load(work / FILE, map_location="cpu", weights_only=True))
        tokenizer = AutoTokenizer.from_pretrained(work / TOKENIZER)
    except Exception as error:  # torch, pickle and zip have a dozen ways to say that a file is damaged
        raise TrainingError(f"{work / FILE} cannot be read: delete {work} to start anew") from error
    changed = [name for name, value in identity.items() if state.identity.get(name) != value]
    if changed:
        raise TrainingError(f"the run in {work} has another {', '.join(changed)}: delete it, or pass another --work")
    return state, tokenizer
