"""The record of training: what was trained, on which judgements, for how many steps, and how it is going."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from learners.protocol import Event, Metrics, Stage, Trained
from storage.records import Run, new_uid

ALL_THOUGHT = "no answer came to an end of its thought: --max-thinking-tokens or a higher --max-new-tokens"
TOO_SHORT = "all answers end at once: there is nothing in them to learn from"


class RunRecorder:
    """Emits `Trained` for each run and `Metrics` for its steps."""

    def __init__(self, emit: Callable[[Event], None], seed: int) -> None:
        self.emit, self._seed = emit, seed

    @contextmanager
    def run(self, stage: Stage, seqs: Sequence[int], settings: object, ended: Callable[[str], None], begun: int = 0) -> Iterator[list[int]]:
        """Record a stretch of training, also an abandoned one: put the step count into the list that this yields. `begun`: steps that were made
        before, where training goes on from a checkpoint.

        `ended` is told the run's uid, unless nothing was trained.
        """
        steps, started = [begun], time.monotonic()
        uid = new_uid()
        try:
            yield steps
        finally:
            if steps[0]:
                record = msgspec.json.encode(settings).decode()
                seconds = time.monotonic() - started
                self.emit(Trained(run=Run(uid, stage, tuple(seqs), self._seed, steps[0], seconds, record)))
                ended(uid)

    def progress(self, stage: Stage, step: int, of: int, started: float, **figures: float | str | None) -> None:
        """Tell the screen how a stage is doing. `started` is monotonic, of step 0."""
        left = (time.monotonic() - started) / step * (of - step) if step else None
        self.emit(Metrics(stage=stage, step=step, of=of, seconds_left=left, **figures))  # type: ignore[arg-type]
