"""A policy from judgements alone: the curriculum of a sitting, without an operator who waits, from the base on.

Everything random comes from the request's seed, and how far training goes is counted in steps: the same request on the same machine gives the same
bytes, also where it was killed and gone on with. Between two steps all that the rest depends on is kept (`checkpoint.pt`), as often as that takes a
tenth of the time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace as replaced

from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.runs import RunRecorder
from learners.curriculum.schedule import Curriculum, Proposal
from learners.curriculum.weights import PolicyWeights
from learners.engine.assembly import Parts, assemble
from learners.human_reward.kl_budget import KLBudget
from learners.human_reward.logit_bias import LogitBias
from learners.model import shards
from learners.model.checkpoint import ModelError
from learners.model.lora import LoraSettings, lora_state
from learners.protocol import Event, Gated, Lesson, Metrics, Notice, Replay, Trained, decode_command
from learners.rlhf import ranks
from learners.rlhf.rollouts import draw_answers
from learners.train import checkpoint, launched
from learners.train.request import CHECKPOINT, LESSONS, RESULT, VERSIONS, Rebuilt, TrainRequest
from learners.versions.blobs import Assembler, read_directory, write_directory
from learners.versions.snapshot import BASE, VersionState
from learners.versions.store import VersionStore, unpacked
from storage.records import BASE_VERSION, Arm, Tap

CHECKPOINT_SHARE = 0.1
"""Of the time, at most, for checkpoints."""
BETA_ANSWERS = 12
READ_TOLD = 32
"""Judgements read between two tellings of it."""


class Stopped(Exception):
    """It was asked to stop; what was trained is in the checkpoint."""


class Rebuild:
    """One run in its folder. Every rank makes one; the first writes. Raises ModelError."""

    def __init__(self, folder: Path, request: TrainRequest, emit: Callable[[Event], None]) -> None:
        self._folder, self._request, self._emit = folder, request, emit
        lessons = self._lessons()
        self.parts: Parts = assemble(launched.placed(request.load), emit)
        backbone = self.parts.backbone
        saved = checkpoint.read(folder / CHECKPOINT, backbone.device)
        if saved is not None and saved["request"] != request.sha256:
            raise ModelError(f"{folder} has the checkpoint of another run", "give another folder, or remove checkpoint.pt")
        for told in (self.parts.ready, *self.parts.complaints):
            emit(told)
        self.same_base = request.base_hash in ("", backbone.base_hash)
        self.told_judgements = len(lessons)
        self.lessons = lessons if self.same_base else carried(lessons)
        if not self.same_base:
            emit(Notice(what=another_base(lessons, self.lessons)))
        torch.set_num_threads(request.threads)
        self._inputs = self._learned()
        load = request.load
        self._told: list[bytes] = []  # runs and verdicts so far, as lines
        self._practice = Practice(backbone, self.parts.trees.base, self.parts.sampling, load.seed, self.inputs)
        self._weights = PolicyWeights(self.parts.trees.policy, self.parts.trees.reference)
        self.curriculum = Curriculum(
            self._weights, self._practice, self.inputs, RunRecorder(self._take, load.seed), self.parts.trees.reward, load.stages, self._propose,
            ppo_iterations=request.iterations,
        )  # fmt: skip
        self._store = VersionStore(backbone, self.parts.trees.reward, LoraSettings(), load.seed)
        self._live_sha256 = ""
        self._seconds, self._began = 0.0, time.monotonic()
        self._resumed = saved is not None
        if saved is None:
            self._inputs = replace(self._inputs, live_beta=self._beta_of_base())
        else:
            self._restore(saved)

    def inputs(self) -> LearnerInputs:
        """As they are now."""
        return self._inputs

    @property
    def refused(self) -> dict[str, int]:
        """Judgements that cannot be used with this model: why, and how many."""
        reasons = list(self.parts.live_reward.refused.values())
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def run(self, stop: Callable[[], bool] = lambda: False) -> Rebuilt:
        """To the end. Raises Stopped, between two steps, where `stop` says so."""
        written, cost = time.monotonic(), 0.0
        for worked in self.curriculum.work(resumed=self._resumed):
            now = time.monotonic()
            if stop() or not worked or now - written >= cost / CHECKPOINT_SHARE:
                self._keep()
                written = time.monotonic()
                cost = written - now
            if stop():
                raise Stopped
            if not worked:
                break
        self.curriculum.flush()
        shards.meet()
        return self._finish()

    # --- the judgements --------------------------------------------------------------------------------------------------

    def _lessons(self) -> list[Lesson]:
        content = (self._folder / LESSONS).read_bytes()
        if hashlib.sha256(content).hexdigest() != self._request.lessons_sha256:
            raise ModelError(f"{self._folder / LESSONS} is not what the request speaks of", "write it again with tamer train")
        commands = [decode_command(line) for line in content.splitlines()]
        return [lesson for command in commands if isinstance(command, Replay) for lesson in command.lessons]

    def _learned(self) -> LearnerInputs:
        """Ĥ of all judgements, and what else the curriculum is told."""
        reward = self.parts.live_reward
        reward.replay(self.lessons)
        of = reward.waiting
        while reward.advance():
            if reward.waiting % READ_TOLD == 0:
                self._emit(Metrics(stage="human_reward", step=of - reward.waiting, of=of))
        head = reward.fit()
        return replace(self.parts.inputs, head=head, feedback=reward.lessons, head_scores=reward.record, replayed=True)

    def _beta_of_base(self) -> float:
        """Of the base that Ĥ steers, as a sitting's first answers have it: solved on its own answers, and once more on those that it led to."""
        inputs, practice = self._inputs, self._practice
        temperature, budget = self.parts.sampling.temperature, KLBudget(inputs.nats)
        if not inputs.bias or inputs.head.blank:
            return 0.0
        budget.calibrate([trace.visited(temperature) for trace in practice.base_answers()])
        steering = budget.solve(LogitBias(inputs.head), temperature)
        drawn = draw_answers(
            practice.backbone, practice.base, practice.prompts(BETA_ANSWERS), practice.sampling, practice.new_seed(),
            adapter=False, steering=steering, keep_states=True,
        )  # fmt: skip
        budget.start_over([trace.visited(temperature) for trace in drawn if trace.ids])
        return budget.solve(LogitBias(inputs.head), temperature).beta

    # --- versions --------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, Trained | Gated):
            self._told.append(msgspec.json.encode(event))
        self._emit(event)

    def _propose(self, proposal: Proposal) -> None:
        """What passes the gate acts from then on; its files stay, and the last of them is the result."""
        self._compare_ranks()
        verdict, state, sha256 = proposal.verdict, proposal.state, ""
        if verdict.published:
            sha256, blobs = self._store.put(state, BASE_VERSION, proposal.stage)
            if ranks.rank() == 0:
                whole = Assembler()
                for blob in blobs:
                    whole.add(blob)
                write_directory(whole.take(sha256) or {}, self._folder / VERSIONS)
            published = self._store.publish(sha256, BASE_VERSION)
            assert published is not None
            self._live_sha256 = sha256
            beta = verdict.steering.beta if verdict.steering is not None else 0.0
            self._inputs = replace(self._inputs, live=self._of_this_log(published), live_beta=beta)
        self._take(Gated(
            sha256=sha256, parent=BASE_VERSION, stage=proposal.stage, published=verdict.published, reason=verdict.reason, reason_code=verdict.code,
            runs=proposal.runs, seed=self._request.load.seed, kl=verdict.kl, win_rate=verdict.win_rate,
            h_epoch=state.head.epoch if state.head else 0, canary=verdict.canary,
        ))  # fmt: skip

    def _of_this_log(self, state: VersionState) -> VersionState:
        """There is one Ĥ in a run: a version holds the very object, also one that was read from its files."""
        head = self._inputs.head
        return replace(state, head=head, policy=replace(state.policy, absorbed=head if state.policy.absorbed is not None else None))

    def _compare_ranks(self) -> None:
        """All ranks hold the same weights, or nothing that follows is worth anything. Raises ModelError."""
        digest = hashlib.sha256()
        for _, tensor in sorted(lora_state(self._weights.policy).items()):
            digest.update(tensor.cpu().numpy().tobytes())
        if len({*ranks.gathered([digest.hexdigest()])}) > 1:
            raise ModelError("the ranks have come to different weights", "all must run on the same kind of machine; the last checkpoint is whole")

    def _finish(self) -> Rebuilt:
        events = [msgspec.json.decode(line, type=Trained | Gated) for line in self._told]  # type: ignore[arg-type]
        adapter = self._folder / VERSIONS / self._live_sha256 / "adapter_model.safetensors"
        rebuilt = Rebuilt(
            ready=self.parts.ready, sha256=self._live_sha256,
            adapter_sha256=hashlib.sha256(adapter.read_bytes()).hexdigest() if self._live_sha256 and ranks.rank() == 0 else "",
            gated=tuple(each for each in events if isinstance(each, Gated)), runs=tuple(each.run for each in events if isinstance(each, Trained)),
            seconds=self._seconds + time.monotonic() - self._began,
        )  # fmt: skip
        if ranks.rank() == 0:
            part = self._folder / f".{RESULT}"
            part.write_bytes(msgspec.json.format(msgspec.json.encode(rebuilt)))
            part.replace(self._folder / RESULT)
        return rebuilt

    # --- the checkpoint --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        if ranks.rank() == 0:
            checkpoint.write(self._folder / CHECKPOINT, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "request": self._request.sha256, "told": self._told, "live": (self._live_sha256, self._inputs.live_beta),
            "seconds": self._seconds + time.monotonic() - self._began, "curriculum": self.curriculum.checkpoint(),
        }  # fmt: skip

    def _restore(self, saved: dict[str, Any]) -> None:
        sha256, beta = saved["live"]
        live = BASE
        if sha256:
            live = self._of_this_log(unpacked(read_directory(self._folder / VERSIONS / sha256), BASE_VERSION))
        self._live_sha256, self._inputs = sha256, replace(self._inputs, live=live, live_beta=beta)
        self._told, self._seconds = saved["told"], saved["seconds"]
        self.curriculum.restore(saved["curriculum"])


def carried(lessons: Sequence[Lesson]) -> list[Lesson]:
    """What of them means something to another base: texts, which it tokenises itself. A tap is about tokens that it would not have drawn."""
    return [
        replaced(lesson, answers=_texts(lesson.answers), beside=_texts(lesson.beside))
        for lesson in lessons
        if not isinstance(lesson.judgement, Tap | Arm)
    ]


def _texts(answers: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(replaced(answer, prompt_ids=(), token_ids=()) for answer in answers)


def another_base(lessons: Sequence[Lesson], kept: Sequence[Lesson]) -> str:
    """What it means that the judgements were about another base's answers, in words."""
    left = len(lessons) - len(kept)
    taps = f"; {left:,} tap{'s are' if left != 1 else ' is'} left out" if left else ""
    return f"this is another base than the one that was taught: {len(kept):,} judgements carry over by their texts, without token records{taps}"

