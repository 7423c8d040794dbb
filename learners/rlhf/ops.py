"""The arithmetic of learning from rewards, as pure functions: KL estimates, masked statistics, rewards, advantages, schedules.

From Ziegler et al. 2019 (Fine-Tuning Language Models from Human Preferences: the KL reward, its adaptive coefficient, whitening) and
Schulman et al. 2016 (generalised advantage estimation). What differs: everything is masked per token, and the score is put
on an answer's last token (its end-of-sequence token if it has one), not after it.

Notation: B answers, R answer tokens; masks are boolean and True on an answer's own tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

# --- estimates of KL from drawn tokens --------------------------------------------------------------------------------


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate of KL(p || q) from tokens that p drew: unbiased, may be negative. Source: Schulman 2020, Approximating KL Divergence."""
    return logprobs - reference_logprobs


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate of KL(p || q) from tokens that p drew: unbiased, never negative, of low variance. Source: Schulman 2020."""
    difference = reference_logprobs - logprobs
    return difference.expm1() - difference


# --- masked statistics -----------------------------------------------------------------------------------------------


def masked_mean(values: Tensor, mask: Tensor, count: float | None = None) -> Tensor:
    """Mean over the masked entries of all of `values`, or their sum over `count` (a share of a larger batch); 0 when nothing is masked in."""
    total = (values * mask).sum()
    return total / (count if count is not None else mask.sum().clamp_min(1))


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance over the masked entries."""
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over the masked entries.

    values, mask: (B, R); entries outside the mask come back as 0.
    Raises ValueError when fewer than two entries are masked in.
    Source: Ziegler et al. 2019, section 2.2.
    """
    if int(mask.sum()) < 2:
        raise ValueError("whitening needs at least two entries")
    centred = values - masked_mean(values, mask)
    return centred * torch.rsqrt(masked_variance(values, mask) + 1e-8) * mask


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share of the returns' variance that the values predict: 1 is all, 0 no better than a constant, negative is worse."""
    return 1 - masked_variance(returns - values, mask) / masked_variance(returns, mask).clamp_min(1e-12)


# --- rewards and advantages ------------------------------------------------------------------------------------------


def on_last_token(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (B,) put on each answer's last token: (B, R), 0 elsewhere and all over an empty answer."""
    following = torch.cat([mask[:, 1:], mask.new_zeros(len(mask), 1)], dim=1)
    return scores[:, None] * (mask & ~following)


def per_token_rewards(shares: Tensor, log_ratios: Tensor, mask: Tensor, kl_coefficient: float) -> Tensor:
    """What PPO maximises: each token's share of the score minus the coefficient times its log-ratio to the reference.

    All (B, R); 0 outside the mask. Source: Ziegler et al. 2019, equation 2.
    """
    return (shares - kl_coefficient * log_ratios) * mask


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Advantages, not yet whitened, and returns (advantage + value), which the value head learns.

    rewards, values, mask: (B, R); values[:, t] is of the state before token t, and 0 after the last token. -> (B, R), (B, R), 0 outside.
    Source: Schulman et al. 2016, equation 16.
    """
    rewards, values = rewards * mask, values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    errors = rewards + gamma * following - values
    steps = torch.arange(errors.shape[1], device=errors.device)
    later = (steps[:, None] - steps).clamp_min(0)  # [s, t] of error s for advantage t
    discounts = torch.full_like(errors[:1, :1], gamma * lam).pow(later).tril()
    advantages = errors @ discounts
    return advantages * mask, (advantages + values) * mask


# --- schedules -------------------------------------------------------------------------------------------------------


def adapted_kl_coefficient(coefficient: float, kl: float, target: float, episodes: int, horizon: float = 200.0, clip: float = 0.2) -> float:
    """The KL coefficient after a batch of `episodes` answers whose mean KL was `kl` nats per answer: up when above target, down when below.

    Source: Ziegler et al. 2019, section 2.2 (horizon 10,000 episodes there; a sitting sees hundreds).
    """
    error = min(max(kl / target - 1.0, -clip), clip)
    return coefficient * (1.0 + error * episodes / horizon)


def damped_kl_coefficient(coefficient: float, kl: float, target: float, least: float = 0.25, most: float = 2.0) -> float:
    """The KL coefficient for rollouts of `kl` nats per answer: times kl / target, within bounds.

    `adapted_kl_coefficient` alone sums up errors, and the policy follows the coefficient a few batches late: together they swing. A term in
    proportion to the error itself damps that (a PI controller).
    """
    return coefficient * min(max(kl / target, least), most)


def warmup(step: int, steps: int) -> float:
    """Factor of the learning rate at optimizer step `step` (from 0): rises linearly to 1 over `steps` steps."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def rate_for_width(rate: float, width: int) -> float:
    """A LoRA learning rate given for a model 2,000 wide, as it is for one of `width`: narrower models take larger steps.

    Source: Schulman et al. 2025, LoRA Without Regret: exponent 0.781 fitted over Llama models.
    """
    return rate * (2000 / width) ** 0.781
