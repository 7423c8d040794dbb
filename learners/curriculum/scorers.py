"""Who scores answers when the operator is not looking: Ĥ, or the LoRA reward model once it predicts the operator better.

Both give an answer the mean of its tokens' rewards, scaled so that answers of the base have a standard deviation of 1, and both are scored on
each judgement before they learn from it (prequentially, Dawid 1984): that log-loss decides which of them is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from learners.feedback.samples import Comparison, Sample
from learners.feedback.snapshot import Feedback
from learners.human_reward.evidence import evidence_of
from learners.human_reward.features import Features
from learners.human_reward.fit import Block, HumanReward, HumanRewardSettings
from learners.human_reward.gram import LinearFunctional
from learners.human_reward.head import RewardHead
from learners.human_reward.likelihood import Evidence, mentioned
from learners.human_reward.prequential import PrequentialScores
from learners.model.base import Backbone
from learners.model.batches import AnswerTokens, TokenIds, mask_of
from learners.model.forward import LMHead, device_of
from learners.model.memory import MemoryBudget
from learners.model.shared_prompts import states_before
from learners.rlhf import losses, ranks
from learners.rlhf.reward_model import RewardModel
from learners.rlhf.rollouts import look
from learners.rlhf.rollouts import states_before as seen_before
from storage.records import Arm, Tap

FEWEST_COMPARISONS = 8
"""Judgements that the reward model must have been tested on before it can take over."""


LAPSE = 0.25
"""Of judgements that fits to rewards doubt, beside those that doubt none (`HumanRewardSettings.lapse`)."""


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


class RewardFit:
    """Ĥ's model fitted to rewards: an answer scores the mean of r(s, a) over its tokens, and not of A(s, a), what each adds to what had to come.

    For steering the advantage is right: that is what a choice changes. As a score it leaves out where an answer has got to, which an operator
    sees too, and foresees fewer of their rankings (docs/learning.md); who learns from a score by itself, as PPO does, finds the advantages by itself.
    Fitted from the newest judgements of whole answers. Belongs to one thread: the learner has one and the generator another.
    """

    def __init__(self, rewards_of: Callable[[Sample, Features], LinearFunctional | None], settings: HumanRewardSettings | None = None) -> None:
        """rewards_of: the mean reward of a judged answer's tokens; None of one whose states are not known yet, which is left out."""
        self._rewards_of, self._settings = rewards_of, settings or HumanRewardSettings(lapse=LAPSE)
        self._human_reward: HumanReward | None = None
        self._of: tuple[int, ...] | None = None
        self._head: RewardHead | None = None
        self._complete = True

    @staticmethod
    def reading(backbone: Backbone, base_tree: nn.Module, settings: HumanRewardSettings | None = None) -> RewardFit:
        """That reads judged answers with a tree without an adapter."""

        def rewards_of(sample: Sample, features: Features) -> LinearFunctional:
            (seen,) = seen_before(backbone, base_tree, sample.prompt_ids, [sample.token_ids])
            start, stop = sample.span or (0, len(sample.token_ids))
            return LinearFunctional.of_answer(torch.tensor(sample.token_ids[start:stop]), seen.alone().span(start, stop), features)

        return RewardFit(rewards_of, settings)

    def head(self, feedback: Feedback, features: Features, similarity: Tensor | None) -> RewardHead | None:
        """None where words were tapped, whose rewards Ĥ alone knows, or where no whole answers were compared or scored."""
        if feedback.seqs != self._of:
            self._head = self._fitted(feedback, features, similarity)
            self._of = feedback.seqs if self._complete else None
        return self._head

    def _fitted(self, feedback: Feedback, features: Features, similarity: Tensor | None) -> RewardHead | None:
        if any(feedback.count(kind) for kind in (Tap, Arm)):
            return None
        if self._human_reward is None or self._human_reward.features is not features:
            self._human_reward = HumanReward(features, similarity, self._settings)
        evidence = _newest(evidence_of(feedback), self._settings.window)
        if not evidence:
            return None
        names = {name for item in evidence for name in mentioned(item)}
        self._human_reward.keep(names)
        for name in sorted(names):
            if name not in self._human_reward and (functional := self._rewards_of(feedback.samples[name], features)) is not None:
                self._human_reward.add(name, functional)
        self._complete = all(name in self._human_reward for name in names)
        groups = tuple(tuple(sorted(mentioned(item))) for item in evidence)
        head = self._human_reward.fit_blocks([Block(groups, tuple(evidence))], 0)
        return None if head.blank else head


def _newest(evidence: Sequence[Evidence], window: int) -> list[Evidence]:
    """The last ones, about at most so many answers, in their order."""
    found: list[Evidence] = []
    for item in reversed(evidence):
        window -= len(mentioned(item))
        if window < 0:
            break
        found.append(item)
    return found[::-1]


def margins_of(comparison: Comparison, scores: Sequence[float]) -> list[float]:
    """Differences of the untied compared pairs, the preferred answer's score first."""
    untied = [(i, j) if target == 1.0 else (j, i) for i, j, target in losses.compared_pairs(comparison.ranks) if target != 0.5]
    return [scores[winner] - scores[loser] for winner, loser in untied]


def reward_model_leads(head: PrequentialScores, model: PrequentialScores) -> bool:
    """Whether the reward model has taken over from Ĥ."""
    return model.judgements >= FEWEST_COMPARISONS and model.log_loss < head.log_loss
