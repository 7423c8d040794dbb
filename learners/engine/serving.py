"""What the engine's two working threads do: serve the operator, and learn.

The generator takes commands, also between two tokens, and keeps Ĥ fitted. The learner runs the curriculum in small steps, and waits while somebody
waits for tokens. They share immutable snapshots (`LearnerInputs`) and a condition; neither touches the other's trees.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from learners import protocol
from learners.engine.assembly import Parts, assemble
from learners.engine.generator import Generator
from learners.engine.training import Learner
from learners.human_reward.head import RewardHead
from learners.human_reward.online import Fitted, OnlineHumanReward
from learners.model.lora import LoraSettings
from learners.protocol import Command, Error, Event, Learned, Load
from learners.versions.blobs import BlobError
from learners.versions.files import VersionError
from learners.versions.store import VersionStore
from storage.records import Correction, Ranking, Rating, Tap


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
    ) -> None:
        self._generator: Generator = parts.generator
        self._reward: OnlineHumanReward = parts.live_reward
        self._learner, self._shelf, self._emit = learner, shelf, emit
        self._commands, self._wanted = commands, wanted
        self._later: deque[Command] = deque()  # what must wait until no answer is being drawn
        self._held = False  # after a rollback: Ĥ stays as it was
        self._dropped_told = 0  # tokens

    def run(self) -> None:
        """Never returns."""
        while True:
            self._try(self._later.popleft() if self._later else self._commands.get())

    def _try(self, command: Command) -> None:
        """A version that cannot be used is told and changes nothing."""
        try:
            self._serve(command)
        except (BlobError, VersionError) as error:
            self._emit(Error(what=str(error), hint="go on with another version: V"))

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
            case protocol.Replay(lessons=lessons, last=last):
                self._reward.replay(lessons)
                if last:
                    self._learned(0, self._fit_replayed)
                    self._learner.tell(replayed=True)
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
            case protocol.Appraise(answers=answers):
                self._emit(self._generator.appraise(answers))
            case protocol.Blob():
                self._shelf.receive(command)
            case protocol.PublishAck(sha256=sha256, version=version):
                self._publish(sha256, version)

    # --- drawing -------------------------------------------------------------------------------------------------------

    def _draw(self, command: protocol.Generate) -> None:
        self._wanted.set()
        try:
            for _ in self._generator.draw(command.requests, command.sampling):
                while not self._commands.empty():
                    self._serve_between_tokens(self._commands.get())
        finally:
            if not self._asked():
                self._generator.forget_stops()
                self._let_learn()

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
        fitted = fit()
        if self._reward.resets > resets:
            self._emit(
                Error(what="Ĥ was no number any more and was built anew from the log", hint="go on; undo (u) what was judged last if it comes again")
            )
        if not self._held:
            self._generator.use_head(fitted.head)
        milliseconds = 1000 * (time.monotonic() - started)
        self._learner.human_reward_seconds += milliseconds / 1000
        lessons = self._reward.lessons
        self._learner.tell(head=fitted.head, feedback=lessons, head_scores=self._reward.record, live_beta=self._generator.beta)
        self._emit(
            Learned(
                seq=seq,
                h_epoch=fitted.head.epoch,
                milliseconds=milliseconds,
                beta=self._generator.beta,
                rankings=lessons.count(Ranking),
                ratings=lessons.count(Rating),
                corrections=lessons.count(Correction),
                taps=lessons.count(Tap),
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
        return f"the first {n:,} tokens of prompts that are longer than the context" if n else ""

    def _fit_replayed(self) -> Fitted:
        while self._reward.advance():
            pass
        fitted = Fitted(self._reward.fit())
        if not self._held:
            self._generator.use_head(fitted.head)
            self._generator.rehearse(*self._learner.practice)
        return fitted

    # --- settings and versions ---------------------------------------------------------------------------------------------

    def _set(self, command: protocol.Set) -> None:
        if command.nats is not None or command.bias is not None:
            self._generator.use_budget(command.nats, command.bias)
            self._learner.tell(nats=self._generator.budget.nats, bias=self._generator.bias, live_beta=self._generator.beta)
        if command.paused is False and self._held:
            self._held = False
            self._generator.use_head(self._reward.head)
            self._learner.tell(head=self._reward.head, live_beta=self._generator.beta)
        self._learner.set(command)

    def _publish(self, sha256: str, version: str) -> None:
        published = self._shelf.publish(sha256, version)
        if published is None:
            self._emit(Error(what=f"version {version} is not here to publish", hint="restart the engine with R"))
            return
        self._generator.use_policy(published.policy)
        if self._commands.empty() and not self._later:  # nobody waits for answers
            self._generator.rehearse(*self._learner.practice)
        self._learner.published(published, self._generator.beta)

    def _roll_back(self, version: str, sha256: str | None) -> None:
        found = self._shelf.restore(version, sha256)
        if found is None:
            self._emit(Error(what=f"version {version} is not here", hint="its files are missing or damaged: see tamer versions"))
            return
        self._held = True
        self._generator.use_policy(found.policy)
        self._generator.use_head(found.head or RewardHead.empty(self._reward.head.features))
        self._learner.restart_from(found, self._generator.beta, held=True)

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
    def load(load: Load, emit: Callable[[Event], None], commands: queue.SimpleQueue[Command], wanted: threading.Event) -> Workers:
        """Loads the model, and the version to resume from, whose blobs were sent before. Raises ModelError."""
        parts = assemble(load, emit)
        shelf = VersionStore(parts.backbone, parts.trees.reward, LoraSettings(), load.seed)
        learner = Learner(parts, load, shelf, emit, wanted)
        generator = GeneratorWorker(parts, learner, shelf, emit, commands, wanted)
        complaint = generator.resume_version(load.version, load.adapter) if load.adapter is not None else None
        emit(msgspec.structs.replace(parts.ready, version=parts.generator.policy.version))
        if complaint is not None:  # only now: what is said before the model is there is why it will not be
            emit(complaint)
        return Workers(generator, learner)
