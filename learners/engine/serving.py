"""What the engine's two working threads do: serve the operator, and learn.

The generator takes commands, also between two tokens, and keeps Ĥ fitted. While it has none it looks ahead: at the answers of the set that is being
read, so that only the fit is left when it is judged, and at judgements of the log that wait. The learner runs the curriculum in small steps, and
waits while somebody waits for tokens. They share immutable snapshots (`LearnerInputs`) and a condition; neither touches the other's trees.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import msgspec

from learners import protocol
from learners.curriculum.scorers import RewardFit
from learners.engine.assembly import Parts, assemble, usable_prompts
from learners.engine.freed_memory import return_freed_memory
from learners.engine.generator import Generator
from learners.engine.remarks import Remarks
from learners.engine.replaying import LogReplay
from learners.engine.streamed_answer import AnsweredSet, of_one_version
from learners.engine.training import Learner, too_large_to_appraise
from learners.feedback.critiques import Critiques
from learners.human_reward.head import RewardHead
from learners.human_reward.online import Fitted, OnlineHumanReward
from learners.model.cuda_graph import priority_stream
from learners.model.lora import LoraSettings
from learners.model.memory import free_memory, within_memory
from learners.protocol import AnswerRequest, Command, Error, Event, Learned, Load
from learners.versions.blobs import BlobError
from learners.versions.files import VersionError
from learners.versions.store import VersionStore
from storage.records import Correction, Critique, Ranking, Rating, Tap

PATIENCE = 1.5
"""Seconds that the first answer waits for what the log has to teach; the rest is learned beside it. Metered runs wait for all of it."""


class GeneratorWorker:
    """Serves commands one after another; while answers are drawn, between two tokens."""

    def __init__(
        self,
        parts: Parts,
        learner: Learner,
        shelf: VersionStore,
        emit: Callable[[Event], None],
        commands: queue.SimpleQueue[Command],
        wanted: threading.Event,
        metered: bool = False,
    ) -> None:
        self._backbone = parts.backbone
        self._generator: Generator = parts.generator
        self._reward: OnlineHumanReward = parts.live_reward
        self._rewards = RewardFit(lambda sample, _: self._reward.rewards_of(sample))
        self._learner, self._shelf, self._emit = learner, shelf, emit
        self._commands, self._wanted = commands, wanted
        self._later: deque[Command] = deque()  # what must wait until no answer is being drawn
        self._held = False  # after a rollback: Ĥ stays as it was
        self._dropped_told = 0  # tokens
        self._generator.may_prepare = not metered
        self._metered = metered  # a run that is repeated must come out the same: nothing depends on how fast it was
        self._replay = LogReplay(self._reward, emit)
        self._set_drawn: AnsweredSet | None = None  # is being read, and has not been looked at
        self._beta_due = False
        self._replayed = False  # the log has been learned from once
        self._as_left = False  # until then a version is steered by its own Ĥ, as when it was published

    def run(self) -> None:
        """Never returns."""
        with priority_stream(self._backbone.device):
            while True:
                self._try(self._next())

    def _next(self) -> Command:
        """What to serve. While nothing is asked for, what can wait is done, one forward at a time."""
        while not self._later:
            if not (self._set_drawn or self._beta_due or self._replay.due or self._generator.unprepared):
                if self._commands.empty():
                    return_freed_memory()
                return self._commands.get()
            try:
                return self._commands.get_nowait()
            except queue.Empty:
                self._look_ahead()
        return self._later.popleft()

    def _look_ahead(self) -> None:
        if self._set_drawn:
            drawn, self._set_drawn = self._set_drawn, None
            self._within_memory(lambda: self._reward.prepare(*drawn), "these answers are looked at when they are judged")
            self._let_learn()
        elif self._beta_due:
            self._calibrate_beta(interrupted=lambda: not self._commands.empty())
        elif not self._replay.due:
            self._within_memory(self._generator.prepare, "answers are drawn as before")
        else:
            self._within_memory(self._replay.advance, "Ĥ stays as it was")
            if not self._replay.due and self._replay.ended:
                self._end_replay(interrupted=lambda: not self._commands.empty())
            elif self._replay.take_fit():
                self._learned(0, lambda: Fitted(self._reward.fit()))

    def _try(self, command: Command) -> None:
        """A version that cannot be used is told and changes nothing; nor does what memory does not hold."""
        try:
            done = self._within_memory(lambda: self._serve(command), "that could not be done")
        except (BlobError, VersionError) as error:
            self._emit(Error(what=str(error), hint="go on with another version: V"))
            return
        if not done and not self._generator.drawing:
            self._let_learn()

    def _within_memory(self, work: Callable[[], object], otherwise: str) -> bool:
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

    def _serve(self, command: Command) -> None:
        match command:
            case protocol.Generate():
                self._draw(command)
            case protocol.AddJudgement(lesson=lesson):
                self._learned(lesson.seq, lambda: self._reward.learn(lesson))
                if not self._generator.drawing:
                    self._let_learn()
            case protocol.Retract(seq=seq):
                self._learned(seq, lambda: self._reward.retract(seq))
            case protocol.Replay():
                self._read(command)
            case protocol.Stop(uids=uids):
                self._generator.stop(uids or self._asked_for())
            case protocol.ResumeFrom(uid=uid, n_tokens=n_tokens):
                self._resume(uid, n_tokens)
            case protocol.Set():
                self._set(command)
            case protocol.Rollback(version=version, sha256=sha256):
                self._roll_back(version, sha256)
            case protocol.Appraise(answers=answers, by="reward"):
                self._learner.appraise(answers)
            case protocol.Appraise(answers=answers, whole=whole):
                of_rewards = self._of_rewards() if whole else None
                self._emit(within_memory(partial(self._generator.appraise, answers, of_rewards), too_large_to_appraise))
            case protocol.Blob():
                self._shelf.receive(command)
            case protocol.PublishAck(sha256=sha256, version=version):
                self._publish(sha256, version)

    def _of_rewards(self) -> RewardHead | None:
        """Ĥ's model fitted to rewards, from the states that Ĥ was fitted to; None while it is to stay as it was."""
        live = self._reward
        return None if self._held else self._rewards.head(live.lessons, live.head.features, live.similarity)

    # --- drawing -------------------------------------------------------------------------------------------------------

    def _draw(self, command: protocol.Generate) -> None:
        self._wanted.set()
        self._set_drawn = None
        requests, others = of_one_version(command.requests)
        if others:  # their turn comes at once
            self._later.appendleft(msgspec.structs.replace(command, requests=others))
        try:
            with self._lending(requests):
                for _ in self._generator.draw(requests, command.sampling):
                    while not self._commands.empty():
                        self._serve_between_tokens(self._commands.get())
            self._beta_due &= not self._generator.told  # these answers tell more
        except (BlobError, VersionError) as error:
            for request in requests:
                self._emit(Error(what=str(error), hint="go on with another version: V", uid=request.uid))
        finally:
            if not self._asked():
                self._generator.forget_stops()
                self._set_drawn = self._generator.set_drawn
                if self._set_drawn is None:
                    self._let_learn()

    def _lending(self, requests: Sequence[AnswerRequest]) -> AbstractContextManager[None]:
        """The adapter that draws these. Raises BlobError, VersionError."""
        named = next(((request.version, request.sha256) for request in requests if request.sha256 is not None), None)
        return self._generator.lending(self._shelf.lend(*named)) if named is not None else nullcontext()

    def _asked(self) -> bool:
        """Whether answers wait to be drawn."""
        return any(isinstance(waiting, protocol.Generate) for waiting in self._later)

    def _let_learn(self) -> None:
        """Nobody waits any more, unless for what has not been begun."""
        if not self._asked():
            self._wanted.clear()
            self._learner.wake()

    def _asked_for(self) -> list[str]:
        """Answers that are being drawn, and those that wait for it."""
        waiting = [command for command in self._later if isinstance(command, protocol.Generate)]
        return [*self._generator.drawing, *(request.uid for command in waiting for request in command.requests)]

    def _serve_between_tokens(self, command: Command) -> None:
        """Adapters change between answers only: the cache of half an answer belongs to the adapter that began it."""
        if isinstance(command, protocol.Generate | protocol.PublishAck | protocol.Rollback | protocol.ResumeFrom):
            self._later.append(command)
            if isinstance(command, protocol.ResumeFrom):
                self._generator.stop((command.uid,))
        else:
            self._try(command)

    def _resume(self, uid: str, n_tokens: int) -> None:
        found = self._generator.resume(uid, n_tokens)
        if found is None:
            self._emit(Error(what="this answer is not known any more", hint="draw it again", uid=uid))
            return
        if any(isinstance(waiting, protocol.ResumeFrom) and waiting.uid == uid for waiting in self._later):
            self._generator.stop((uid,))  # it is to be drawn anew once more: this one ends at its start
        self._draw(protocol.Generate(requests=(found[0],), sampling=found[1]))

    # --- learning at once ------------------------------------------------------------------------------------------------

    def _learned(self, seq: int, fit: Callable[[], Fitted]) -> None:
        started, resets = time.monotonic(), self._reward.resets
        fitted = Fitted(self._reward.head)

        def work() -> None:
            nonlocal fitted
            fitted = fit()

        self._within_memory(work, "Ĥ stays as it was")
        if seq:
            self._as_left = False
        if self._reward.resets > resets:
            self._emit(
                Error(what="Ĥ was no number any more and was built anew from the log", hint="go on; undo (u) what was judged last if it comes again")
            )
        if fitted.dropped:  # says itself why this one was refused
            self._replay.refusals()
        if not self._held:
            if not self._as_left and fitted.head is not self._generator.steering.head:
                self._within_memory(lambda: self._generator.use_head(fitted.head), "the new Ĥ steers from the next judgement on")
            self._generator.words.use(Critiques.of(self._reward.lessons.lessons))
        milliseconds = 1000 * (time.monotonic() - started)
        self._learner.human_reward_seconds += milliseconds / 1000
        self._learner.tell(head=fitted.head, feedback=self._reward.lessons, head_scores=self._reward.record, live_beta=self._generator.beta)
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
                critiques=self._reward.count(Critique),
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

    # --- the log -----------------------------------------------------------------------------------------------------------

    def _read(self, log: protocol.Replay) -> None:
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
            self._end_replay(interrupted=lambda: not self._commands.empty())
        if not self._replay.ended and (follows or log.last):
            self._emit(protocol.Read())

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
            self._end_replay(interrupted=late)
        else:
            self._learn_on()

    def _act_as_left(self, stale: bool) -> None:
        """At a start, while a part of the log is not known: what of an adapter no Ĥ says would be taken back."""
        head = self._learner.inputs().live.head
        known = self._replay.ended and not self._replay.due
        self._as_left = not (known or stale or self._held) and self._reward.head.blank and head is not None
        if self._as_left and head is not None:
            self._generator.use_head(head)
            self._beta_due = True

    def _end_replay(self, interrupted: Callable[[], bool]) -> None:
        """All that waited has been looked at."""
        self._as_left &= not self._replay.ended

        def fitted() -> Fitted:
            fitted = Fitted(self._reward.fit())
            if not (self._held or self._replayed or self._as_left):
                self._within_memory(lambda: self._begin_steering(fitted.head, interrupted), "how strongly Ĥ may steer is not known yet")
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
        self._beta_due = False

        def work() -> None:
            self._beta_due = not self._generator.calibrate_beta(*self._learner.practice, interrupted)

        self._within_memory(work, "Ĥ steers as strongly as the answers so far allow")
        self._learner.tell(live_beta=self._generator.beta)

    # --- settings and versions ---------------------------------------------------------------------------------------------

    def _set(self, command: protocol.Set) -> None:
        if command.nats is not None or command.bias is not None:
            self._generator.use_budget(command.nats, command.bias)
            self._learner.tell(nats=self._generator.budget.nats, bias=self._generator.bias, live_beta=self._generator.beta)
        if command.paused is False and self._held:
            self._held = False
            self._generator.use_head(self._reward.head)
            self._generator.words.use(Critiques.of(self._reward.lessons.lessons))
            self._learner.tell(head=self._reward.head, live_beta=self._generator.beta)
        for name in ("train_prompts", "gate_prompts"):
            if (prompts := getattr(command, name)) is not None:
                usable = usable_prompts(self._backbone, prompts, self._learner.practice[1], self._emit)
                self._learner.tell(**{name: list(usable)}, **({"conversations": usable} if name == "train_prompts" else {}))
        self._learner.set(command)

    def _publish(self, sha256: str, version: str) -> None:
        refused = self._held or self._shelf.withdrawn(sha256)  # proposed before a rollback: what the operator went back to acts on
        published = None if refused else self._shelf.publish(sha256, version)
        if published is None:
            why = "it was trained before you went back" if refused else "it is not here any more"
            self._emit(Error(what=f"version {version} does not act: {why}", hint="it is kept: V"))
            self._generator.tell_acting(refused=version)
            return
        self._generator.use_policy(published.policy)
        if not self._metered:
            self._beta_due = True
        elif self._commands.empty() and not self._later:  # nobody waits for answers
            self._calibrate_beta(interrupted=lambda: False)
        self._learner.published(published, self._generator.beta)

    def _roll_back(self, version: str, sha256: str | None) -> None:
        found = self._shelf.restore(version, sha256)
        if found is None:
            self._emit(Error(what=f"version {version} is not here", hint="its files are missing or damaged: see tamer versions"))
            return
        self._held, self._as_left = True, False
        self._generator.use_policy(found.policy)
        self._generator.use_head(found.head or RewardHead.empty(self._reward.head.features))
        self._learner.restart_from(found, self._generator.beta, held=True)
        self._shelf.withdraw()  # only now: from here on nothing from before is proposed

    def resume_version(self, version: str, sha256: str) -> Error | None:
        """Before anything is served: act with the version that an earlier sitting ended with, whose blobs were sent. Says what is wrong with it."""
        try:
            while not self._commands.empty():
                command = self._commands.get()
                if isinstance(command, protocol.Blob):
                    self._shelf.receive(command)
                else:
                    self._later.append(command)  # the operator was quicker than the model
            found = self._shelf.restore(version, sha256)
        except (BlobError, VersionError):
            found = None
        if found is None:
            return Error(what=f"version {version} is not here", hint="its files are missing or damaged: this sitting starts from the base")
        self._generator.use_policy(found.policy)
        self._learner.restart_from(found, self._generator.beta, held=False)
        return None


@dataclass(frozen=True)
class Workers:
    """Both, ready to run in threads of their own."""

    generator: GeneratorWorker
    learner: Learner

    @staticmethod
    def load(
        load: Load,
        emit: Callable[[Event], None],
        commands: queue.SimpleQueue[Command],
        wanted: threading.Event,
        delivered: Callable[[], bool] = lambda: True,
    ) -> Workers:
        """Loads the model, and the version to resume from, whose blobs were sent before. `delivered`: whether a terminal has what was emitted.
        Raises ModelError."""
        remarks = Remarks()
        parts = assemble(load, emit)
        shelf = VersionStore(parts.backbone, parts.trees.reward, LoraSettings(), load.seed, load.blob_bytes)
        learner = Learner(parts, load, shelf, emit, wanted, delivered)
        generator = GeneratorWorker(parts, learner, shelf, emit, commands, wanted, load.metered)
        complaint = generator.resume_version(load.version, load.adapter) if load.adapter is not None else None
        emit(msgspec.structs.replace(parts.ready, version=parts.generator.policy.version))
        for told in (*parts.complaints, *([complaint] if complaint is not None else [])):
            emit(told)  # only now: what is said before the model is there is why it will not be
        remarks.tell(emit)
        return Workers(generator, learner)
