"""What the stages of training share: trees, inputs from outside, the candidate in the making, and the record of runs.

Belongs to the learner's thread; the inputs alone are replaced from outside, whole, so that a reader sees an old one or a new one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from torch import Tensor, nn

from learners.feedback.dataset import Feedback
from learners.human_reward.head import RewardHead
from learners.human_reward.prequential import PrequentialScores
from learners.model.base import Backbone
from learners.model.lora import copy_lora, load_lora, lora_state
from learners.protocol import Event, Metrics, Stage, Trained
from learners.rlhf.rollouts import Trace, draw_answers
from learners.versions.snapshot import PolicySnapshot
from storage.records import BASE_VERSION, Run, Sampling, new_uid

TokenIds = tuple[int, ...]


@dataclass
class Inputs:
    """What the learner is told from outside."""

    head: RewardHead
    lessons: Feedback = field(default_factory=lambda: Feedback((), {}))
    head_record: PrequentialScores = field(default_factory=PrequentialScores)
    live: PolicySnapshot = field(default_factory=PolicySnapshot)
    live_beta: float = 0.0
    nats: float = 6.0
    bias: bool = True
    train_prompts: Sequence[TokenIds] = ()
    gate_prompts: Sequence[TokenIds] = ()


@dataclass
class Candidate:
    """What the policy tree holds beyond the live version."""

    stage: Stage | None = None  # the last that changed it; None for no change
    parent: str = BASE_VERSION  # the version whose weights training began from
    runs: list[str] = field(default_factory=list)  # since then
    absorbed: RewardHead | None = None
    absorbed_beta: float = 0.0


class Workshop:
    """See the module. `pause` is called between forwards: it waits while somebody waits for tokens, or raises to abandon the work."""

    def __init__(
        self,
        backbone: Backbone,
        base: nn.Module,
        policy: nn.Module,
        reference: nn.Module,
        inputs: Inputs,
        sampling: Sampling,
        seed: int,
        emit: Callable[[Event], None],
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self.backbone, self.base, self.policy, self.reference = backbone, base, policy, reference
        self.inputs, self.sampling, self.seed = inputs, sampling, seed
        self.emit, self._pause = emit, pause
        self.imitates = False  # whether the reference carries an SFT adapter
        self.reference_runs: list[str] = []  # that made it
        self.candidate = Candidate()
        self.random = random.Random(seed)
        self._draws = seed * 1_000_003
        self._probe: list[Trace] = []

    def pause(self) -> None:
        """Called between forwards."""
        self._pause()

    def pause_with(self, pause: Callable[[], None]) -> None:
        """Put another pause in place of the present one; stages hold on to `pause` itself."""
        self._pause = pause

    # --- weights ---------------------------------------------------------------------------------------------------

    def restart_from_live(self) -> None:
        """Put the live version into the policy tree: the candidate is given up."""
        live = self.inputs.live
        load_lora(self.policy, live.lora)
        self.candidate = Candidate(None, live.version, [], live.absorbed, live.absorbed_beta)

    def restart_from_base(self) -> None:
        """Training starts over: what was learned and taken back leaves no trace."""
        load_lora(self.policy, None)
        self.candidate = Candidate()
        self.reference_runs = []

    def restart_from_reference(self) -> None:
        """Put the base, or the SFT adapter, into the policy tree."""
        copy_lora(self.reference, self.policy)
        self.candidate = Candidate(runs=list(self.reference_runs))

    def freeze_reference(self, imitates: bool) -> None:
        """What is in the policy tree is the reference from here on."""
        copy_lora(self.policy, self.reference)
        self.imitates = imitates
        self.reference_runs = list(self.candidate.runs)

    def candidate_policy(self, version: str = "") -> PolicySnapshot:
        """A copy of what is in the policy tree."""
        return PolicySnapshot(version, lora_state(self.policy), self.candidate.absorbed, self.candidate.absorbed_beta)

    def restore_reference(self, lora: Mapping[str, Tensor] | None) -> None:
        """The reference of an earlier sitting; None is the base."""
        load_lora(self.reference, lora)
        self.imitates = lora is not None
        self.reference_runs = []

    # --- drawing ---------------------------------------------------------------------------------------------------

    def new_seed(self) -> int:
        self._draws += 1000
        return self._draws

    def some_prompts(self, n: int) -> list[TokenIds]:
        """Prompts to practise on: of the set and of what was judged, in random order; repeated when there are fewer."""
        known = list(dict.fromkeys([*self.inputs.train_prompts, *self.inputs.lessons.prompts()]))
        chosen: list[TokenIds] = []
        while known and len(chosen) < n:
            chosen += self.random.sample(known, min(n - len(chosen), len(known)))
        return chosen

    def probe(self, answers: int) -> list[Trace]:
        """Answers of the base, drawn once: where KL is measured and rewards are scaled."""
        if not self._probe:
            prompts = self.some_prompts(answers)
            self._probe = draw_answers(
                self.backbone, self.base, prompts, self.sampling, self.new_seed(),
                adapter=False, keep_states=True, pause=self.pause,
            )  # fmt: skip
        return self._probe

    # --- the record ------------------------------------------------------------------------------------------------

    @contextmanager
    def run(self, stage: Stage, seqs: Sequence[int], settings: object, changes_policy: bool = True) -> Iterator[list[int]]:
        """Record a stretch of training, also an abandoned one: put the step count into the list that this yields."""
        steps, started = [0], time.monotonic()
        uid = new_uid()
        try:
            yield steps
        finally:
            if steps[0]:
                record = msgspec.json.encode(settings).decode()
                seconds = time.monotonic() - started
                self.emit(Trained(run=Run(uid, stage, tuple(seqs), self.seed, steps[0], seconds, record)))
                self.candidate.runs.append(uid)
                if changes_policy:
                    self.candidate.stage = stage

    def progress(self, stage: str, step: int, of: int, started: float, **figures: float | str | None) -> None:
        """Tell the screen how a stage is doing."""
        left = (time.monotonic() - started) / step * (of - step) if step else None
        self.emit(Metrics(stage=stage, step=step, of=of, seconds_left=left, **figures))  # type: ignore[arg-type]
