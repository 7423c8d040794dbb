"""What memory does not hold ends no engine, and what the operator went back to stays: the generator's work, in this thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learners import protocol
from learners.engine.assembly import Parts, assemble
from learners.engine.serving import GeneratorWorker
from learners.engine.streamed_answer import AnsweredSet
from learners.engine.training import Learner
from learners.model.lora import LoraSettings, lora_state
from learners.protocol import Acting, Answer, Command, Error, Event, Learned, Lesson, Load
from learners.versions.snapshot import PolicySnapshot, VersionState
from learners.versions.store import VersionStore
from storage.records import Message, Ranking, Sampling

SAMPLING = Sampling(1.0, 12)
PROMPT = (Message("user", "Once upon a time, there was a dog"),)


def full(*_: object, **__: object) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture(scope="module")
def parts(request: pytest.FixtureRequest) -> Parts:
    model = Path(request.config.rootpath).parent / "shared" / "data" / "stories260k"
    if not model.is_dir():
        pytest.skip(f"the model is not at {model}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("learners.engine.calibration.TOKENS", 2)
        return assemble(Load(model=str(model), sampling=SAMPLING, train_prompts=(PROMPT,)), lambda event: None)


class Table:
    """A generator's worker, what it said, and what the learner was told."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.events, self.told = parts, list[Event](), dict[str, Any]()
        self.woken = 0
        learner: Any = SimpleNamespace(
            tell=lambda **changes: self.told.update(changes), wake=self._wake, practice=([tuple(parts.backbone.encode(PROMPT))], SAMPLING),
            published=lambda *_: None, restart_from=lambda *_, **__: None, human_reward_seconds=0.0,
            inputs=lambda: SimpleNamespace(live=SimpleNamespace(head=None)),
        )  # fmt: skip
        parts.generator._emit = self.events.append
        self.store = self.new_store()
        self.worker = GeneratorWorker(parts, learner, self.store, self.events.append, queue.SimpleQueue(), threading.Event())

    def new_store(self) -> VersionStore:
        return VersionStore(self.parts.backbone, self.parts.trees.reward, LoraSettings(), 0)

    def _wake(self) -> None:
        self.woken += 1

    def __call__(self, command: Command) -> list[Event]:
        self.events.clear()
        self.worker._try(command)
        return self.events

    def version(self, **changes: Any) -> tuple[str, list[protocol.Blob], VersionState]:
        lora = {name: each + 0.01 for name, each in lora_state(self.parts.trees.policy).items()} | changes
        state = VersionState(PolicySnapshot("", lora), self.parts.live_reward.head)
        return *self.new_store().put(state, "base", "distill"), state


@pytest.fixture
def table(parts: Parts) -> Iterator[Table]:
    table = Table(parts)
    yield table
    table.worker._try(protocol.Rollback(version="base", sha256=None))
    for lesson in parts.live_reward.lessons.lessons:
        parts.live_reward.retract(lesson.seq)


def ranking(seq: int) -> Lesson:
    answers = tuple(Answer(uid=f"{seq}/{i}", messages=PROMPT, text=f"named {name}.") for i, name in enumerate(("Max", "Lily", "Tom")))
    return Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(answers)}), answers=answers)


