"""What the engine's two working threads do: serve the operator, and learn.

The generator takes commands, also between two tokens, and keeps Ĥ fitted (online_learning.py). While it has none it looks ahead: at the answers of
the set that is being read, so that only the fit is left when it is judged, and at judgements of the log that wait. The learner runs the curriculum in
small steps, and waits while somebody waits for tokens. They share immutable snapshots (`LearnerInputs`) and a condition; neither touches the other's
trees.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import msgspec

from learners import protocol
from learners.engine.assembly import Parts, assemble, usable_prompts
from learners.engine.freed_memory import return_freed_memory
from learners.engine.generator import Generator
from learners.engine.online_learning import OnlineLearning
from learners.engine.remarks import Remarks
from learners.engine.streamed_answer import AnsweredSet, of_one_version
from learners.engine.training import Learner, too_large_to_appraise
from learners.model.cuda_graph import priority_stream
from learners.model.lora import LoraSettings
from learners.model.memory import within_memory
from learners.protocol import AnswerRequest, Command, Error, Event, Load
from learners.versions.blobs import BlobError
from learners.versions.files import VersionError
from learners.versions.store import VersionStore


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
        self._learning = OnlineLearning(parts, learner, emit, lambda: not commands.empty(), metered)
        self._learner, self._shelf, self._emit = learner, shelf, emit
        self._commands, self._wanted = commands, wanted
        self._later: deque[Command] = deque()  # what must wait until no answer is being drawn
        self._generator.may_prepare = not metered
        self._set_drawn: AnsweredSet | None = None  # is being read, and has not been looked at

    def run(self) -> None:
        """Never returns."""
        with priority_stream(self._backbone.device):
            while True:
                self._try(self._next())

    def _next(self) -> Command:
        """What to serve. While nothing is asked for, what can wait is done, one forward at a time."""
        while not self._later:
            if not (self._set_drawn or self._learning.due or self._generator.unprepared):
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
            self._learning.prepare(drawn)
            self._let_learn()
        elif self._learning.due:
            self._learning.go_on()
        else:
            self._learning.within_memory(self._generator.prepare, "answers are drawn as before")

    def _try(self, command: Command) -> None:
        """A version that cannot be used is told and changes nothing; nor does what memory does not hold."""
        try:
            done = self._learning.within_memory(lambda: self._serve(command), "that could not be done")
        except (BlobError, VersionError) as error:
            self._emit(Error(what=str(error), hint="go on with another version: V"))
            return
        if not done and not self._generator.drawing:
            self._let_learn()

    def _serve(self, command: Command) -> None:
        match command:
            case protocol.Generate():
                self._draw(command)
            case protocol.AddJudgement(lesson=lesson):
                self._learning.learn(lesson)
                if not self._generator.drawing:
                    self._let_learn()
            case protocol.Retract(seq=seq):
                self._learning.retract(seq)
            case protocol.Replay():
                self._learning.read(command)
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
                of_rewards = self._learning.of_rewards() if whole else None
                self._emit(within_memory(partial(self._generator.appraise, answers, of_rewards), too_large_to_appraise))
            case protocol.Blob():
                self._shelf.receive(command)
            case protocol.PublishAck(sha256=sha256, version=version):
                self._publish(sha256, version)

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
            self._learning.beta_due &= not self._generator.told  # these answers tell more
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

    # --- settings and versions ---------------------------------------------------------------------------------------------

    def _set(self, command: protocol.Set) -> None:
        if command.nats is not None or command.bias is not None:
            self._generator.use_budget(command.nats, command.bias)
            self._learner.tell(nats=self._generator.budget.nats, bias=self._generator.bias, live_beta=self._generator.beta)
        if command.paused is False:
            self._learning.release()
        for name in ("train_prompts", "gate_prompts"):
            if (prompts := getattr(command, name)) is not None:
                usable = usable_prompts(self._backbone, prompts, self._learner.practice[1], self._emit)
                self._learner.tell(**{name: list(usable)}, **({"conversations": usable} if name == "train_prompts" else {}))
        self._learner.set(command)

    def _publish(self, sha256: str, version: str) -> None:
        refused = self._learning.held or self._shelf.withdrawn(sha256)  # proposed before a rollback: what the operator went back to acts on
        published = None if refused else self._shelf.publish(sha256, version)
        if published is None:
            why = "it was trained before you went back" if refused else "it is not here any more"
            self._emit(Error(what=f"version {version} does not act: {why}", hint="it is kept: V"))
            self._generator.tell_acting(refused=version)
            return
        self._generator.use_policy(published.policy)
        self._learning.policy_changed(nobody_waits=self._commands.empty() and not self._later)
        self._learner.published(published, self._generator.beta)

    def _roll_back(self, version: str, sha256: str | None) -> None:
        found = self._shelf.restore(version, sha256)
        if found is None:
            self._emit(Error(what=f"version {version} is not here", hint="its files are missing or damaged: see tamer versions"))
            return
        self._learning.roll_back(found.policy, found.head)
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
