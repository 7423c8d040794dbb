"""The learner's thread: runs the curriculum in small steps whenever it may, and turns what passes the gate into versions.

Others talk to it by replacing its inputs and by notifying; it answers with events. It waits while somebody waits for tokens, while it is paused or
held, and, when metered, while no training time is granted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from learners import protocol
from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.ppo_stage import PPO_SETTINGS
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.schedule import Curriculum, Proposal
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts
from learners.model.base import Backbone
from learners.model.batches import TokenIds
from learners.model.device import working_seconds
from learners.model.memory import MAY_MEAN_MEMORY, free_memory, out_of_memory, within_memory
from learners.model.replicas import between_layers
from learners.model.static_decoder import forget_buffers
from learners.protocol import Blob, Error, Event, Gated, Idle, Load
from learners.versions.snapshot import VersionState
from learners.versions.store import VersionStore
from storage.records import Sampling

ACKNOWLEDGEMENT_SECONDS = 120.0
"""How long a terminal that has a version may take to write it down before the learner goes on without it."""


MOST_RETRIES = 3
"""Of a stage that ran out of memory, each with half the memory for a forward, before learning pauses."""


class Abandon(Exception):
    """What is under way is no longer wanted: a rollback came."""


class Meter:
    """The learner's time, without its waits and without the gate's evaluations; and what of it is granted."""

    def __init__(self, metered: bool, device: torch.device) -> None:
        self.metered, self._device = metered, device
        self.trained = 0.0
        self.granted_seconds = 0.0
        self.granted_steps = 0
        self._since = 0.0
        self._excluded = 0.0

    @property
    def open(self) -> bool:
        return not self.metered or self.granted_seconds > 0 or self.granted_steps > 0

    def now(self) -> float:
        return working_seconds(self._device)

    def start(self) -> None:
        self._since, self._excluded = self.now(), 0.0

    def exclude(self, seconds: float) -> None:
        """This much of the step under way was not training."""
        self._excluded += seconds

    def stop(self) -> None:
        seconds = max(0.0, self.now() - self._since - self._excluded)
        self.trained += seconds
        self.granted_seconds -= seconds if self.granted_seconds > 0 else 0.0
        self.granted_steps -= 1 if self.granted_steps > 0 else 0


class Learner:
    """See the module. `tell`, `set`, `published`, `restart_from` and `wake` are called from other threads."""

    def __init__(
        self,
        parts: Parts,
        load: Load,
        store: VersionStore,
        emit: Callable[[Event], None],
        wanted: threading.Event,
        delivered: Callable[[], bool] = lambda: True,
    ) -> None:
        self._backbone, self._sampling, self._seed = parts.backbone, parts.sampling, load.seed
        self._emit, self._store, self._wanted, self._delivered = emit, store, wanted, delivered
        self._inputs = parts.inputs
        trees = parts.trees
        self._trees = trees.base, trees.policy, trees.reference, trees.reward
        for tree in self._trees:
            between_layers(tree, self._between_layers)
        self._curriculum = Curriculum(
            PolicyWeights(trees.policy, trees.reference),
            Practice(parts.backbone, trees.base, parts.sampling, load.seed, self.inputs, self._between_forwards),
            self.inputs,
            RunRecorder(emit, load.seed),
            trees.reward,
            load.stages,
            self._propose,
            replace(PPO_SETTINGS, policy_loss_weight=0.0) if load.frozen_ppo else PPO_SETTINGS,
        )
        self._meter = Meter(load.metered, parts.backbone.device)
        self._changed = threading.Condition()
        self._paused = load.paused
        self._flush = False
        self._asked = False  # metered: somebody waits for an idle event
        self._restored: VersionState | None = None
        self._questions: deque[Sequence[protocol.Answer]] = deque()  # to the reward model
        self._answering = False
        self._exhausted = False  # nothing to do until something changes
        self._out_of_memory = 0  # times since learning was begun or resumed
        self.human_reward_seconds = 0.0

    def inputs(self) -> LearnerInputs:
        """As they are now: a frozen value, replaced whole."""
        return self._inputs

    @property
    def practice(self) -> tuple[Sequence[TokenIds], Sampling]:
        """Prompts to practise on, and how answers are drawn."""
        return self._inputs.train_prompts, self._sampling

    # --- from other threads ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something that it waits for may have changed."""
        with self._changed:
            self._changed.notify_all()

    def tell(self, **changes: Any) -> None:
        """Replace inputs, by field name, all at once."""
        with self._changed:
            self._inputs = replace(self._inputs, **changes)
            self._exhausted = False
            self._changed.notify_all()

    def set(self, command: protocol.Set) -> None:
        """Pause, resume, grant training time, bring to the gate, replace prompts."""
        with self._changed:
            if command.paused is not None:
                self._paused = command.paused
            if command.train_now:
                self._curriculum.try_again()
                self._paused = False
            if command.train_now or command.paused is False:
                self._out_of_memory = 0
            self._meter.granted_seconds += command.train_seconds or 0.0
            self._meter.granted_steps += command.train_steps or 0
            self._flush = self._flush or command.flush
            self._asked = self._asked or command.flush or command.train_seconds is not None or command.train_steps is not None
            self._exhausted = False
            self._changed.notify_all()

    def appraise(self, answers: Sequence[protocol.Answer]) -> None:
        """Tell what the reward model thinks of these answers, as soon as the learner's thread gets to it, paused or not."""
        with self._changed:
            self._questions.append(answers)
            self._changed.notify_all()

    def published(self, version: VersionState, beta: float) -> None:
        """The version acts from now on."""
        with self._changed:
            self._inputs = replace(self._inputs, live=version, live_beta=beta)
            self._changed.notify_all()

    def restart_from(self, restored: VersionState, beta: float, held: bool) -> None:
        """Go on from another version; `held` waits until the operator resumes."""
        with self._changed:
            self._inputs = replace(self._inputs, live=restored, live_beta=beta)
            self._restored = restored
            self._paused = self._paused or held
            self._exhausted = False
            self._changed.notify_all()

    # --- the learner's own thread ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Never returns."""
        work = self._curriculum.work()
        while True:
            self._wait_until_allowed()
            self._answer_questions()
            if self._allowed():
                work = self._step_within_memory(work)

    def _step_within_memory(self, work: Iterator[bool]) -> Iterator[bool]:
        """A step that runs out of memory is given up, and its stage begun again with smaller forwards."""
        try:
            work = self._step(work)
            if self._backbone.memory_budget.went_well():
                self._out_of_memory = max(0, self._out_of_memory - 1)
            return work
        except Abandon:
            return self._curriculum.work()
        except MAY_MEAN_MEMORY as error:
            if not out_of_memory(error):
                raise
        self._retry_smaller()
        return self._curriculum.work()

    def _retry_smaller(self) -> None:
        """Halve the memory of a forward, a few times; then pause. Drawing and Ĥ go on."""
        forget_buffers(*self._trees)
        free_memory()
        self._out_of_memory += 1
        shrink_memory_budget(self._backbone)
        if self._out_of_memory > MOST_RETRIES:
            self._give_up()

    def _give_up(self) -> None:
        """Until the operator, or a grant of training time, asks again."""
        self._out_of_memory = 0
        self._emit(Error(what="out of memory: the adapter's learning is paused", hint="answers and Ĥ go on; T tries again with smaller steps"))
        if not self._meter.metered:
            self._paused = True
        elif self._asked:
            self._asked = self._flush = False
            self._idle("out of memory")

    def _step(self, work: Iterator[bool]) -> Iterator[bool]:
        restored, self._restored = self._restored, None
        if restored is not None:
            self._curriculum.restart(restored)
            return self._curriculum.work()
        if not self._meter.open:
            return self._finish_grant(work)
        gate_before = self._curriculum.gate_seconds
        self._meter.start()
        worked = next(work)
        self._meter.exclude(self._curriculum.gate_seconds - gate_before)
        self._meter.stop()
        if not worked:
            self._nothing_to_learn()
        return work

    def _finish_grant(self, work: Iterator[bool]) -> Iterator[bool]:
        """Metered, and the grant is used up: report, after the gate if asked to."""
        if self._flush:
            self._flush = False
            work.close()  # type: ignore[attr-defined]
            self._curriculum.flush()
            work = self._curriculum.work()
        self._asked = False
        self._idle("the grant is used up")
        return work

    def _nothing_to_learn(self) -> None:
        """Nothing to learn. What is left of a grant stays for later."""
        self._exhausted = True
        if self._asked:
            self._asked = self._flush = False
            self._idle("nothing to learn")
        elif not self._meter.metered:
            self._emit(protocol.Metrics(stage="idle"))

    def _idle(self, reason: str) -> None:
        self._emit(
            Idle(
                trained_seconds=self._meter.trained,
                reason=reason,
                reward_seconds=self._curriculum.reward.seconds,
                human_reward_seconds=self.human_reward_seconds,
            )
        )

    def _allowed(self) -> bool:
        if self._restored is not None:
            return True
        if self._wanted.is_set() or self._paused or not (self._inputs.replayed or (self._inputs.sampled and not self._meter.metered)):
            return False
        if self._meter.metered:
            return self._asked and (not self._exhausted or not self._meter.open)
        return not self._exhausted

    def _wait_until_allowed(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._questions or self._allowed())

    def _between_forwards(self) -> None:
        """Wait while somebody waits for tokens; give up when a rollback came."""
        if self._answering:
            return
        started = self._meter.now()
        self._answer_questions()
        while self._restored is None and (self._wanted.is_set() or self._paused):
            with self._changed:
                self._changed.wait_for(lambda: self._questions or self._restored is not None or not (self._wanted.is_set() or self._paused))
            self._answer_questions()
            self._meter.exclude(self._meter.now() - started)
            started = self._meter.now()
        if self._restored is not None:
            raise Abandon

    def _between_layers(self) -> None:
        """Of a forward or backward: wait while somebody waits for tokens or Ĥ. What else may come has to wait for the end of it."""
        if not self._wanted.is_set() or self._answering:
            return
        started = self._meter.now()
        with self._changed:
            self._changed.wait_for(lambda: self._questions or self._restored is not None or not self._wanted.is_set())
        self._meter.exclude(self._meter.now() - started)

    def _answer_questions(self) -> None:
        """What the operator wants to see of the reward model: a few forwards, on the thread that its tree belongs to."""
        self._answering = True
        try:
            while self._questions:
                asked = self._questions.popleft()
                self._emit(within_memory(partial(self._curriculum.reward.appraise, asked), too_large_to_appraise))
        finally:
            self._answering = False

    # --- versions ----------------------------------------------------------------------------------------------------------

    def _propose(self, proposal: Proposal) -> None:
        """Tell the terminal the verdict; a published version acts when the terminal has it on disk."""
        verdict, head, sha256 = proposal.verdict, proposal.state.head, ""
        before, blobs = self._inputs.live, list[Blob]()
        if verdict.published:
            sha256, blobs = self._store.put(proposal.state, proposal.parent, proposal.stage)
        gated = Gated(
            sha256=sha256, parent=proposal.parent, stage=proposal.stage, published=verdict.published, reason=verdict.reason, reason_code=verdict.code,
            runs=proposal.runs, seed=self._seed, kl=verdict.kl, win_rate=verdict.win_rate, h_epoch=head.epoch if head else 0,
            canary=verdict.canary,
        )  # fmt: skip
        with self._changed:
            if self._restored is not None:  # a rollback came meanwhile: it would be published over what the operator went back to
                return
            for blob in blobs:
                self._emit(blob)
            self._emit(gated)
        if verdict.published:
            self._wait_until_it_acts(before)

    def _wait_until_it_acts(self, before: VersionState) -> None:
        """As long as nobody is there to take it, or its way is long; from then on as long as writing may take."""
        since = time.monotonic()
        with self._changed:
            while not self._changed.wait_for(lambda: self._inputs.live is not before or self._restored is not None, 1.0):
                if not self._delivered():
                    since = time.monotonic()
                elif time.monotonic() - since > ACKNOWLEDGEMENT_SECONDS:
                    return


def too_large_to_appraise() -> Event:
    """Instead of an appraisal."""
    return Error(what="out of memory: the rewards of these words cannot be shown", hint="try --quantize nf4 or shorter answers")


def shrink_memory_budget(backbone: Backbone) -> None:
    """Halve the memory that one forward may take."""
    budget = getattr(backbone, "memory_budget", None)
    if budget is not None:
        budget.halve()
