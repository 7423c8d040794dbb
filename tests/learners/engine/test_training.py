"""The learner's thread over trainers that leave traces (no model): memory that runs out, and the log that has to be read first."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learners import protocol
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.weights import LearnerTrees
from learners.engine.training import MOST_RETRIES, Learner, out_of_memory
from learners.model.lora import LoraSettings
from learners.protocol import Error, Event, Gated, Idle, Load, Trained
from learners.versions.store import VersionStore
from storage.records import Sampling
from tests.learners.curriculum.tracing import STATS, Stubs, Tree, feedback_of, head_of, lesson


@dataclass
class Budget:
    """Of memory, as the backbone has one."""

    share: float = 1.0

    def halve(self) -> None:
        self.share /= 2


class Sitting:
    """A learner in a thread of its own. `too_large` says which distillation steps do not fit into memory, given the share that a forward may take."""

    def __init__(self, patch: pytest.MonkeyPatch, metered: bool = False) -> None:
        self.budget = Budget()
        self.too_large: Callable[[float], bool] = lambda share: False
        stubs = Stubs(random.Random(0), lambda: self.learner.inputs(), lambda: None)
        stubs.install(patch)
        patch.setattr("learners.curriculum.stages.Distill", self._distill)
        backbone: Any = SimpleNamespace(width=1, base_hash="0" * 64, name="tiny", memory_budget=self.budget)
        trees = LearnerTrees(Tree(), Tree(), Tree(), Tree())
        none = feedback_of(())
        parts: Any = SimpleNamespace(
            backbone=backbone, trees=trees, sampling=Sampling(), inputs=LearnerInputs(head_of(none, 0), none, train_prompts=((1,),))
        )
        self.events: queue.Queue[Event] = queue.Queue()
        store = VersionStore(backbone, trees.policy, LoraSettings(), 0)
        load = Load(model="", stages=("distill",), metered=metered)
        self.learner = Learner(parts, load, store, self.events.put, threading.Event())
        self.thread = threading.Thread(target=self.learner.run, daemon=True)
        self.thread.start()

    def _distill(self, *_: object, **__: object) -> Any:
        def step(batch: object) -> object:
            if self.too_large(self.budget.share):
                raise torch.OutOfMemoryError("out of memory")
            return STATS

        return SimpleNamespace(step=step)

    def judge(self, *seqs: int, **changes: object) -> None:
        feedback = feedback_of([lesson(seq, written=False) for seq in seqs])
        self.learner.tell(head=head_of(feedback, len(seqs)), feedback=feedback, **changes)

    def until(self, *kinds: type) -> Event:
        while True:
            event = self.events.get(timeout=30)
            if isinstance(event, kinds):
                return event


@pytest.fixture
def sitting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sitting]:
    sitting = Sitting(monkeypatch)
    yield sitting
    sitting.learner.set(protocol.Set(paused=True))


def test_nothing_is_trained_before_the_log_has_been_read(sitting: Sitting) -> None:
    sitting.judge(1)
    with pytest.raises(queue.Empty):
        sitting.events.get(timeout=0.2)
    sitting.judge(1, 2, replayed=True)
    trained = sitting.until(Trained)
    assert isinstance(trained, Trained) and trained.run.seqs == (1, 2)


def test_a_stage_that_runs_out_of_memory_is_begun_again_with_half_of_it(sitting: Sitting) -> None:
    sitting.too_large = lambda share: share > 0.25
    sitting.judge(1, replayed=True)
    trained = sitting.until(Trained, Error)
    assert isinstance(trained, Trained) and trained.run.stage == "distill"
    assert isinstance(sitting.until(Gated, Error), Gated)
    assert sitting.budget.share == 0.25


def test_memory_that_is_never_enough_pauses_training_with_one_error_and_the_operator_can_try_again(sitting: Sitting) -> None:
    sitting.too_large = lambda share: True
    sitting.judge(1, replayed=True)
    error = sitting.until(Error)
    assert isinstance(error, Error) and not error.fatal and "out of memory" in error.what
    assert sitting.budget.share == 0.5 ** (MOST_RETRIES + 1)
    sitting.judge(1, 2)
    with pytest.raises(queue.Empty):
        sitting.events.get(timeout=0.2)
    sitting.too_large = lambda share: False
    sitting.learner.set(protocol.Set(train_now=True))
    assert isinstance(sitting.until(Trained, Error), Trained) and sitting.thread.is_alive()


def test_a_granted_time_that_ends_in_want_of_memory_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    sitting = Sitting(monkeypatch, metered=True)
    sitting.too_large = lambda share: True
    sitting.judge(1, replayed=True)
    for _ in range(2):
        sitting.learner.set(protocol.Set(train_seconds=5.0))
        assert isinstance(sitting.until(Error), Error)
        idle = sitting.until(Idle)
        assert isinstance(idle, Idle) and idle.reason == "out of memory"


def test_another_error_of_a_stage_is_no_want_of_memory() -> None:
    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes do not fit"))
