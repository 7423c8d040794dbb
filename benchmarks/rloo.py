"""REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024), to compare PPO with: what the critic, the clipping and several epochs are worth.

An answer is one action. Its reward is the scorer's less λ · log(π / π_ref) of all of it, its advantage that reward less the mean of the other answers
to the same prompt, and each batch of rollouts gives one optimizer step of -mean(advantage · log π). No value head, no probability ratio.
Scorer, prompts, answers, optimizer, learning rate, and how λ keeps to the budget are PPO's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learners.curriculum.ppo_stage import PPOStage
from learners.feedback.tap_advantages import Tapped
from learners.model.batches import TokenIds
from learners.rlhf import ops
from learners.rlhf.ppo import PPO
from learners.rlhf.rollouts import Rollouts
from learners.rlhf.stats import StepStats


class RLOO(PPO):
    """PPO's rollouts and optimizer; the step is another. The value head stays 0."""

    def step(self, rollouts: Rollouts, tapped: Tapped | None = None) -> StepStats:
        """One optimizer step; taps are not looked at."""
        parts, tokens, answers = self._parts(rollouts), sum(map(len, rollouts.answers)), len(rollouts.answers)
        seen = self._trajectory(rollouts, parts)
        shares, _ = self._score(rollouts, seen.mask)
        log_ratios = ops.kl_k1(seen.logprobs, seen.ref_logprobs)
        kl = float(seen.kl.sum()) / answers
        coefficient = ops.damped_kl_coefficient(self.kl_coefficient, kl, self.kl_target)
        advantages = leave_one_out(ops.per_token_rewards(shares, log_ratios, seen.mask, coefficient).sum(1), rollouts.prompts)
        loss = 0.0
        for part in parts:
            logprobs, _ = self._evaluate([rollouts.prompts[i] for i in part], [rollouts.answers[i] for i in part])
            mask = seen.chosen[part, : logprobs.shape[1]]
            of_part = ops.masked_mean(-advantages[part, None] * logprobs, mask, tokens)
            of_part.backward()
            loss += float(of_part.detach())
        norm = self._policy_optimizer.step()
        self.kl_coefficient = ops.adapted_kl_coefficient(self.kl_coefficient, kl, self.kl_target, answers, self.settings.kl_horizon)
        return StepStats(loss=loss, grad_norm=norm, tokens=tokens, reward=float(shares.sum()) / answers, kl=kl, kl_coefficient=coefficient)


def leave_one_out(rewards: Tensor, prompts: tuple[TokenIds, ...]) -> Tensor:
    """Rewards (B,) less the mean of the others' to the same prompt; 0 for an answer that is alone: (B,)."""
    same = torch.tensor([[float(one == other) for other in prompts] for one in prompts], device=rewards.device)
    others = same.sum(1) - 1
    return torch.where(others > 0, rewards - (same @ rewards - rewards) / others.clamp_min(1), torch.zeros_like(rewards))


class RLOOStage(PPOStage):
    """PPO's round between two gates, with RLOO in its place."""

    trainer = RLOO
