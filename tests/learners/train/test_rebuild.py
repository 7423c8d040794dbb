"""A policy is a function of its judgements: the same bytes each time, also after kills; and what a run says when something is wrong."""

from __future__ import annotations

import copy
import functools
import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace as replaced
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import OffloadPolicy

from learners.curriculum.distill_stage import DistillPlan
from learners.curriculum.gate import GateSettings
from learners.curriculum.ppo_stage import PPOPlan
from learners.curriculum.reward_stage import RewardPlan
from learners.curriculum.sft_stage import SFTPlan
from learners.engine.assembly import Parts, assemble
from learners.human_reward.online import OnlineHumanReward
from learners.model import shards
from learners.model.checkpoint import ModelError
from learners.model.lora import load_lora, lora_state
from learners.protocol import Answer, Event, Lesson, Load, Metrics, Notice, Replay, encode
from learners.rlhf.rollouts import draw_answers
from learners.train import __main__ as command
from learners.train import rebuild
from learners.train.plan import planned
from learners.train.rebuild import Rebuild, Stopped
from learners.train.request import CHECKPOINT, LESSONS, REQUEST, RESULT, Rebuilt, TrainRequest, read_request
from storage.records import Correction, Message, Ranking, Sampling, Tap
from tests.learners.models import STORIES, cpu_only, needs_stories
from tests.learners.processes import in_processes

pytestmark = [needs_stories, cpu_only]
SAMPLING = Sampling(1.0, 8)
ITERATIONS = 2
STAGES = ("sft", "distill", "reward", "ppo")
PROMPTS = tuple((Message("user", f"Once upon a time, there was a {noun}"),) for noun in ("dog", "cat", "girl", "king"))