def errors(events: list[Event]) -> list[str]:
    return [event.what for event in events if isinstance(event, Error)]


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_judgement_whose_answers_memory_does_not_hold_is_refused_alone(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    states = table.parts.live_reward._states
    with monkeypatch.context() as patch:
        patch.setattr(states, "_states_before", full)
        (learned,) = [event for event in table(protocol.AddJudgement(lesson=ranking(1))) if isinstance(event, Learned)]
    assert "out of memory" in learned.dropped and learned.rankings == 0 and table.woken
    (learned,) = [event for event in table(protocol.AddJudgement(lesson=ranking(2))) if isinstance(event, Learned)]
    assert not learned.dropped and learned.rankings == 1 and [each.seq for each in table.told["feedback"].lessons] == [2]
    (learned,) = [event for event in table(protocol.AddJudgement(lesson=ranking(1))) if isinstance(event, Learned)]
    assert not learned.dropped and learned.rankings == 2, "where there is room again it is learned"


def test_a_log_of_which_memory_does_not_hold_some_is_read_to_its_end(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    states = table.parts.live_reward._states
    kept, calls = states._states_before, []

    def sometimes(*args: Any) -> Any:
        calls.append(args)
        return full() if len(calls) <= 2 else kept(*args)

    monkeypatch.setattr(states, "_states_before", sometimes)
    monkeypatch.setattr("learners.engine.online_learning.PATIENCE", 1e9)  # seconds
    states.clear()
    found = [event for event in table(protocol.Replay(lessons=(ranking(1), ranking(2)), last=True)) if isinstance(event, Learned)]
    assert found[-1].rankings == 1 and "out of memory" in found[-1].dropped and table.told["replayed"] and not table.worker._learning._replay.due


@pytest.mark.parametrize("what", ["look", "beta", "prepare", "replay"])
def test_what_is_done_while_nobody_waits_is_given_up(table: Table, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = table.worker
    if what == "look":
        monkeypatch.setattr(worker._learning._reward, "prepare", full)
        worker._set_drawn = AnsweredSet((5, 6), ((7,), (8,)))
    elif what == "beta":
        table(protocol.AddJudgement(lesson=ranking(3)))
        monkeypatch.setattr("learners.engine.generator.draw_answers", full)
        worker._learning.beta_due = True
    elif what == "prepare":
        monkeypatch.setattr(worker._generator, "prepare", full)
    else:
        monkeypatch.setattr(worker._learning._replay, "advance", full)
        worker._learning._replay.end()
        worker._learning._reward._waiting.add(99)
    table.events.clear()
    worker._look_ahead()
    worker._learning._reward._waiting.discard(99)
    (told,) = errors(table.events)
    assert told.startswith("out of memory") and worker._set_drawn is None and not worker._learning.beta_due


def test_a_version_acts_without_what_memory_does_not_hold_of_the_answers_before(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table(protocol.AddJudgement(lesson=ranking(4)))
    sha256, blobs, _ = table.version()
    for blob in blobs:
        table(blob)
    monkeypatch.setattr("learners.engine.generator.look_again", full)
    acting = [event for event in table(protocol.PublishAck(sha256=sha256, version="v1")) if isinstance(event, Acting)]
    assert acting[-1].version == "v1" and acting[-1].beta == 0.0, "nothing is known of where it leads"
    table.parts.generator.budget.calibrate([])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out"), MemoryError(), RuntimeError("CUDA error: out of memory"), RuntimeError("shapes"), ValueError("no")]
)
def test_any_command_may_want_memory_and_other_errors_are_not_taken_for_that(table: Table, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: Command) -> None:
        raise error

    other = str(error) in ("shapes", "no")
    with monkeypatch.context() as patch, pytest.raises(type(error)) if other else nullcontext():
        patch.setattr(table.worker, "_serve", fails)
        table(protocol.Set(nats=1.0))
    assert [what.split(":")[0] for what in errors(table.events)] == ([] if other else ["out of memory"])


# --- versions ----------------------------------------------------------------------------------------------------------


def test_a_version_with_other_layers_is_told_and_changes_nothing_at_the_start_too(table: Table) -> None:
    sha256, blobs, _ = table.version(**{"base_model.model.other.lora_A.weight": torch.ones(2, 2)})
    before = lora_state(table.parts.generator.actor)
    for blob in blobs:
        table(blob)
    (told,) = errors(table(protocol.Rollback(version="v1", sha256=sha256)))
    assert "adapter" in told and table.parts.generator.policy.version == "base" and not table.worker._learning.held
    for blob in blobs:
        table.store.receive(blob)
    assert table.worker.resume_version("v1", sha256) is not None
    assert all(torch.equal(each, before[name]) for name, each in lora_state(table.parts.generator.actor).items())


def test_what_was_proposed_before_a_rollback_is_not_published_over_it(table: Table) -> None:
    _, _, state = table.version()
    sha256, _ = table.store.put(state, "base", "distill")
    table(protocol.Rollback(version="base", sha256=None))
    for resume in (False, True):
        if resume:
            table.worker._learner.set = lambda command: None  # type: ignore[method-assign]
            table(protocol.Set(paused=False))
        events = table(protocol.PublishAck(sha256=sha256, version="v9"))
        assert errors(events) and table.parts.generator.policy.version == "base"
        assert [event.version for event in events if isinstance(event, Acting)] == ["base"]


@pytest.mark.parametrize("rollback", ["before", "while it is packed", "never"])
def test_a_proposal_that_a_rollback_overtakes_is_not_told(rollback: str) -> None:
    events: list[Event] = []
    learner: Any = SimpleNamespace(_inputs=SimpleNamespace(live=None), _emit=events.append, _seed=0, _changed=threading.Condition(), _restored=None)
    learner._wait_until_it_acts = lambda before: None

    def put(*_: object) -> tuple[str, list[protocol.Blob]]:
        learner._restored = "v1" if rollback != "never" else None
        return "a" * 64, []

    learner._store = SimpleNamespace(put=put)
    learner._restored = "v1" if rollback == "before" else None
    verdict = SimpleNamespace(published=True, reason="", code="published", kl=1.0, win_rate=0.6, canary=None)
    Learner._propose(learner, SimpleNamespace(verdict=verdict, state=SimpleNamespace(head=None), parent="base", stage="ppo", runs=()))  # type: ignore[arg-type]
    assert len(events) == (rollback == "never")
