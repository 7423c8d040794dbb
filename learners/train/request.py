"""What `tamer train` asks of `python -m learners.train`, and what it hears. Torch-free, for both processes.

A run is a folder: `request.json` and `lessons.jsonl` are written before it begins (the judgements as `replay` commands, one a line), `checkpoint.pt`
while it goes on, `versions/<sha256>/` and `result.json` when it is done. So it needs no database, and can be carried to another machine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from learners.protocol import Gated, Load, Ready
from storage.records import Run

REQUEST, LESSONS, CHECKPOINT, RESULT, VERSIONS = "request.json", "lessons.jsonl", "checkpoint.pt", "result.json", "versions"
ITERATIONS = 18
"""Of PPO: three times between two gates."""
STOPPED = 3
"""Exit code of a run that was asked to stop, and left a checkpoint."""


class TrainRequest(Struct, frozen=True, kw_only=True):
    """A policy from judgements."""

    load: Load
    iterations: int = ITERATIONS  # of PPO, at most
    base_hash: str = ""  # of the base that was taught; on another one tokens and taps mean nothing
    lessons_sha256: str = ""  # of `lessons.jsonl`
    threads: int = 1  # of each process on a CPU: sums are rounded by it

    @property
    def sha256(self) -> str:
        """Of everything that the result depends on, beside the machine; the same before and after it was written."""
        written = msgspec.json.decode(msgspec.json.encode(self), type=TrainRequest)  # msgspec omits what *is* the default
        return hashlib.sha256(msgspec.json.encode(written)).hexdigest()


class StageCost(Struct, frozen=True):
    """What a stage is going to take, estimated."""

    stage: str
    steps: int
    tokens: int  # that go through the model for it, drawn ones included
    seconds: float


class Planned(Struct, frozen=True, kw_only=True, tag="planned", tag_field="type"):
    """What a run would do."""

    judgements: int  # that are used
    processes: int = 1  # that share the work
    carried: int = 0  # of those, without the tokens that another base had drawn
    left_out: dict[str, int] = {}  # why -> how many
    stages: tuple[StageCost, ...] = ()
    memory_bytes: int = 0  # base, roles, optimizers and the largest forward


class Rebuilt(Struct, frozen=True, kw_only=True, tag="rebuilt", tag_field="type"):
    """What came of a run."""

    ready: Ready
    sha256: str = ""  # of the version; '' where none passed the gate
    adapter_sha256: str = ""  # of its `adapter_model.safetensors`
    gated: tuple[Gated, ...] = ()  # all verdicts, the version's last published one among them
    runs: tuple[Run, ...] = ()
    seconds: float = 0.0  # of training, the time before interruptions included


def read_request(folder: Path) -> TrainRequest:
    """Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode((folder / REQUEST).read_bytes(), type=TrainRequest)
