"""The engine's own copies of versions: what it published, and what the terminal sent to resume from or roll back to.

A version's directory holds the adapter as PEFT writes it, Ĥ, the reward model, the value head, the SFT reference and a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from learners.human_reward.head import RewardHead
from learners.model.base import Backbone
from learners.model.lora import LoraSettings
from learners.protocol import Blob
from learners.versions.blobs import Assembler, digest, split
from learners.versions.files import Manifest, States, pack, peft_config, unpack
from learners.versions.snapshot import PolicySnapshot, VersionState
from storage.records import BASE_VERSION


class VersionStore:
    """Versions by their sha256. Everything received is untrusted until it is whole and its hash is right."""

    def __init__(self, backbone: Backbone, tree: nn.Module, settings: LoraSettings, seed: int) -> None:
        """`tree` is any tree with an adapter of these settings."""
        self._backbone, self._settings, self._seed = backbone, settings, seed
        self._peft_config = peft_config(settings, tree, backbone.name)
        self._assembler = Assembler()
        self._files: dict[str, Mapping[str, bytes]] = {}

    def receive(self, blob: Blob) -> None:
        """A piece of a version that the terminal sends. Raises BlobError when it cannot be one."""
        self._assembler.add(blob)

    def put(self, state: VersionState, parent: str, stage: str) -> tuple[str, list[Blob]]:
        """Keep what passed the gate; its sha256, and its pieces for the terminal."""
        policy = state.policy
        head = policy.absorbed or state.head
        assert state.head is not None and head is not None
        manifest = Manifest(
            base_hash=self._backbone.base_hash,
            parent=parent,
            stage=stage,
            seed=self._seed,
            seqs=state.seqs,
            h_epoch=state.head.epoch,
            absorbed_beta=policy.absorbed_beta,
            rank=self._settings.rank,
            alpha=self._settings.alpha,
        )
        states = States(policy.lora or {}, head.state(), state.reward_state or {}, state.value_state or {}, state.reference)
        files = pack(states, manifest, self._peft_config)
        sha256 = digest(files)
        self._files[sha256] = files
        return sha256, list(split(files))

    def policy(self, sha256: str, version: str) -> PolicySnapshot | None:
        """What acts when this version is published."""
        found = self.restore(version, sha256)
        return found.policy if found else None

    def restore(self, version: str, sha256: str | None) -> VersionState | None:
        """A version by its hash; the base without one. None when its files are not here or not whole."""
        if sha256 is None:
            return VersionState(PolicySnapshot(BASE_VERSION), None)
        files = self._files.get(sha256) or self._assembler.take(sha256)
        if files is None:
            return None
        self._files[sha256] = files
        states, manifest = unpack(files)
        head = RewardHead.from_state(states.human_reward)
        absorbed = head if manifest.absorbed_beta else None
        policy = PolicySnapshot(version, states.adapter, absorbed, manifest.absorbed_beta)
        return VersionState(policy, head, states.reward_model, states.value_head, states.reference, manifest.seqs)
