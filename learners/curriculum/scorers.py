"""Who scores answers when the operator is not looking: Ĥ, or the LoRA reward model once it predicts the operator better.

Both give an answer the mean of its tokens' rewards, scaled so that answers of the base have a standard deviation of 1, and both are scored on
each judgement before they learn from it (prequentially, Dawid 1984): that log-loss decides which of them is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.feedback.samples import Comparison
from learners.human_reward.head import RewardHead
from learners.human_reward.prequential import PrequentialScores
from learners.model.batches import AnswerTokens, TokenIds, mask_of
from learners.model.forward import LMHead, device_of
from learners.model.memory import MemoryBudget
from learners.model.shared_prompts import states_before
from learners.rlhf import losses, ranks
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import look

FEWEST_COMPARISONS = 8
"""Judgements that the reward model must have been tested on before it can take over."""


class HumanRewardScorer:
    """Ĥ as a reward: a head over the states of a tree that has no adapter. `rewards`: the head was fitted to rewards and not to advantages."""

    def __init__(self, base_tree: nn.Module, head: RewardHead, memory: MemoryBudget | None = None, rewards: bool = False) -> None:
        self.base_tree, self.head, self._rewards = base_tree, head, rewards
        self.memory, self._lm_head = memory or MemoryBudget.of_tree(base_tree), LMHead(base_tree)
        self.gain, self._mean = 1.0, 0.0

    def normalise(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> None:
        """Shift and scale so that these answers' scores have a mean of 0 and a standard deviation of 1."""
        self.gain, self._mean = 1.0, 0.0
        scores = self.score(prompts, answers)
        spread = float(scores.std(correction=0))
        self.gain, self._mean = 1.0 / spread if spread > 1e-9 else 1.0, float(scores.mean())

    def token_shares(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Each token's share of its answer's score: (B, R)."""
        mask = mask_of(answers, device_of(self.base_tree))
        rewards = torch.zeros(mask.shape, device=mask.device)
        own = ranks.share(len(answers))
        for part in self.memory.parts(ranks.own(prompts), ranks.own(answers), gradients=False):
            rows = [own[i] for i in part]
            found = self._token_rewards([prompts[i] for i in rows], [answers[i] for i in rows])
            rewards[rows, : found.shape[1]] = found
        ranks.add_up(rewards)
        return self.gain * rewards / mask.sum(1, keepdim=True).clamp_min(1)

    @torch.no_grad()
    def _token_rewards(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Of one forward: (B, R), 0 beyond an answer's end."""
        tokens = AnswerTokens.of(answers, device_of(self.base_tree))
        seen = look(self._lm_head, tokens.take(states_before(self.base_tree, prompts, answers)))
        rewards = self.head.token_rewards(seen.alone() if self._rewards else seen, tokens.ids)
        return tokens.spread(rewards - self._mean)

    def score(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """(B,)."""
        return self.token_shares(prompts, answers).sum(1)


Scorer = HumanRewardScorer | RewardModel


def margins_of(comparison: Comparison, scores: Sequence[float]) -> list[float]:
    """Differences of the untied compared pairs, the preferred answer's score first."""
    untied = [(i, j) if target == 1.0 else (j, i) for i, j, target in losses.compared_pairs(comparison.ranks) if target != 0.5]
    return [scores[winner] - scores[loser] for winner, loser in untied]


def reward_model_leads(head: PrequentialScores, model: PrequentialScores) -> bool:
    """Whether the reward model has taken over from Ĥ."""
    return model.judgements >= FEWEST_COMPARISONS and model.log_loss < head.log_loss
