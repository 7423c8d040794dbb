"""What the engine keeps of versions: values that may be needed, and no bytes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from learners.human_reward.features import Features
from learners.human_reward.head import RewardHead
from learners.model.lora import LoraSettings
from learners.protocol import Blob
from learners.versions.blobs import BlobError, digest, split
from learners.versions.files import Manifest, States, VersionError, pack
from learners.versions.snapshot import Distilled, PolicySnapshot, VersionState
from learners.versions.store import MOST_PROPOSED, VersionStore


class Tree(torch.nn.Module):
    """A layer with an adapter."""

    def __init__(self, rank: int = 2) -> None:
        super().__init__()
        self.peft_config = {"default": SimpleNamespace(to_dict=lambda: {"peft_type": "LORA"})}
        self.layer = torch.nn.Module()
        self.layer.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(rank, 2, bias=False)})


BACKBONE: Any = SimpleNamespace(base_hash="b" * 64, name="tiny", width=3, vocabulary=9)
REWARD = {
    "lora.layer.lora_B.default.weight": torch.ones(2, 2), "head.weight": torch.ones(1, 3), "head.bias": torch.ones(1), "normalisation": torch.ones(2)
}  # fmt: skip
VALUE = {"weight": torch.ones(1, 3), "bias": torch.zeros(1)}


@pytest.fixture
def store() -> VersionStore:
    return VersionStore(BACKBONE, Tree(), LoraSettings(), 7)


def head(epoch: int) -> RewardHead:
    return RewardHead(epoch, torch.tensor([1, 5]), torch.randn(2, 4), Features(torch.zeros(3), torch.eye(3)), 0.5)


def version(number: int, value: float | None = None) -> VersionState:
    mine = head(number)
    return VersionState(
        PolicySnapshot("", {"layer.lora_B.weight": torch.full((2, 2), float(number))}, mine, 1.5),
        mine,
        reward_state=REWARD,
        value_state=None if value is None else {**VALUE, "kl": torch.tensor([value, 6.0])},
        reference={"layer.lora_B.weight": torch.zeros(2, 2)},
        seqs=(1, 2, number),
        reference_seqs=(2,),
        reward_seqs=(1,),
        reward_steps=14,
        distilled=Distilled(frozenset({1, 2}), 6.0),
    )


def in_memory(store: VersionStore) -> int:
    """Bytes of files that it still holds."""
    seen: set[int] = set()

    def size(thing: object) -> int:
        if id(thing) in seen:
            return 0
        seen.add(id(thing))
        if isinstance(thing, bytes):
            return len(thing)
        if isinstance(thing, dict):
            return sum(map(size, thing.values()))
        if isinstance(thing, list | tuple):
            return sum(map(size, thing))
        return size(vars(thing)) if type(thing).__module__.startswith("learners") and hasattr(thing, "__dict__") else 0

    return size(vars(store))


def test_a_published_version_acts_with_the_very_head_that_was_absorbed(store: VersionStore) -> None:
    proposed = version(3)
    sha256, _ = store.put(proposed, "base", "distill")
    published = store.publish(sha256, "v1")
    assert published is not None and published.policy.version == "v1"
    assert published.policy.absorbed is proposed.policy.absorbed, "what steers is recognised as absorbed"
    assert not published.policy.steering(proposed.head or head(0), 1.5).active
    assert store.restore("v1", sha256) is not None, "what acts is here without its blobs"


def test_no_bytes_and_few_versions_are_kept_however_many_are_published(store: VersionStore) -> None:
    sent: dict[str, list[Blob]] = {}
    for number in range(20):
        sha256, blobs = store.put(version(number), "base", "ppo")
        sent[sha256] = blobs
        assert store.publish(sha256, f"v{number}") is not None
    assert in_memory(store) == 0
    first = next(iter(sent))
    assert store.restore("v0", first) is None, "another version needs its blobs again"
    for blob in sent[first]:
        store.receive(blob)
    restored = store.restore("v0", first)
    assert restored is not None and restored.seqs == (1, 2, 0) and in_memory(store) == 0


def test_what_is_never_acknowledged_is_forgotten(store: VersionStore) -> None:
    hashes = [store.put(version(number), "base", "ppo")[0] for number in range(MOST_PROPOSED + 1)]
    assert store.publish(hashes[0], "v1") is None
    assert store.publish(hashes[1], "v2") is not None


def test_a_version_comes_back_from_its_bytes_as_it_was(store: VersionStore) -> None:
    state = version(3, value=0.25)
    sha256, blobs = store.put(state, "v1", "ppo")
    other = VersionStore(BACKBONE, Tree(), LoraSettings(), 7)
    for blob in blobs:
        other.receive(blob)
    back = other.restore("v2", sha256)
    assert back is not None and back.head is not None and back.value_state is not None
    assert (back.seqs, back.reference_seqs, back.reward_seqs, back.reward_steps) == ((1, 2, 3), (2,), (1,), 14)
    assert back.distilled == state.distilled and back.policy.absorbed_beta == 1.5
    assert back.value_state["kl"].tolist() == [0.25, 6.0]


def test_damaged_bytes_are_refused_and_nothing_changes(store: VersionStore) -> None:
    sha256, _ = store.put(version(1), "base", "ppo")
    store.publish(sha256, "v1")
    store.receive(Blob(sha256="c" * 64, name="manifest.json", index=0, count=1, data=b"{}"))
    with pytest.raises(BlobError):
        store.restore("v9", "c" * 64)
    assert store.restore("v1", sha256) is not None


def old_files(stage: str) -> dict[str, bytes]:
    """As the program wrote them before it recorded what reference and reward model had learned from."""
    manifest = Manifest("b" * 64, "base", stage, 7, (1, 2, 3), h_epoch=3, absorbed_beta=1.5, rank=16, alpha=32.0)
    known = msgspec.json.decode(msgspec.json.encode(manifest))
    old = {
        name: value
        for name, value in known.items()
        if name not in {"reference_seqs", "reward_seqs", "reward_steps", "distilled_seqs", "distilled_nats"}
    }
    tensors = {"layer.lora_B.weight": torch.ones(2, 2)}
    states = States(tensors, head(3).state(), REWARD, {**VALUE, "kl": torch.tensor([0.4, 6.0])}, tensors)
    return {**pack(states, manifest, {}), "manifest.json": msgspec.json.encode(old)}


@pytest.mark.parametrize("stage", ["distill", "ppo"])
def test_an_old_version_opens_with_what_it_may_have_learned_from_at_most(store: VersionStore, stage: str) -> None:
    files = old_files(stage)
    for blob in split(files):
        store.receive(blob)
    state = store.restore("v1", digest(files))
    assert state is not None and state.seqs == state.reference_seqs == state.reward_seqs == (1, 2, 3)
    assert state.reward_steps is None and state.distilled is None
    assert (state.value_state is not None) == (stage == "ppo"), "an old value head belongs to its weights only where PPO trained last"


def sent(store: VersionStore, state: VersionState) -> str:
    """Another engine's version, whose bytes the terminal sent."""
    sha256, blobs = VersionStore(BACKBONE, Tree(), LoraSettings(), 7).put(state, "base", "ppo")
    for blob in blobs:
        store.receive(blob)
    return sha256


