"""Answers of versions that need not act, from the real engine. The oracle is a rollback: the version draws alone, as the one that acts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec
import pytest
import torch

from learners import protocol
from learners.engine.generator import Generator
from learners.engine.streamed_answer import of_one_version
from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.model.lora import LoraSettings, lora_state
from learners.protocol import Acting, AnswerRequest, Blob, Command, Ended, Error, Load, Started, Tokens
from learners.versions.blobs import Assembler, digest, split
from learners.versions.files import pack, unpack
from learners.versions.snapshot import PolicySnapshot
from storage.records import Sampling
from tests.learners.engine.test_serving import PROMPTS, SAMPLING, Engine, model, publish
from tests.learners.models import needs_stories, prompt, stories

__all__ = ["model"]


class Sent(NamedTuple):
    """A version as the terminal has it."""

    name: str
    sha256: str
    blobs: tuple[Blob, ...]

    def request(self, uid: str, seed: int = 1) -> AnswerRequest:
        return AnswerRequest(uid=uid, seed=seed, messages=PROMPTS[0], policy="adapter", version=self.name, sha256=self.sha256)


class Taught(NamedTuple):
    """An engine that acts with the first of two versions."""

    engine: Engine
    versions: tuple[Sent, Sent]

    def drawn(self, *requests: AnswerRequest) -> list[list[int]]:
        """Tokens of each."""
        self.engine.draw_all(*requests)
        return [self.engine.ids(request.uid) for request in requests]

    def names(self) -> dict[str, str]:
        return {event.uid: event.version for event in self.engine.seen if isinstance(event, Started)}


class DrawingEngine(Engine):
    """Waits for answers in whatever order they end."""

    def draw_all(self, *requests: AnswerRequest) -> None:
        self.send(protocol.Generate(requests=requests, sampling=SAMPLING))
        left = {request.uid for request in requests}
        while left:
            left.discard(self.until(Ended).uid)


@pytest.fixture
def taught(model: str) -> Iterator[Taught]:
    """The second version is the first with its adapter turned around and larger, so that they differ everywhere."""
    engine = DrawingEngine(Load(model=model, metered=True, sampling=SAMPLING, stages=("distill",), train_prompts=PROMPTS))
    engine.send(protocol.Replay(lessons=(), last=True))
    judged = publish(engine)
    blobs = tuple(event for event in engine.seen if isinstance(event, Blob) and event.sha256 == judged.sha256)
    whole = Assembler()
    for blob in blobs:
        whole.add(blob)
    files = whole.take(judged.sha256)
    assert files is not None
    states, manifest = unpack(files)
    turned = {name: -4 * tensor if "lora_B" in name else tensor for name, tensor in states.adapter.items()}
    other = pack(replace(states, adapter=turned), manifest, msgspec.json.decode(files["adapter_config.json"]))
    engine.send(protocol.PublishAck(sha256=judged.sha256, version="v1"))
    engine.until(Acting)
    yield Taught(engine, (Sent("v1", judged.sha256, blobs), Sent("v2", digest(other), tuple(split(other)))))
    engine.send(protocol.Set(paused=True))


def test_a_version_draws_what_it_draws_when_it_acts_and_the_acting_one_is_there_again_afterwards(taught: Taught) -> None:
    engine, (first, second) = taught.engine, taught.versions
    acting = [AnswerRequest(uid=f"acting {when}", seed=1, messages=PROMPTS[0]) for when in ("before", "after")]
    base = AnswerRequest(uid="base", seed=1, messages=PROMPTS[0], policy="base")
    (before,) = taught.drawn(acting[0])
    engine.send(*first.blobs, *second.blobs)
    mixed = taught.drawn(second.request("second"), acting[1], base, first.request("first"))
    assert mixed[1] == before
    assert [taught.names()[uid] for uid in ("second", "acting after", "base", "first")] == ["v2", "v1", "base", "v1"]
    for version, uid, found in ((second, "second alone", mixed[0]), (first, "first alone", mixed[3])):
        engine.send(*version.blobs, protocol.Rollback(version=version.name, sha256=version.sha256))
        alone = AnswerRequest(uid=uid, seed=1, messages=PROMPTS[0], policy="adapter")
        assert taught.drawn(alone)[0] == found
    engine.send(protocol.Rollback(version="base"))
    assert taught.drawn(msgspec.structs.replace(base, uid="base alone"))[0] == mixed[2]
    assert mixed[0] not in (mixed[2], mixed[3]), "versions can be told apart"
    kl = {event.uid: event.kl for event in engine.seen if isinstance(event, Ended)}
    assert kl["base"] == 0 and kl["second"] > 0.1 and kl["first"] > 0


def test_what_waits_behind_another_version_is_stopped_and_the_rest_is_drawn(taught: Taught) -> None:
    engine, (first, second) = taught.engine, taught.versions
    long = Sampling(1.0, 400)
    engine.send(*first.blobs, *second.blobs)
    engine.send(protocol.Generate(requests=(first.request("one"), second.request("other")), sampling=long))
    engine.until(Tokens)
    engine.send(protocol.Stop())
    ended = {event.uid: event for event in (engine.until(Ended), engine.until(Ended))}
    assert {event.reason for event in ended.values()} == {"stopped"} and ended["other"].n_tokens == 0 < ended["one"].n_tokens
    assert taught.drawn(AnswerRequest(uid="on", seed=2, messages=PROMPTS[1]))[0]


def test_a_judgement_while_another_version_draws_steers_the_acting_one_alone(taught: Taught) -> None:
    engine, (_, second) = taught.engine, taught.versions
    engine.send(*second.blobs)
    (expected,) = taught.drawn(second.request("undisturbed"))
    engine.send(protocol.Generate(requests=(second.request("disturbed"),), sampling=SAMPLING), protocol.Retract(seq=1), protocol.Set(nats=3.0))
    assert engine.until(Acting).version == "v1"
    engine.until(Ended, lambda event: event.uid == "disturbed")
    assert engine.ids("disturbed") == expected


def test_a_version_that_is_not_here_is_told_for_its_answer_and_the_others_are_drawn(taught: Taught) -> None:
    engine, (first, second) = taught.engine, taught.versions
    damaged = [msgspec.structs.replace(second.blobs[0], data=second.blobs[0].data[:-1] + b"?"), *second.blobs[1:]]
    for sent, line in ((tuple[Command, ...](), "is not here"), (tuple(damaged), "not what their hash says")):
        engine.send(*sent, *first.blobs)
        engine.send(protocol.Generate(requests=(second.request("missing"), first.request("there")), sampling=SAMPLING))
        error = engine.until(Error)
        assert error.uid == "missing" and line in error.what
        assert engine.until(Ended).uid == "there"


@pytest.mark.parametrize(("drawn_by", "now"), [("ab", "a"), ("-a", "-a"), ("a-b-", "a--"), ("aab", "aa"), ("--", "--"), ("-", "-")])
def test_one_batch_is_of_one_version_and_the_base(drawn_by: str, now: str) -> None:
    requests = [
        AnswerRequest(uid=str(i), seed=0, messages=(), policy="base" if by == "-" else "adapter", sha256=None if by == "-" else by)
        for i, by in enumerate(drawn_by)
    ]
    first, later = of_one_version(requests)
    assert "".join(request.sha256 or "-" for request in first) == now
    assert sorted([*first, *later], key=lambda request: request.uid) == requests


@needs_stories
def test_the_budget_is_not_met_on_answers_of_another_version() -> None:
    backbone, features = stories(), Features(torch.zeros(64), torch.eye(64))
    head = RewardHead(1, torch.tensor([300, 400]), torch.ones(2, 65), features, 0.5)
    generator = Generator(backbone, backbone.adapter_tree(LoraSettings()), head, 6.0, True, lambda event: None)
    prompts = [tuple(prompt(backbone))]
    with generator.lending(PolicySnapshot("v1", lora_state(generator.actor))):
        assert not generator.calibrate_beta(prompts, SAMPLING)
        assert generator.beta == 0
    assert generator.calibrate_beta(prompts, SAMPLING) and generator.beta > 0
