"""Ĥ, fitted twice to the same judgements: to rewards, who foresees best what the operator will say, and to advantages, what each choice brings.

Of the two the fit to rewards foresees more rankings, since an operator sees where an answer has got to (docs/learning.md). So it scores whole
answers, and it tells slips: a comparison that all others speak against was perhaps not meant. The fit to advantages, which steers, takes each
comparison with the probability that it was meant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from learners.human_reward.features import Features, Seen
from learners.human_reward.fit import Block, HumanRewardSettings, RewardFit
from learners.human_reward.head import RewardHead
from learners.human_reward.likelihood import Evidence, Pairs


class HumanReward:
    """Keeps the judged answers' statistics and fits the heads. `fit` depends on the evidence and on token ids alone.

    Belongs to one thread, on the CPU.
    """

    def __init__(self, features: Features, similarity: Tensor | None = None, settings: HumanRewardSettings | None = None) -> None:
        """See RewardFit."""
        self._of_advantages = RewardFit(features, similarity, settings)
        self._of_rewards = RewardFit(features, similarity, settings, doubts=True)
        self.rewards = RewardHead.empty(features)  # of the last fit, for scores of whole answers

    @property
    def features(self) -> Features:
        return self._of_advantages.features

    @property
    def similarity(self) -> Tensor:
        """(V, e), the factor L of the prior covariance."""
        return self._of_advantages.similarity

    @property
    def settings(self) -> HumanRewardSettings:
        return self._of_advantages.settings

    def __contains__(self, name: str) -> bool:
        return name in self._of_advantages

    def __len__(self) -> int:
        """Answers and words whose statistics are kept."""
        return len(self._of_advantages)

    def begun_anew(self) -> HumanReward:
        """One that knows nothing yet."""
        return HumanReward(self.features, self.similarity, self.settings)

    def add_answer(self, name: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int] | None = None) -> None:
        """Remember an answer, or a span of one, by its canonical prefill: the base's states before each of its T tokens, on the CPU."""
        self._of_advantages.add_answer(name, token_ids, seen, span)
        self._of_rewards.add(name, self._of_advantages.rewards_of(name, token_ids[slice(*span or (None,))]))

    def add_word(self, name: str, token_ids: Sequence[int], seen: Seen, span: tuple[int, int]) -> None:
        """Remember a word of an answer, [start, stop) of its tokens: the sum of what they are worth."""
        self._of_advantages.add_word(name, token_ids, seen, span)
        self._of_rewards.add_word(name, token_ids, seen.alone(), span)

    def keep(self, names: Collection[str]) -> None:
        """Drop the statistics of all other answers. Blocks that were solved with them stay solved."""
        self._of_advantages.keep(names)
        self._of_rewards.keep(names)

    def fit(self, evidence: Sequence[Evidence], epoch: int) -> RewardHead:
        """The head of this evidence."""
        return self.fit_blocks(Block.split(evidence, self.settings.window), epoch)

    def fit_blocks(self, blocks: Sequence[Block], epoch: int) -> RewardHead:
        """The head of the last block, each one's the prior mean of the next. Of blocks that are not `solved` only known answers count."""
        self.rewards = self._of_rewards.fit_blocks(blocks, epoch)
        return self._of_advantages.fit_blocks(self._of_rewards.believed, epoch)

    def solved(self, blocks: Sequence[Block]) -> int:
        """How many of these blocks, from the first on, need not be solved again."""
        return self._of_rewards.solved(blocks)

    def margins(self, head: RewardHead, pairs: Pairs) -> list[float]:
        """Differences of advantages of the untied pairs, the preferred answer's first."""
        return self._of_advantages.margins(head, pairs)
