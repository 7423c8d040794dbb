"""What the operator says is learned at once: Ĥ is fitted anew and steers the next token, judgement by judgement and as the log is read."""

from __future__ import annotations

import time
from collections.abc import Callable

from learners import protocol
from learners.engine.assembly import Parts
from learners.engine.replaying import LogReplay
from learners.engine.streamed_answer import AnsweredSet
from learners.engine.training import Learner
from learners.feedback.critiques import Critiques
from learners.human_reward.head import RewardHead
from learners.human_reward.online import Fitted
from learners.model.memory import free_memory, within_memory
from learners.protocol import Error, Event, Learned, Lesson
from learners.versions.snapshot import PolicySnapshot
from storage.records import Correction, Ranking, Rating, Tap

PATIENCE = 1.5
"""Seconds that the first answer waits for what the log has to teach; the rest is learned beside it. Metered runs wait for all of it."""


class OnlineLearning:
    """Belongs to the generator's thread. What memory does not hold is told, and changes nothing."""

    def __init__(self, parts: Parts, learner: Learner, emit: Callable[[Event], None], interrupted: Callable[[], bool], metered: bool) -> None:
        """`interrupted`: whether a command waits. `metered`: a run that is repeated must come out the same, so nothing depends on how fast it was."""
        self._backbone, self._generator, self._reward = parts.backbone, parts.generator, parts.live_reward
        self._learner, self._emit, self._interrupted, self._metered = learner, emit, interrupted, metered
        self._replay = LogReplay(self._reward, emit)
        self.held = False  # after a rollback: Ĥ stays as it was
        self._dropped_told = 0  # tokens
        self.beta_due = False  # whether the budget is to be met anew once nobody waits
        self._replayed = False  # the log has been learned from once
        self._as_left = False  # until then a version is steered by its own Ĥ, as when it was published

    @property
    def due(self) -> bool:
        """Whether there is something to do while nothing is asked for."""
        return self.beta_due or self._replay.due

    def go_on(self) -> None:
        """With that, one forward at a time."""
        if self.beta_due:
            self._calibrate_beta(self._interrupted)
            return
        self.within_memory(self._replay.advance, "Ĥ stays as it was")
        if not self._replay.due and self._replay.ended:
            self._end_replay(self._interrupted)
        elif self._replay.take_fit():
            self._learned(0, lambda: Fitted(self._reward.fit()))

    def learn(self, lesson: Lesson) -> None:
        """A new judgement, or one that was redone."""
        self._learned(lesson.seq, lambda: self._reward.learn(lesson))

    def retract(self, seq: int) -> None:
        """A judgement that was undone."""
        self._learned(seq, lambda: self._reward.retract(seq))

    def read(self, log: protocol.Replay) -> None:
        """A chunk. The first answer waits for what comes first: the log, or what the operator judged, or a sample of that. The rest of a log comes as
        it is asked for."""
        self._replay.take(log.lessons, log.of, log.sample)
        follows = self._replay.begun
        if log.last:
            self._replay.end(log.sample)
        if log.last and not follows:
            self._replayed = False
            self._catch_up(log.stale)
        elif log.last and log.sample:
            self._learned(0, lambda: Fitted(self._reward.fit()))
            self._learn_from_sample()
        elif log.last and not self._replay.due:
            self._end_replay(self._interrupted)
        if not self._replay.ended and (follows or log.last):
            self._emit(protocol.Read())

    def prepare(self, drawn: AnsweredSet) -> None:
        """Look at a set while it is being read, so that only the fit is left when it is judged."""
        self.within_memory(lambda: self._reward.prepare(*drawn), "these answers are looked at when they are judged")

    def of_rewards(self) -> RewardHead | None:
        """Who scores whole answers; None while Ĥ is to stay as it was."""
        return None if self.held else self._reward.rewards

    def roll_back(self, policy: PolicySnapshot, head: RewardHead | None) -> None:
        """Act with these until `release`: what is learned meanwhile does not steer, nor does what was said in words and not absorbed."""
        self.held, self._as_left = True, False
        self._generator.words.use(Critiques())
        self._generator.use_policy(policy)
        self._generator.use_head(head or RewardHead.empty(self._reward.head.features))

    def release(self) -> None:
        """Steer with what was learned again."""
        if self.held:
            self.held = False
            self._generator.use_head(self._reward.head)
            self._generator.words.use(Critiques.of(self._reward.lessons.lessons))
            self._learner.tell(head=self._reward.head, live_beta=self._generator.beta)

    def policy_changed(self, nobody_waits: bool) -> None:
        """Another version acts: β is to meet the budget with it."""
        if not self._metered:
            self.beta_due = True
        elif nobody_waits:
            self._calibrate_beta(interrupted=lambda: False)

    def within_memory(self, work: Callable[[], object], otherwise: str) -> bool:
        """Whether it was done. Where memory does not hold it, what can be computed again is let go, and what follows is told."""

        def done() -> bool:
            work()
            return True

        def given_up() -> bool:
            self._reward.forget_prepared()
            self._generator.forget_prepared()
            free_memory()
            self._emit(Error(what=f"out of memory: {otherwise}", hint="try --quantize nf4, a smaller model or a smaller -k"))
            return False

        return within_memory(done, given_up)

    def _learned(self, seq: int, fit: Callable[[], Fitted]) -> None:
        started, resets = time.monotonic(), self._reward.resets
        fitted = Fitted(self._reward.head)

        def work() -> None:
            nonlocal fitted
            fitted = fit()

        self.within_memory(work, "Ĥ stays as it was")
        if seq:
            self._as_left = False
        if self._reward.resets > resets:
            self._emit(
                Error(what="Ĥ was no number any more and was built anew from the log", hint="go on; undo (u) what was judged last if it comes again")
            )
        if fitted.dropped:  # says itself why this one was refused
            self._replay.refusals()
        if not self.held:
            if not self._as_left and fitted.head is not self._generator.steering.head:
                self.within_memory(lambda: self._generator.use_head(fitted.head), "the new Ĥ steers from the next judgement on")
            self._generator.words.use(Critiques.of(self._reward.lessons.lessons))
        milliseconds = 1000 * (time.monotonic() - started)
        self._learner.human_reward_seconds += milliseconds / 1000
        self._learner.tell(
            head=fitted.head, rewards=self._reward.rewards, feedback=self._reward.lessons, head_scores=self._reward.record,
            live_beta=self._generator.beta,
        )  # fmt: skip
        self._emit(
            Learned(
                seq=seq,
                h_epoch=fitted.head.epoch,
                milliseconds=milliseconds,
                beta=self._generator.beta,
                rankings=self._reward.count(Ranking),
                ratings=self._reward.count(Rating),
                corrections=self._reward.count(Correction),
                taps=self._reward.count(Tap),
                critiques=len(Critiques.of(self._reward.lessons.lessons).lessons),
                log_loss=fitted.foreseen.log_loss if fitted.foreseen else None,
                accuracy=self._reward.record.accuracy,
                dropped=fitted.dropped or self._newly_dropped(),
            )
        )
        if fitted.foreseen:
            self._emit(protocol.Foreseen(seq=seq, judge="human_reward", **fitted.foreseen._asdict()))

    def _newly_dropped(self) -> str:
        """In words; '' where nothing was."""
        n, self._dropped_told = self._reward.dropped_tokens - self._dropped_told, self._reward.dropped_tokens
        what = "" if self._backbone.chat_template else "the first "
        tokens = f"{what}{n:,} tokens of prompts that are longer than the context" if n else ""
        return " · ".join(part for part in (self._replay.refusals(), tokens) if part)

    def _catch_up(self, stale: bool) -> None:
        """The log, or what comes first of it, has been read: learn from it before the first answer as far as that takes no time to speak of. A part
        of a log says less than the version that all of it taught, unless that one is `stale`."""
        deadline = time.monotonic() + PATIENCE

        def late() -> bool:
            return not self._metered and time.monotonic() > deadline

        while self._replay.due and not late():
            self._replay.advance()
        self._act_as_left(stale)
        if self._replay.due:
            self._learned(0, lambda: Fitted(self._reward.fit()))
            self._learn_from_sample()
        elif not self._replay.empty:
            self._end_replay(late)
        else:
            self._learn_on()

    def _act_as_left(self, stale: bool) -> None:
        """At a start, while a part of the log is not known: what of an adapter no Ĥ says would be taken back."""
        head = self._learner.inputs().live.head
        known = self._replay.ended and not self._replay.due
        self._as_left = not (known or stale or self.held) and self._reward.head.blank and head is not None
        if self._as_left and head is not None:
            self._generator.use_head(head)
            self.beta_due = True

    def _end_replay(self, interrupted: Callable[[], bool]) -> None:
        """All that waited has been looked at."""
        self._as_left &= not self._replay.ended

        def fitted() -> Fitted:
            fitted = Fitted(self._reward.fit())
            if not (self.held or self._replayed or self._as_left):
                self.within_memory(lambda: self._begin_steering(fitted.head, interrupted), "how strongly Ĥ may steer is not known yet")
            return fitted

        self._learned(0, fitted)
        self._learn_on()

    def _begin_steering(self, head: RewardHead, interrupted: Callable[[], bool]) -> None:
        self._generator.use_head(head)
        self._calibrate_beta(interrupted)

    def _learn_on(self) -> None:
        """Nothing of the log waits any more: training may begin, of a sample with the reward model."""
        if self._replay.ended:
            self._replayed = True
            self._learner.tell(replayed=True)
        self._learn_from_sample()

    def _learn_from_sample(self) -> None:
        if not (self._replay.ended or self._replay.empty):
            self._learner.tell(sampled=self._replay.total)

    def _calibrate_beta(self, interrupted: Callable[[], bool]) -> None:
        """Meet the budget before the first answer. What is given up because somebody waits is due when nobody does."""
        self.beta_due = False

        def work() -> None:
            self.beta_due = not self._generator.calibrate_beta(*self._learner.practice, interrupted)

        self.within_memory(work, "Ĥ steers as strongly as the answers so far allow")
        self._learner.tell(live_beta=self._generator.beta)
