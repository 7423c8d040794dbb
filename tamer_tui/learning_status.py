"""How learning stands, for the rail: what each stage does, who acts, what the judgements did, and the sentence that says so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from learners import protocol
from storage.records import BASE_VERSION, Sampling
from tamer_tui.views import CandidateView, StageView

SPENT_BY = 12
"""Answers."""
KEPT_POINTS = 2000
"""Of each stage, for charts."""
KEPT_SPEEDS = 500
"""Of answers."""
REFERENCE_TOKENS = 64
"""Budgets are nats per this many tokens."""


def sampling_in_words(sampling: Sampling, from_model: Sequence[str]) -> str:
    """How answers are drawn, where it is not plainly at temperature 1; what the model's own settings say has a star."""
    plain = Sampling()
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    set_so = [name for name in names if getattr(sampling, name) != getattr(plain, name)]
    told = ", ".join(f"{name.replace('_', '-')} {getattr(sampling, name):g}{'*' * (name in from_model)}" for name in set_so)
    return told + (" (*the model's own)" if set(set_so) & set(from_model) else "")


@dataclass
class LearningStatus:
    """Follows the engine's events."""

    bias: bool
    nats: float
    acting: tuple[str, float, int] = (BASE_VERSION, 0.0, 0)  # version id, β, Ĥ epoch
    learning: dict[str, StageView] = field(default_factory=dict)
    learned: protocol.Learned | None = None
    paused: bool = False
    held: bool = False  # after a rollback, until the operator resumes
    refused: str = ""
    trained: protocol.Idle | None = None
    _changed: float | None = None
    history: dict[str, deque[protocol.Metrics]] = field(default_factory=dict)  # stage -> its latest figures, a point for each step
    replay: StageView | None = None  # while Ĥ learns from the judgements of the log
    speeds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_SPEEDS))  # of each answer, tokens a second
    _spent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SPENT_BY))

    @property
    def known(self) -> int:
        """Judgements that Ĥ knows."""
        learned = self.learned
        return learned.rankings + learned.ratings + learned.corrections + learned.taps if learned else 0

    @property
    def followed(self) -> int:
        """Judgements that answers follow: those that Ĥ knows, and what was said in words."""
        return self.known + (self.learned.critiques if self.learned else 0)

    @property
    def spent(self) -> float | None:
        """Nats per 64 tokens that the last acting answers were from the base, pooled: nats of all of them over tokens of all of them."""
        tokens = sum(n for _, n in self._spent)
        return sum(kl for kl, _ in self._spent) / tokens * REFERENCE_TOKENS if tokens else None

    def draw(self, answer: CandidateView) -> None:
        """An answer is complete."""
        seconds = answer.times[-1] - answer.times[0] if len(answer.times) > 1 else 0.0
        if seconds > 0:
            self.speeds.append((len(answer.times) - 1) / seconds)
        if answer.policy == "acting" and answer.token_ids:
            self._spent.append((answer.kl, len(answer.token_ids)))

    @property
    def adapted(self) -> bool:
        """Whether a version acts."""
        return self.acting[0] != BASE_VERSION

    @property
    def seconds_since_change(self) -> float | None:
        """Since the acting policy changed: a publication, a rollback or a new Ĥ."""
        return None if self._changed is None else time.monotonic() - self._changed

    def take(self, event: protocol.Learned | protocol.Metrics | protocol.Acting | protocol.Idle) -> None:
        """Keep what it says."""
        match event:
            case protocol.Learned():
                self.learned = event
                self.acting = (self.acting[0], event.beta, event.h_epoch)
                self._changed = time.monotonic()
            case protocol.Acting(version=version, beta=beta, h_epoch=epoch):
                self.acting, self._changed = (version, beta, epoch), time.monotonic()
            case protocol.Metrics(stage="human_reward"):
                self.replay = StageView(event.stage, event.step, event.of, event.seconds_left) if event.step < event.of else None
            case protocol.Metrics():
                if event.stage != "idle":
                    self._remember(event)
                    self.learning.setdefault(event.stage, StageView(event.stage)).update(event)
                self._mark_active(event.stage)
            case protocol.Idle():
                self.trained = event
                self._mark_active("idle")

    def curve(self, stage: str, figure: str) -> list[float]:
        """One figure of a stage, as it came: 'loss', 'accuracy', 'reward', 'kl'."""
        values = [getattr(point, figure, None) for point in self.history.get(stage, ())]
        return [value for value in values if value is not None]

    def _remember(self, point: protocol.Metrics) -> None:
        known = self.history.setdefault(point.stage, deque(maxlen=KEPT_POINTS))
        if not known or (known[-1].step, known[-1].of) != (point.step, point.of):
            known.append(point)

    def forget(self) -> None:
        """The engine is gone, and what it knew with it."""
        self.learned, self.acting, self.replay = None, (BASE_VERSION, 0.0, 0), None
        self._mark_active("idle")

    @property
    def sentence(self) -> str:
        """In words: 'learned from 7 rankings · answering now: v2 + Ĥ · v3 refused: worse on 12 prompts'."""
        parts = [self._lessons(), "answering now: " + self.policy]
        if self.refused:
            parts.append(self.refused)
        if self.held:
            parts.append("learning is held: p resumes it")
        return " · ".join(parts)

    @property
    def policy(self) -> str:
        """Who answers now: a version, and Ĥ where it steers."""
        return self.acting[0] + (" + Ĥ" if self.bias and self.known else "")

    def _lessons(self) -> str:
        learned = self.learned
        if learned is None or not self.followed:
            return "nothing learned yet"
        counts = {"ranking": learned.rankings, "rating": learned.ratings, "correction": learned.corrections, "tap": learned.taps}
        counts["critique"] = learned.critiques
        return "learned from " + ", ".join(f"{n} {name}{'s' if n != 1 else ''}" for name, n in counts.items() if n)

    def _mark_active(self, stage: str) -> None:
        for view in self.learning.values():
            view.active = view.stage == stage