@pytest.mark.parametrize("part", ["adapter", "reference", "head"])
def test_a_version_of_another_rank_or_with_other_layers_is_refused_before_anything_acts(store: VersionStore, part: str) -> None:
    for wrong in ({}, {"layer.lora_B.weight": torch.ones(2, 4)}, {"other.lora_B.weight": torch.ones(2, 2)}):
        state = version(1)
        if part == "adapter":
            state = replace(state, policy=replace(state.policy, lora=wrong))
        elif part == "reference":
            state = replace(state, reference=wrong)
        else:
            features = Features(torch.zeros(4), torch.eye(4))
            for other in (RewardHead(1, torch.tensor([1]), torch.randn(1, 5), features), replace(head(1), tokens=torch.tensor([1, 9]))):
                with pytest.raises(VersionError):
                    store.restore("v1", sent(store, replace(state, head=other, policy=replace(state.policy, absorbed=other))))
            return
        with pytest.raises(VersionError):
            store.restore("v1", sent(store, state))
        assert store._live is None


def test_a_reward_model_or_a_value_head_of_another_release_is_left_out_and_learned_again(store: VersionStore) -> None:
    state = replace(version(1, value=0.5), reward_state={**REWARD, "head.weight": torch.ones(1, 4)}, value_state={"kl": torch.ones(2)})
    found = store.restore("v1", sent(store, state))
    assert found is not None and found.policy.lora is not None and (found.reward_state, found.value_state) == (None, None)
    assert (found.reward_seqs, found.reward_steps, found.seqs) == ((), 0, (1, 2, 1))
