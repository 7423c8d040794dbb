"""The policy's weights and what belongs to them: one owner, on the learner's thread.

Whoever puts other weights into the policy tree does it here, and each such replacement begins a generation. What holds of one generation alone
(optimizer moments, PPO's value head and KL coefficient, the weights that it takes back) is made anew by the stages for the next one; what is known
of the weights themselves (which judgements influenced them, what of Ĥ they have absorbed) is their `Lineage` and is replaced with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from learners.human_reward.head import RewardHead
from learners.model.lora import copy_lora, load_lora, lora_state
from learners.protocol import Stage
from learners.versions.snapshot import Distilled, PolicySnapshot, VersionState
from storage.records import BASE_VERSION

NO_SEQS: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LearnerTrees:
    """One for each role: `base` carries no adapter, `reference` what the policy is held to."""

    base: nn.Module
    policy: nn.Module
    reference: nn.Module
    reward: nn.Module


@dataclass(frozen=True)
class Lineage:
    """Where the weights in the policy tree come from."""

    parent: str = BASE_VERSION  # the version whose weights training began from
    runs: tuple[str, ...] = ()  # since then
    seqs: frozenset[int] = NO_SEQS  # judgements that influenced the weights
    head: RewardHead | None = None  # Ĥ of the last of those
    absorbed: RewardHead | None = None
    absorbed_beta: float = 0.0
    critiques: frozenset[int] = NO_SEQS  # judgements in words that they have absorbed
    distilled: Distilled | None = None  # the last distillation that was brought to its end
    trained_by: Stage | None = None  # last, in this generation
    value_state: Mapping[str, Tensor] | None = None  # what PPO goes on with when it goes on with a version of its own
    to_gate: Stage | None = None  # the last that changed the weights since the gate saw them

    @staticmethod
    def of(state: VersionState) -> Lineage:
        """Of a published version; only PPO goes on with what it had (files.py keeps a value head for no other)."""
        policy = state.policy
        return Lineage(
            parent=policy.version,
            seqs=frozenset(state.seqs),
            head=state.head,
            absorbed=policy.absorbed,
            absorbed_beta=policy.absorbed_beta,
            critiques=policy.critiques,
            distilled=state.distilled,
            trained_by="ppo" if state.value_state else None,
            value_state=state.value_state,
        )


_PLAIN = ("parent", "runs", "absorbed_beta", "trained_by", "value_state", "to_gate")
"""Fields of a lineage that are plain values."""


class PolicyWeights:
    """Owns the policy tree and the reference tree. The reference is the base, or the SFT adapter on it."""

    def __init__(self, policy: nn.Module, reference: nn.Module) -> None:
        self.policy, self.reference = policy, reference
        self.generation = self.reference_generation = 0  # times that other weights came into the policy tree, and into the reference
        self.lineage = Lineage()
        self.imitates = False  # whether the reference carries an SFT adapter
        self.reference_seqs: frozenset[int] = NO_SEQS  # demonstrations and corrections that it imitates
        self._reference_runs: tuple[str, ...] = ()

    # --- other weights ---------------------------------------------------------------------------------------------

    def replace(self, state: VersionState) -> None:
        """Go on from a version, and from the reference that it was trained against."""
        self._load_reference(state.reference, frozenset(state.reference_seqs))
        self._load(state.policy.lora, Lineage.of(state))

    def return_to(self, state: VersionState) -> None:
        """Give up what was trained since a version. A distillation that the gate did not let pass is not tried again until Ĥ changes."""
        self._load(state.policy.lora, replace(Lineage.of(state), distilled=self.lineage.distilled))

    def start_from_base(self) -> None:
        """Training starts over."""
        self._load(None, Lineage())

    def start_from_reference(self) -> None:
        """Training starts over from the base, or from the SFT adapter."""
        self._load(lora_state(self.reference), Lineage(runs=self._reference_runs, seqs=self.reference_seqs))

    def drop_undone(self, live: Iterable[int]) -> None:
        """Replace weights that learned from judgements which are not `live` any more: by the reference, or by the base where it did so too."""
        live = frozenset(live)
        if not self.reference_seqs <= live:
            self._load_reference(None, NO_SEQS)
        if not self.lineage.seqs <= live:
            self.start_from_reference()

    def learned_only_from(self, live: Iterable[int]) -> bool:
        """Whether all that weights and reference learned from is `live`."""
        return self.lineage.seqs | self.reference_seqs <= frozenset(live)

    def take_back(self, lora: Mapping[str, Tensor]) -> None:
        """Put earlier weights of this generation back."""
        load_lora(self.policy, lora)

    # --- training --------------------------------------------------------------------------------------------------

    def begin(self, stage: Stage, seqs: Iterable[int], head: RewardHead | None) -> None:
        """A stage starts training on these judgements, of which `head` is the fit: a new generation, unless PPO goes on in its own.

        Weights that learned from others are replaced first.
        """
        seqs = frozenset(seqs)
        self.drop_undone(seqs)
        if not (stage == self.lineage.trained_by == "ppo"):
            self.generation += 1
            self.lineage = replace(self.lineage, trained_by=stage, value_state=None)
            if stage == "ppo":  # whose reward knows no words: what was absorbed of those may be unlearned, so they are said again beside the answers
                self.lineage = replace(self.lineage, critiques=NO_SEQS)
        self.learn_from(seqs, head)

    def learn_from(self, seqs: Iterable[int], head: RewardHead | None) -> None:
        """The stage that is training takes further judgements."""
        self.lineage = replace(self.lineage, seqs=self.lineage.seqs | frozenset(seqs), head=head)

    def absorb(self, head: RewardHead, beta: float, critiques: frozenset[int] = NO_SEQS) -> None:
        """The weights have been brought closer to the policy that Ĥ steers at this strength, and these critiques."""
        self.lineage = replace(self.lineage, absorbed=head, absorbed_beta=beta, critiques=critiques)

    def mark_distilled(self, distilled: Distilled | None) -> None:
        """A distillation came to its end; None if it is to be done again."""
        self.lineage = replace(self.lineage, distilled=distilled)

    def trained(self, run: str) -> None:
        """A run ended that changed the weights."""
        self.lineage = replace(self.lineage, runs=(*self.lineage.runs, run), to_gate=self.lineage.trained_by)

    def freeze_reference(self, imitates: bool) -> None:
        """What is in the policy tree is the reference from here on."""
        copy_lora(self.policy, self.reference)
        self.reference_generation += 1
        self.imitates = imitates
        self.reference_seqs, self._reference_runs = self.lineage.seqs, self.lineage.runs

    def checkpoint(self) -> dict[str, Any]:
        """Both trees' weights and what is known of them; for `restore`. Of Ĥ it is kept whether there was any: the log tells which."""
        line = self.lineage
        known = {name: getattr(line, name) for name in _PLAIN} | {name: sorted(getattr(line, name)) for name in ("seqs", "critiques")}
        heads = {name: getattr(line, name) is not None for name in ("head", "absorbed")}
        distilled = line.distilled and (sorted(line.distilled.seqs), line.distilled.nats)
        return {
            "policy": lora_state(self.policy), "reference": lora_state(self.reference), "lineage": known, "heads": heads, "distilled": distilled,
            "generations": (self.generation, self.reference_generation), "imitates": self.imitates,
            "reference_seqs": sorted(self.reference_seqs), "reference_runs": self._reference_runs,
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any], head: RewardHead) -> None:
        """Go on from a checkpoint; `head` is Ĥ of the log that it was taken with."""
        load_lora(self.policy, saved["policy"])
        load_lora(self.reference, saved["reference"])
        known = saved["lineage"] | {name: frozenset(saved["lineage"][name]) for name in ("seqs", "critiques")}
        heads: dict[str, Any] = {name: head if there else None for name, there in saved["heads"].items()}
        distilled = saved["distilled"] and Distilled(frozenset(saved["distilled"][0]), saved["distilled"][1])
        self.lineage = Lineage(**known, **heads, distilled=distilled)
        self.generation, self.reference_generation = saved["generations"]
        self.imitates, self.reference_seqs = saved["imitates"], frozenset(saved["reference_seqs"])
        self._reference_runs = saved["reference_runs"]

    # --- the gate --------------------------------------------------------------------------------------------------

    def snapshot(self) -> PolicySnapshot:
        """A copy of what is in the policy tree, not yet a version."""
        return PolicySnapshot("", lora_state(self.policy), self.lineage.absorbed, self.lineage.absorbed_beta, self.lineage.critiques)

    @contextmanager
    def lent(self) -> Iterator[Callable[[Mapping[str, Tensor] | None], None]]:
        """Yields a function that puts any weights into the policy tree, to draw with; afterwards, whatever happens, the present ones are back."""
        own = lora_state(self.policy)
        try:
            yield lambda lora: load_lora(self.policy, lora)
        finally:
            load_lora(self.policy, own)

    def ask_gate(self, stage: Stage | None) -> None:
        """Whether the gate is to see the weights, and as whose; None once it has."""
        self.lineage = replace(self.lineage, to_gate=stage)

    def published(self, version: str) -> None:
        """What is in the policy tree acts as a version: from here on it is the parent."""
        self.lineage = replace(self.lineage, parent=version, runs=())

    # --- loading ---------------------------------------------------------------------------------------------------

    def _load(self, lora: Mapping[str, Tensor] | None, lineage: Lineage) -> None:
        load_lora(self.policy, lora)
        self.lineage = lineage
        self.generation += 1

    def _load_reference(self, lora: Mapping[str, Tensor] | None, seqs: frozenset[int]) -> None:
        load_lora(self.reference, lora)
        self.reference_generation += 1
        self.imitates, self.reference_seqs, self._reference_runs = lora is not None, seqs, ()