@pytest.fixture(autouse=True, scope="module")
def short() -> Iterator[None]:
    """A few steps of each stage, over a model that is loaded once: each run gets it with its trees as they are after loading."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("learners.curriculum.sft_stage.SFTPlan", lambda: SFTPlan(steps=2))
        patch.setattr("learners.curriculum.reward_stage.RewardPlan", lambda: RewardPlan(steps=2, steps_per_item=0, batch=2))
        patch.setattr("learners.curriculum.distill_stage.DistillPlan", lambda: DistillPlan(steps=4, again=2, batch=3, redraw=2, pool=5))
        patch.setattr("learners.curriculum.ppo_stage.PPOPlan", lambda: PPOPlan(prompts=2, answers=2, iterations=1))
        patch.setattr("learners.curriculum.gate.GateSettings", lambda: GateSettings(prompts=2, answers=2, looks=1))
        patch.setattr("learners.curriculum.practice.PROBE_ANSWERS", 4)
        patch.setattr("learners.curriculum.canary.NEUTRAL_PROMPTS", ("What is it?",))
        patch.setattr("learners.curriculum.canary.NEUTRAL_TOKENS", 4)
        patch.setattr("learners.train.rebuild.assemble", as_new)
        yield


@pytest.fixture(scope="module")
def lessons() -> tuple[Lesson, ...]:
    """Rankings by the letter e, a correction and a tap."""
    backbone = loaded()[0].backbone
    made: list[Lesson] = []
    for seq, messages in enumerate(PROMPTS, 1):
        ids = tuple(backbone.encode(messages))
        traces = draw_answers(backbone, backbone.model, [ids] * 4, SAMPLING, seq * 100, adapter=False)
        answers = [
            Answer(uid=f"{seq}/{i}", messages=messages, text=backbone.decode(t.ids), prompt_ids=ids, token_ids=tuple(t.ids), stop="length")
            for i, t in enumerate(traces)
        ]
        order = sorted(answers, key=lambda answer: -answer.text.count("e"))
        made.append(Lesson(seq=seq, judgement=Ranking("s", {a.uid: i + 1 for i, a in enumerate(order)}), answers=tuple(answers)))
    answer = made[0].answers[0]
    made.append(Lesson(seq=9, judgement=Correction("s", answer.uid, answer.text + " They were happy."), answers=(answer,)))
    seconds = tuple(float(i) for i in range(len(answer.token_ids)))
    made.append(Lesson(seq=10, judgement=Tap("s", answer.uid, 1.0, "+", 3.2, ""), answers=(answer,), shown=seconds))
    return tuple(made)


def prepared(folder: Path, lessons: tuple[Lesson, ...], base_hash: str = "", iterations: int = ITERATIONS) -> TrainRequest:
    folder.mkdir(exist_ok=True)
    content = encode(Replay(lessons=lessons, last=True))
    (folder / LESSONS).write_bytes(content)
    load = Load(model=str(STORIES), quantize="none", device="cpu", nats=12.0, metered=True, sampling=SAMPLING, train_prompts=PROMPTS, bias=False)
    request = TrainRequest(load=load, iterations=iterations, base_hash=base_hash, lessons_sha256=hashlib.sha256(content).hexdigest())
    (folder / REQUEST).write_bytes(msgspec.json.encode(request))
    return request


@functools.cache
def loaded() -> tuple[Parts, list[dict[str, Tensor]]]:
    load = Load(model=str(STORIES), quantize="none", device="cpu", nats=12.0, metered=True, sampling=SAMPLING, train_prompts=PROMPTS, bias=False)
    parts = assemble(load, ignore)
    return parts, [lora_state(tree) for tree in adapted(parts)]


def adapted(parts: Parts) -> tuple[nn.Module, ...]:
    return parts.trees.policy, parts.trees.reference, parts.trees.reward


def as_new(load: Load, emit: Callable[[Event], None]) -> Parts:
    parts, weights = loaded()
    for tree, state in zip(adapted(parts), weights, strict=True):
        load_lora(tree, state)
    own, dataset = parts.live_reward, copy.copy(parts.live_reward._dataset)
    vars(dataset).update({name: copy.copy(value) for name, value in vars(dataset).items() if isinstance(value, dict)})
    reward = OnlineHumanReward(dataset, own._human_reward.features, own._states._states_before, own._human_reward.similarity)
    return replace(parts, live_reward=reward)


def ignore(event: object) -> None:
    pass


def trained(folder: Path) -> Rebuilt:
    return Rebuild(folder, read_request(folder), ignore).run()


def in_a_process(work: Callable[[], Any]) -> Any:
    """A child that has loaded what this process has."""

    def run() -> None:
        work()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


@pytest.fixture(scope="module")
def whole(lessons: tuple[Lesson, ...], tmp_path_factory: pytest.TempPathFactory) -> Rebuilt:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    prepared(folder, lessons)
    return trained(folder)


def result(folder: Path) -> Rebuilt:
    return msgspec.json.decode((folder / RESULT).read_bytes(), type=Rebuilt)


def test_a_run_goes_through_all_stages_and_names_what_it_learned_from(whole: Rebuilt) -> None:
    assert whole.sha256, "a version passed the gate"
    assert {run.stage for run in whole.runs} == {"sft", "distill", "reward", "ppo"}
    assert sum(run.steps for run in whole.runs if run.stage == "ppo") == ITERATIONS
    assert {*whole.runs[1].seqs} == {1, 2, 3, 4, 9, 10}
    assert [event.stage for event in whole.gated][:2] == ["sft", "distill"]


def test_two_kills_at_random_moments_leave_no_trace_in_the_result(
    whole: Rebuilt, lessons: tuple[Lesson, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learners.train.rebuild.CHECKPOINT_SHARE", 1e9)  # one after each step, however fast the machine
    killed = tmp_path / "killed"
    prepared(killed, lessons)
    choice, kills = random.Random(), 0
    checkpoint = killed / CHECKPOINT
    while not (killed / RESULT).exists():
        process = in_a_process(lambda: trained(killed))
        seen: set[int] = set()
        most = choice.randint(2, 6)  # checkpoints that it may write
        while process.is_alive() and (kills == 2 or len(seen) < most):
            if checkpoint.exists():
                seen.add(checkpoint.stat().st_mtime_ns)
            time.sleep(0.002)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    assert kills == 2
    assert result(killed).sha256 == whole.sha256
    assert result(killed).adapter_sha256 == whole.adapter_sha256
    assert [(run.stage, run.steps, run.seqs) for run in result(killed).runs] == [(run.stage, run.steps, run.seqs) for run in whole.runs]
    assert result(killed).gated == tuple(replaced(g, runs=k.runs) for g, k in zip(whole.gated, result(killed).gated, strict=True))


def test_a_run_goes_on_from_any_step_to_the_same_bytes(whole: Rebuilt, lessons: tuple[Lesson, ...], tmp_path: Path) -> None:
    """Left after each second step, with the trees as new afterwards: whatever a step depends on is in the checkpoint."""
    prepared(tmp_path / "steps", lessons)
    left = 0
    while True:
        rebuild = Rebuild(tmp_path / "steps", read_request(tmp_path / "steps"), ignore)
        taken = iter((False, False))
        try:
            last = rebuild.run(lambda: next(taken, True))  # noqa: B023
            break
        except Stopped:
            left += 1
    assert left > 8
    assert last.sha256 == whole.sha256


def test_a_checkpoint_of_another_run_and_a_damaged_one_are_refused_in_a_line(lessons: tuple[Lesson, ...], tmp_path: Path) -> None:
    prepared(tmp_path / "run", lessons)
    with pytest.raises(Stopped):
        Rebuild(tmp_path / "run", read_request(tmp_path / "run"), ignore).run(lambda: True)
    other = prepared(tmp_path / "run", lessons, iterations=7)
    with pytest.raises(ModelError, match="another run"):
        Rebuild(tmp_path / "run", other, ignore)
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        Rebuild(tmp_path / "run", other, ignore)
    (tmp_path / "run" / LESSONS).write_bytes(b"")
    with pytest.raises(ModelError, match="not what the request speaks of"):
        Rebuild(tmp_path / "run", other, ignore)


def test_on_another_base_texts_carry_over_and_taps_and_tokens_do_not(lessons: tuple[Lesson, ...], tmp_path: Path) -> None:
    events: list[Any] = []
    request = prepared(tmp_path / "other", lessons, base_hash="f" * 64)
    rebuild = Rebuild(tmp_path / "other", request, events.append)
    assert rebuild.inputs().feedback.seqs == (1, 2, 3, 4, 9)
    assert all(answer.token_ids == () for lesson in rebuild.lessons for answer in lesson.answers)
    assert any("another base" in event.what and "1 tap" in event.what for event in events if isinstance(event, Notice))
    plan = planned(rebuild, request)
    assert (plan.judgements, plan.carried) == (5, 5)
    assert plan.left_out == {"taps mean nothing to another base": 1}
    assert [(cost.stage, cost.steps) for cost in plan.stages] == [("sft", 40), ("distill", 60), ("reward", 20), ("ppo", ITERATIONS)]
    assert all(cost.tokens > 0 and cost.seconds > 0 for cost in plan.stages)


def test_a_rank_that_dies_ends_the_run_with_a_line_and_what_was_trained_stays(
    lessons: tuple[Lesson, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    prepared(folder, lessons)
    said: list[Path] = [tmp_path / "0", tmp_path / "1"]
    monkeypatch.setenv("WORLD_SIZE", "2")

    def train(rank: int) -> None:
        os.environ["RANK"] = str(rank)
        distributed.init_process_group("gloo", f"file://{tmp_path}/group", timedelta(seconds=60), 2, rank)
        try:
            trained(folder)
        except Exception as error:
            said[rank].write_text(command._failure(error, folder).what)

    processes = [in_a_process(lambda rank=rank: train(rank)) for rank in range(2)]
    while not (folder / CHECKPOINT).exists():
        time.sleep(0.01)
    os.kill(processes[1].pid, signal.SIGKILL)
    began = time.monotonic()
    for process in processes:
        process.join()
    assert time.monotonic() - began < 30, "it does not wait for who is gone"
    assert said[0].read_text() == "rank 0: another rank is gone"
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(Stopped):  # after one more step
        rebuild = Rebuild(folder, read_request(folder), ignore)
        taken = iter((False,))
        rebuild.run(lambda: next(taken, True))


def test_two_ranks_over_shards_learn_what_two_learn_that_hold_the_base(lessons: tuple[Lesson, ...], tmp_path: Path) -> None:
    """Up to rounding: products over memory of another alignment differ in the last bits."""

    def run(folder: Path, sharded: bool) -> list[tuple[str, float]]:
        if sharded:
            shards.ask_for(shards.Sharding(OffloadPolicy()))
            rebuild.assemble = assemble  # loads it anew, in this child alone
        told: list[Event] = []
        assert Rebuild(folder, read_request(folder), told.append).run().sha256, "a version passed the gate"
        return [(event.stage, event.loss) for event in told if isinstance(event, Metrics) and event.stage in STAGES]

    found = []
    for name in ("whole", "sharded"):
        prepared(tmp_path / name, lessons)
        (tmp_path / f"{name}-group").mkdir()
        found.append(in_processes(lambda name=name: run(tmp_path / name, name == "sharded"), tmp_path / f"{name}-group")[0])
    whole, sharded = found
    assert [stage for stage, _ in sharded] == [stage for stage, _ in whole] and {*STAGES} == {stage for stage, _ in whole}
    assert [loss for _, loss in sharded] == pytest.approx([loss for _, loss in whole], rel=1e-2, abs=1e-3)
