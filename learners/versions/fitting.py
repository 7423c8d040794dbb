"""Whether a version's tensors are of the model that is loaded: names and shapes, before any of them is put into a tree.

Bytes that are whole may still be another's: of a release that adapted other layers, or with another rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Size, Tensor, nn

from learners.human_reward.head import RewardHead
from learners.model.lora import lora_parameters
from learners.versions.files import VersionError
from learners.versions.snapshot import VersionState

Sizes = Mapping[str, Size]


@dataclass(frozen=True)
class Fit:
    """What the tensors of a version must be."""

    lora: Sizes
    reward_model: Sizes
    value_head: Sizes
    width: int  # d
    vocabulary: int  # V

    @staticmethod
    def of(tree: nn.Module, width: int, vocabulary: int) -> Fit:
        """tree: any with an adapter; width and vocabulary of its base."""
        head = {"weight": Size([1, width]), "bias": Size([1])}
        trained = {f"lora.{name}": p.shape for name, p in tree.named_parameters() if p.requires_grad}
        return Fit(
            lora={name: p.shape for name, p in lora_parameters(tree).items()},
            reward_model={**trained, **{f"head.{name}": size for name, size in head.items()}, "normalisation": Size([2])},
            value_head={**head, "kl": Size([2])},
            width=width,
            vocabulary=vocabulary,
        )

    def usable(self, state: VersionState) -> VersionState:
        """The version, without a reward model or a value head that do not fit: those are learned again. VersionError where policy, reference or Ĥ
        do not."""
        for lora in (state.policy.lora, state.reference):
            if lora is not None and not _alike(lora, self.lora):
                raise VersionError("this version's adapter belongs to another model, or has other layers or another rank")
        if state.head is not None and not self._reads(state.head):
            raise VersionError("this version's Ĥ belongs to another model")
        if state.value_state is not None and not _alike(state.value_state, self.value_head):
            state = replace(state, value_state=None)
        if state.reward_state is not None and not _alike(state.reward_state, self.reward_model):
            state = replace(state, reward_state=None, reward_seqs=(), reward_steps=0)
        return state

    def _reads(self, head: RewardHead) -> bool:
        d, f = self.width, head.features.basis.shape[-1]
        sizes = [each.shape for each in (head.features.mean, head.features.basis, head.rows)]
        known = head.tokens.dim() == 1 and bool(((head.tokens >= 0) & (head.tokens < self.vocabulary)).all())
        return known and sizes == [Size([d]), Size([d, f]), Size([len(head.tokens), f + 1])]


def _alike(state: Mapping[str, Tensor], sizes: Sizes) -> bool:
    return {name: tensor.shape for name, tensor in state.items()} == sizes
