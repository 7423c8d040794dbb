"""Whose weights hold what: no sequence of judging, undoing, training, publishing, rolling back and restarting leaves a trace where none belongs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.schedule import IN_TURN, Curriculum, Proposal
from learners.curriculum.weights import PolicyWeights
from learners.model.lora import LoraSettings, lora_state
from learners.protocol import Answer, Blob, Event, Lesson, Trained
from learners.versions.snapshot import VersionState
from learners.versions.store import VersionStore
from storage.records import Critique, Run, Sampling
from tests.learners.curriculum.tracing import JUDGEMENTS, PROMPT, Stubs, Tree, absorbed, feedback_of, head_of, lesson, name_of, traces

BACKBONE: Any = SimpleNamespace(
    width=1, vocabulary=1000, base_hash="0" * 64, name="tiny", memory_budget=None, device=torch.device("cpu"),
    spoken=lambda prompt, ids: (prompt, ids),
)
OPERATIONS = ("judge", "write", "undo", "redo", "train", "train", "train", "rollback", "restart", "flush", "budget")


class Sitting:
    """Learner, version store and terminal in one thread."""

    def __init__(self, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.choice = random.Random(seed)
        self.stubs = Stubs(self.choice, lambda: self.inputs, self._in_gate)
        self.stubs.reward_model_leads = self.choice.random() < 0.5
        self.stubs.install(patch)
        self.lessons: dict[int, Lesson] = {}
        self.undone: dict[int, Lesson] = {}
        self.next_seq = self.epoch = 0
        self.versions: list[tuple[str, list[Blob]]] = []  # as the terminal has them on disk
        self.ever_live: set[int] = set()
        self.changed = False  # whether anything was trained since what is live was published or restored
        self.runs: list[Run] = []
        self.busy = True  # whether the operator judges while the gate compares
        self.broken_off = False  # whether a stage was, which then says that it learned from more than it came to
        self.nats = 6.0
        self._start_engine(None)

    # --- the operator ------------------------------------------------------------------------------------------------

    def judge(self, written: bool = False) -> None:
        if self.next_seq < JUDGEMENTS:
            self.lessons[self.next_seq] = lesson(self.next_seq, written)
            self.next_seq += 1
            self._tell()

    def undo(self) -> None:
        if self.lessons:
            seq = self.choice.choice(list(self.lessons))
            self.undone[seq] = self.lessons.pop(seq)
            self._tell()

    def redo(self) -> None:
        if self.undone:
            seq = self.choice.choice(list(self.undone))
            self.lessons[seq] = self.undone.pop(seq)
            self._tell()

    def budget(self) -> None:
        self.nats = self.choice.choice([4.0, 6.0])
        self.inputs = replace(self.inputs, nats=self.nats)

    def train(self) -> None:
        for _ in range(self.choice.choice([1, 3, 12, 40])):
            try:
                worked = next(self.work)
            except torch.OutOfMemoryError:
                self.work, self.broken_off = self.curriculum.work(), True
                (own,) = lora_state(self.weights.policy).values()
                assert torch.equal(own, self.stubs.candidate), "the candidate is back in the tree"
                continue
            self._check_weights()
            if not worked:
                return

    def flush(self) -> None:
        self.work.close()  # type: ignore[attr-defined]
        with contextlib.suppress(torch.OutOfMemoryError):
            self.curriculum.flush()
        self.work, self.broken_off = self.curriculum.work(), True

    def rollback(self) -> None:
        sha256, blobs = self.choice.choice([("", []), *self.versions])
        self._go_on_from(sha256, blobs)

    def restart(self) -> None:
        due, changed = self.due(), self.changed
        self._start_engine(self.acting)
        if not changed:
            assert self.due() <= due, "after a restart nothing is due that was not due before"

    def due(self) -> set[str]:
        """Stages that would train, once what was undone is dropped."""
        self.curriculum._drop_undone()
        return {name for name in IN_TURN if self.curriculum._stage(name).due()}

    # --- the engine --------------------------------------------------------------------------------------------------

    def _start_engine(self, acting: tuple[str, list[Blob]] | None) -> None:
        """Restores the version before the log has been replayed, as the engine does."""
        self.epoch = 0
        policy, reference, reward = Tree(), Tree(), Tree()
        none = feedback_of(())
        self.inputs = LearnerInputs(head_of(none, 0), none, nats=self.nats, train_prompts=((1,),))
        self.weights = PolicyWeights(policy, reference)
        practice = Practice(BACKBONE, Tree(), Sampling(), 0, lambda: self.inputs)
        runs = RunRecorder(self._emit, 0)
        self.curriculum = Curriculum(
            self.weights, practice, lambda: self.inputs, runs, reward, ("sft", "reward", "distill", "ppo"), self._propose
        )  # fmt: skip
        self.store = VersionStore(BACKBONE, policy, LoraSettings(), 0)
        self.acting: tuple[str, list[Blob]] | None = None
        self._go_on_from(*(acting or ("", [])))
        self._tell()

    def _go_on_from(self, sha256: str, blobs: list[Blob]) -> None:
        for blob in blobs:
            self.store.receive(blob)
        restored = self.store.restore("v", sha256 or None)
        assert restored is not None
        self.acting = (sha256, blobs) if sha256 else None
        self.inputs = replace(self.inputs, live=restored)
        self.curriculum.restart(restored)
        self.work: Iterator[bool] = self.curriculum.work()
        self.changed = False

    def _tell(self) -> None:
        self.epoch += 1
        feedback = feedback_of([self.lessons[seq] for seq in sorted(self.lessons)])
        self.inputs = replace(self.inputs, head=head_of(feedback, self.epoch), feedback=feedback)

    def _emit(self, event: Event) -> None:
        if isinstance(event, Trained):
            self.changed = True
            self.runs.append(event.run)

    def _in_gate(self) -> None:
        """Judging goes on while the gate compares."""
        self.first_since_gate = self.next_seq
        if self.busy and self.choice.random() < 0.3:
            self.choice.choice([self.judge, self.undo, self.redo])()

    def _propose(self, proposal: Proposal) -> None:
        state = proposal.state
        self._check_version(state)
        if proposal.verdict.published:
            sha256, blobs = self.store.put(state, proposal.parent, proposal.stage)
            published = self.store.publish(sha256, "v")
            assert published is not None and published.policy.absorbed is state.policy.absorbed
            self.inputs = replace(self.inputs, live=published)
            self.acting = (sha256, blobs)
            self.versions.append(self.acting)
            self.changed = False

    # --- what must be true -------------------------------------------------------------------------------------------

    def _check_version(self, state: VersionState) -> None:
        live = set(self.lessons)
        assert traces(state.policy.lora) <= set(state.seqs) <= live
        assert all(seq < self.first_since_gate for seq in (*state.seqs, *state.reward_seqs)), "what came during the gate was not learned"
        assert traces(state.policy.lora) == set(state.seqs) or self.broken_off or self.stubs.reward_model_leads
        assert absorbed(state.policy.lora) == name_of(state.policy.absorbed)
        assert traces(state.reference) <= set(state.reference_seqs) <= live
        assert traces(state.reward_state) <= set(state.reward_seqs) <= live
        assert (state.value_state is not None) == (self.weights.lineage.trained_by == "ppo")

    def _check_weights(self) -> None:
        lineage, weights = self.weights.lineage, self.weights
        own = lora_state(weights.policy)
        assert traces(own) <= lineage.seqs and absorbed(own) == name_of(lineage.absorbed)
        assert traces(lora_state(weights.reference)) <= weights.reference_seqs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), min_size=10, max_size=50), st.integers(0, 2**16))
def test_no_version_holds_a_trace_of_what_it_does_not_say_it_learned_from(operations: list[str], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sitting = Sitting(seed, patch)
        sitting.stubs.break_gate = seed % 2 == 1
        for operation in operations:
            if operation == "write":
                sitting.judge(written=True)
            else:
                getattr(sitting, operation)()


@pytest.fixture
def sitting(monkeypatch: pytest.MonkeyPatch) -> Sitting:
    sitting = Sitting(3, monkeypatch)
    sitting.busy = False
    return sitting


def until_idle(sitting: Sitting) -> None:
    while next(sitting.work):
        pass


def test_a_judgement_that_comes_during_a_distillation_ends_its_run_and_begins_another_of_as_many_steps_in_all(sitting: Sitting) -> None:
    sitting.judge()
    while len(traces(lora_state(sitting.weights.policy))) == 0:
        next(sitting.work)
    sitting.judge()
    while sitting.weights.lineage.distilled is None:
        next(sitting.work)
    assert [(run.stage, run.seqs) for run in sitting.runs] == [("distill", (0,)), ("distill", (0, 1))]
    assert sum(run.steps for run in sitting.runs) == 6


def test_a_critique_that_versions_ago_was_absorbed_leaves_the_weights_when_it_is_undone_and_the_rest_is_learned_again(sitting: Sitting) -> None:
    blank = Answer(uid="", messages=PROMPT, text="")
    sitting.lessons[0], sitting.next_seq = Lesson(seq=0, judgement=Critique("s", None, "shorter", "all"), answers=(blank,)), 1
    sitting._tell()
    until_idle(sitting)
    for _ in range(3):
        sitting.judge()
        until_idle(sitting)
    assert traces(lora_state(sitting.weights.policy)) == {0, 1, 2, 3} and len(sitting.versions) > 1
    del sitting.lessons[0]
    sitting._tell()
    until_idle(sitting)
    assert traces(lora_state(sitting.weights.policy)) == {1, 2, 3} and 0 not in sitting.weights.lineage.seqs


def test_what_is_undone_during_a_stage_ends_it_and_the_next_begins_from_the_reference(sitting: Sitting) -> None:
    sitting.judge()
    sitting.judge()
    while len(traces(lora_state(sitting.weights.policy))) == 0:
        next(sitting.work)
    sitting.undone[1] = sitting.lessons.pop(1)
    sitting._tell()
    next(sitting.work)
    next(sitting.work)
    assert traces(lora_state(sitting.weights.policy)) <= {0}
    sitting.redo()
    until_idle(sitting)
    assert traces(lora_state(sitting.weights.policy)) == {0, 1}


def test_a_reward_model_that_learned_from_what_was_undone_is_dropped_even_where_too_little_is_left_to_train_it(sitting: Sitting) -> None:
    for _ in range(3):
        sitting.judge()
    while not sitting.curriculum.reward.trained:
        next(sitting.work)
    sitting.undo()
    next(sitting.work)
    next(sitting.work)
    assert not sitting.curriculum.reward.trained and not sitting.curriculum.reward.seqs
