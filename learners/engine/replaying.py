"""Ĥ learns from the judgements of the log: one forward at a time, so that nobody waits for more than that, and it is told how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from learners.human_reward.online import OnlineHumanReward
from learners.protocol import Event, Lesson, Metrics

TOLD_SECONDS = 0.2
"""Progress is told at most this often."""
FIT_SECONDS = 10.0
"""Between two fits while there is more to learn: what was learned so far acts already."""


class LogReplay:
    """Belongs to the generator's thread."""

    def __init__(self, reward: OnlineHumanReward, emit: Callable[[Event], None]) -> None:
        self._reward, self._emit = reward, emit
        self.total = self._received = 0  # judgements
        self.begun = False  # answers may be drawn with what was learned: the log, or a sample of it, has been read
        self.ended = False  # the log has been read to its end
        self._began = self._told = self._fitted = 0.0  # monotonic seconds
        self._refusals_told = 0

    def take(self, lessons: Sequence[Lesson], of: int = 0, first: bool = False) -> None:
        """Read these; they wait. `of`: how many there will be in all. `first`: they are learned from before others, in this order."""
        if self.ended:  # another log: the engine is asked to learn more than at its start
            self.ended = self.begun = False
            self.total = self._received = 0
        self._reward.replay(lessons, first)
        self._received += len(lessons)
        self.total = max(self._received, of)

    def end(self, sample: bool = False) -> None:
        """Nothing more comes, or no more of the sample."""
        self.ended = not sample
        if not self.begun:
            self.begun = True
            self._began = self._fitted = time.monotonic()

    @property
    def empty(self) -> bool:
        """Whether nothing of it came so far."""
        return self._received == 0

    @property
    def due(self) -> bool:
        """Whether judgements wait to be learned from: of the log, or those that an undo asks for again."""
        return self.begun and self._reward.waiting > 0

    def take_fit(self) -> bool:
        """Whether a fit is due, which is then taken for done."""
        due = time.monotonic() - self._fitted >= FIT_SECONDS
        self._fitted = time.monotonic() if due else self._fitted
        return due

    def advance(self) -> None:
        """Look at one judgement: at most one forward."""
        self.total = max(self.total, self._reward.waiting)
        self._received = max(self._received, self._reward.waiting)
        self._reward.advance()
        now = time.monotonic()
        if now - self._told >= TOLD_SECONDS or not self.due:
            self._told = now
            done = self._received - self._reward.waiting
            left = (now - self._began) / done * (self.total - done) if done else None
            self._emit(Metrics(stage="human_reward", step=done, of=self.total, seconds_left=left))

    def refusals(self) -> str:
        """What of the log cannot be used with this model, in words; '' where it is known already."""
        refused = self._reward.refused
        n, self._refusals_told = len(refused) - self._refusals_told, len(refused)
        if n <= 0:
            return ""
        return f"{n:,} judgement{'s' if n != 1 else ''} of the log: {list(refused.values())[-1]}"
