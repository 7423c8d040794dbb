"""The learner's thread over trainers that leave traces (no model): memory that runs out, and the log that has to be read first."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learners import protocol
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.weights import LearnerTrees
from learners.engine.training import MOST_RETRIES, Learner, Meter
from learners.model.lora import LoraSettings
from learners.model.memory import out_of_memory
from learners.protocol import Appraised, Blob, Error, Event, Gated, Idle, Load, Metrics, Trained
from learners.versions.snapshot import BASE
from learners.versions.store import VersionStore
from storage.records import Sampling
from tests.learners.curriculum.tracing import STATS, Stubs, Tree, feedback_of, head_of, lesson


@dataclass
class Budget:
    """Of memory, as the backbone has one."""

    share: float = 1.0

    recovers: bool = False

    def halve(self) -> None:
        self.share /= 2

    def went_well(self) -> bool:
        self.share = min(1.0, 2 * self.share) if self.recovers else self.share
        return self.recovers


class Sitting:
    """A learner in a thread of its own. `too_large` says which distillation steps do not fit into memory, given the share that a forward may take."""

    def __init__(self, patch: pytest.MonkeyPatch, metered: bool = False) -> None:
        self.budget = Budget()
        self.too_large: Callable[[float], bool] = lambda share: False
        stubs = Stubs(random.Random(0), lambda: self.learner.inputs(), lambda: None)
        stubs.install(patch)
        patch.setattr("learners.curriculum.distill_stage.Distill", self._distill)
        backbone: Any = SimpleNamespace(
            width=1, vocabulary=1000, base_hash="0" * 64, name="tiny", memory_budget=self.budget, device=torch.device("cpu"),
            spoken=lambda prompt, ids: (prompt, ids),
        )
        trees = LearnerTrees(Tree(), Tree(), Tree(), Tree())
        none = feedback_of(())
        parts: Any = SimpleNamespace(
            backbone=backbone, trees=trees, sampling=Sampling(), inputs=LearnerInputs(head_of(none, 0), none, train_prompts=((1,),))
        )
        self.events: queue.Queue[Event] = queue.Queue()
        self.seen: list[Event] = []
        store = VersionStore(backbone, trees.policy, LoraSettings(), 0)
        load = Load(model="", stages=("sft", "distill", "reward"), metered=metered)
        self.store = store
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
        """What is live from now on; 0 is a demonstration, the rest are rankings."""
        feedback = feedback_of([lesson(seq, written=seq == 0) for seq in seqs])
        self.learner.tell(head=head_of(feedback, len(seqs)), feedback=feedback, **changes)

    def publish(self, gated: Gated) -> None:
        published = self.store.publish(gated.sha256, "v")
        assert published is not None
        self.learner.published(published, 0.0)

    def stop(self) -> None:
        """Wait until the thread rests: the stubs go with the test."""
        self.learner.restart_from(BASE, 0.0, held=True)
        self.learner.appraise(())
        self.until(Appraised)

    def until(self, *kinds: type) -> Event:
        while True:
            event = self.events.get(timeout=30)
            self.seen.append(event)
            if isinstance(event, kinds):
                return event


@pytest.fixture
def sitting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sitting]:
    sitting = Sitting(monkeypatch)
    yield sitting
    sitting.stop()


def test_nothing_is_trained_before_the_log_has_been_read(sitting: Sitting) -> None:
    sitting.judge(1)
    with pytest.raises(queue.Empty):
        sitting.events.get(timeout=0.2)
    sitting.judge(1, 2, replayed=True)
    trained = sitting.until(Trained)
    assert isinstance(trained, Trained) and trained.run.seqs == (1, 2)


def test_after_a_restart_nothing_is_trained_that_the_version_holds(sitting: Sitting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is restored before the log has been replayed."""
    sitting.judge(0, 1, replayed=True)
    gated = sitting.until(Gated)
    while not (isinstance(gated, Gated) and gated.published and gated.stage == "distill"):
        if isinstance(gated, Gated) and gated.published:
            sitting.publish(gated)
        else:
            sitting.judge(0, 1, *range(2, 3 + len(sitting.seen)))
        gated = sitting.until(Gated)
    seqs = sitting.learner.inputs().feedback.seqs
    sitting.publish(gated)
    again = Sitting(monkeypatch)
    for event in sitting.seen:
        if isinstance(event, Blob) and event.sha256 == gated.sha256:
            again.store.receive(event)
    restored = again.store.restore("v", gated.sha256)
    assert restored is not None and restored.reference is not None
    again.learner.restart_from(restored, 0.0, held=False)
    again.judge(*seqs, replayed=True)
    again.until(Metrics)
    while not (isinstance(again.seen[-1], Metrics) and again.seen[-1].stage == "idle"):
        again.until(Metrics)
    assert {event.run.stage for event in again.seen if isinstance(event, Trained)} <= {"reward"}
    again.stop()


def test_a_stage_that_runs_out_of_memory_is_begun_again_with_half_of_it(sitting: Sitting) -> None:
    sitting.too_large = lambda share: share > 0.25
    sitting.judge(1, replayed=True)
    trained = sitting.until(Trained, Error)
    assert isinstance(trained, Trained) and trained.run.stage == "distill"
    assert isinstance(sitting.until(Gated, Error), Gated)
    assert sitting.budget.share == 0.25


def test_retries_that_went_well_long_ago_do_not_count(sitting: Sitting) -> None:
    sitting.budget.recovers = True
    times: list[float] = []

    def too_large(share: float) -> bool:
        times.append(share)
        return len(times) % 2 == 1 and len(times) < 4 * MOST_RETRIES  # every other step, more often than it is tried again at once

    sitting.too_large = too_large
    sitting.judge(1, replayed=True)
    assert isinstance(sitting.until(Gated, Error), Gated) and len(times) > 2 * MOST_RETRIES


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
    sitting.stop()


def test_another_error_of_a_stage_is_no_want_of_memory() -> None:
    for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes do not fit"))


def test_granted_seconds_are_of_the_processor_so_that_a_busy_machine_trains_as_long_as_a_quiet_one() -> None:
    meter = Meter(True, torch.device("cpu"))
    meter.granted_seconds = 1.0
    meter.start()
    time.sleep(0.05)
    meter.stop()
    assert meter.trained < 0.05 and meter.granted_seconds > 0.95
    meter.start()
    while time.thread_time() - meter._since < 0.02:
        pass
    meter.stop()
    assert meter.trained >= 0.02
