"""The engine's own versions: what it published, and what the terminal sent to resume from or roll back to.

Kept are the values in memory that may be needed, not the bytes: the terminal has those on disk and sends them again for a rollback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from learners.human_reward.head import RewardHead
from learners.model.base import Backbone
from learners.model.lora import LoraSettings
from learners.protocol import BLOB_CHUNK, Blob
from learners.versions.blobs import Assembler, BlobError, digest, split
from learners.versions.files import Manifest, States, pack, peft_config, unpack
from learners.versions.fitting import Fit
from learners.versions.snapshot import BASE, Distilled, PolicySnapshot, VersionState

MOST_PROPOSED = 2
"""Versions that are remembered until the terminal acknowledges them; beyond that the oldest is forgotten."""
MOST_LENT = 2
"""Adapters that are kept to draw beside the one that acts."""


class VersionStore:
    """Versions by their sha256. Everything received is untrusted until it is whole and its hash is right.

    Used by two threads: `put` by the learner's, all else by the generator's. Each operation on the dictionaries is a single one.
    """

    def __init__(self, backbone: Backbone, tree: nn.Module, settings: LoraSettings, seed: int, piece: int = BLOB_CHUNK) -> None:
        """`tree` is any tree with an adapter of these settings; `piece` are the bytes of a blob that is published."""
        self._backbone, self._settings, self._seed, self._piece = backbone, settings, seed, piece
        self._peft_config = peft_config(settings, tree, backbone.name)
        self._fit = Fit.of(tree, backbone.width, backbone.vocabulary)
        self._assembler = Assembler()
        self._proposed: dict[str, VersionState] = {}
        self._withdrawn: frozenset[str] = frozenset()
        self._live: tuple[str, VersionState] | None = None
        self._lent: dict[str, PolicySnapshot] = {}

    def receive(self, blob: Blob) -> None:
        """A piece of a version that the terminal sends. Raises BlobError when it cannot be one."""
        self._assembler.add(blob)

    def put(self, state: VersionState, parent: str, stage: str) -> tuple[str, list[Blob]]:
        """Remember what passed the gate until it is published; its sha256, and its pieces for the terminal."""
        files = pack(_states(state), self._manifest(state, parent, stage), self._peft_config)
        sha256 = digest(files)
        proposed = {**self._proposed, sha256: state}
        self._proposed = dict(list(proposed.items())[-MOST_PROPOSED:])
        return sha256, list(split(files, self._piece))

    def publish(self, sha256: str, version: str) -> VersionState | None:
        """What passed the gate, under the id that the terminal gave it: the very tensors that were proposed. None when it is not here."""
        state = self._proposed.get(sha256)
        if state is None:
            return self.restore(version, sha256)
        self._proposed = {}
        return self._act(sha256, version, state)

    def withdraw(self) -> None:
        """What was proposed so far is not to act any more."""
        self._withdrawn, self._proposed = self._withdrawn | self._proposed.keys(), {}

    def withdrawn(self, sha256: str) -> bool:
        """Whether a version was proposed and then withdrawn."""
        return sha256 in self._withdrawn

    def restore(self, version: str, sha256: str | None) -> VersionState | None:
        """A version whose blobs were sent, or that acts; the base without a hash. None when it is not here.

        Raises BlobError when its bytes are not whole, VersionError when they cannot be used with this model.
        """
        if sha256 is None:
            self._live = None
            return BASE
        files = self._assembler.take(sha256)
        if files is not None:
            return self._act(sha256, version, self._fit.usable(unpacked(files, version)))
        return self._act(sha256, version, self._live[1]) if self._live is not None and self._live[0] == sha256 else None

    def lend(self, version: str, sha256: str) -> PolicySnapshot:
        """A version's adapter, whether it acts or not; its blobs were sent. Raises BlobError when it is not here whole, VersionError."""
        files = self._assembler.take(sha256)
        if files is not None:
            adapter = PolicySnapshot(version, self._fit.usable(unpacked(files, version)).policy.lora)
            self._lent = dict(list({**self._lent, sha256: adapter}.items())[-MOST_LENT:])
        if sha256 not in self._lent:
            raise BlobError(f"version {version} is not here")
        return self._lent[sha256]

    def _act(self, sha256: str, version: str, state: VersionState) -> VersionState:
        named = replace(state, policy=replace(state.policy, version=version))
        self._live = (sha256, named)
        return named

    def _manifest(self, state: VersionState, parent: str, stage: str) -> Manifest:
        assert state.head is not None
        distilled = state.distilled
        return Manifest(
            base_hash=self._backbone.base_hash,
            parent=parent,
            stage=stage,
            seed=self._seed,
            seqs=state.seqs,
            h_epoch=state.head.epoch,
            absorbed_beta=state.policy.absorbed_beta,
            rank=self._settings.rank,
            alpha=self._settings.alpha,
            reference_seqs=state.reference_seqs,
            reward_seqs=state.reward_seqs,
            reward_steps=state.reward_steps,
            distilled_seqs=tuple(sorted(distilled.seqs)) if distilled else None,
            distilled_nats=distilled.nats if distilled else None,
            critiques=tuple(sorted(state.policy.critiques)),
        )


def _states(state: VersionState) -> States:
    head = state.policy.absorbed or state.head
    assert head is not None
    return States(state.policy.lora or {}, head.state(), state.reward_state or {}, state.value_state or {}, state.reference)


def unpacked(files: Mapping[str, bytes], version: str) -> VersionState:
    """A version from its files. Raises VersionError when they are not what they should be."""
    states, manifest = unpack(files)
    head = RewardHead.from_state(states.human_reward)
    absorbed = (head if manifest.absorbed_beta else None, manifest.absorbed_beta, frozenset(manifest.critiques))
    policy = PolicySnapshot(version, states.adapter, *absorbed)
    reward = states.reward_model or None
    return VersionState(
        policy,
        head,
        reward,
        _value_state(states, manifest),
        states.reference,
        manifest.seqs,
        _known(manifest.reference_seqs, manifest, states.reference is not None),
        _known(manifest.reward_seqs, manifest, reward is not None),
        manifest.reward_steps,
        _distilled(manifest),
    )


def _value_state(states: States, manifest: Manifest) -> Mapping[str, Tensor] | None:
    """Old versions carry one that PPO had not begun with, or that belonged to weights from before a later stage."""
    return states.value_head if states.value_head and manifest.stage == "ppo" else None


def _known(seqs: tuple[int, ...] | None, manifest: Manifest, learned: bool) -> tuple[int, ...]:
    """Old versions do not say what reference and reward model learned from: at most from what was live."""
    return seqs if seqs is not None else manifest.seqs if learned else ()


def _distilled(manifest: Manifest) -> Distilled | None:
    if manifest.distilled_seqs is None or manifest.distilled_nats is None:
        return None
    return Distilled(frozenset(manifest.distilled_seqs), manifest.distilled_nats)
