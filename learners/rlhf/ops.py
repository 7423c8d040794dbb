"""The arithmetic of learning from rewards, as pure functions: batches, log-probabilities, KL, rewards, advantages, schedules.

From Ziegler et al. 2019 (Fine-Tuning Language Models from Human Preferences: the KL reward, its adaptive coefficient, whitening) and
Schulman et al. 2016 (generalised advantage estimation). What differs: everything is masked per token, log-probabilities are taken in
float32 a chunk of positions at a time, and the score is put on an answer's last token (its end-of-sequence token if it has one), not after it.

Notation: B answers, P prompt tokens, R answer tokens, V vocabulary; masks are boolean and True on an answer's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 256
"""Positions whose float32 distributions are held at once."""
POSITIONS = 2048
"""Positions whose logits one training forward may give: at a vocabulary of 150,000 they take 1.2 GB in float32."""


# --- batches ---------------------------------------------------------------------------------------------------------


class Padded(NamedTuple):
    """Prompts padded on the left, answers on the right, so that every answer begins in column P."""

    input_ids: Tensor  # (B, P + R) int64, 0 at padding
    attention_mask: Tensor  # (B, P + R) int64, 0 at padding
    answer_ids: Tensor  # (B, R) int64, 0 at padding
    answer_mask: Tensor  # (B, R) bool

    @property
    def keep(self) -> int:
        """How many last positions a forward must return: R + 1, of which [:, :-1] predict the answer and [:, 1:] have read it."""
        return self.answer_ids.shape[1] + 1

    def rows(self, chosen: Tensor | slice) -> Padded:
        """Some of the answers, at the width of all."""
        return Padded(*(field[chosen] for field in self))


def pad(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Padded:
    """Assemble token lists into one batch. An empty answer has an empty mask.

    Raises ValueError without answers, when the two differ in number, or for an empty prompt (nothing would predict its first token).
    """
    if not prompts or len(prompts) != len(answers):
        raise ValueError(f"{len(prompts)} prompts for {len(answers)} answers")
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt is empty")
    widest, longest = max(map(len, prompts)), max(1, *map(len, answers))
    ids = torch.zeros(len(prompts), widest + longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        row = slice(widest - len(prompt), widest + len(answer))
        ids[i, row] = torch.tensor([*prompt, *answer], dtype=torch.int64)
        mask[i, row] = 1
    ids, mask = ids.to(device), mask.to(device)
    return Padded(ids, mask, ids[:, widest:], mask[:, widest:].bool())


def answers_per_forward(most: int, longest: int) -> int:
    """How many answers of up to `longest` tokens go into one training forward: at least one."""
    return max(1, min(most, POSITIONS // (longest + 1)))


# --- distributions over the next token -------------------------------------------------------------------------------


def token_logprobs(logits: Tensor, token_ids: Tensor, temperature: float = 1.0, chunk: int = CHUNK) -> Tensor:
    """Log-probability of each taken token: logits (…, V), token_ids (…) -> (…) float32.

    The taken logit minus the log of the partition function: no (…, V) tensor of log-probabilities is made.
    """
    flat, taken = logits.flatten(0, -2), token_ids.flatten()
    parts = []
    for rows, ids in zip(flat.split(chunk), taken.split(chunk), strict=True):
        scaled = rows.float() / temperature if temperature != 1.0 else rows.float()
        parts.append(scaled.gather(1, ids[:, None])[:, 0] - scaled.logsumexp(1))
    return torch.cat(parts).view(token_ids.shape)


def entropy(logits: Tensor, temperature: float = 1.0, chunk: int = CHUNK) -> Tensor:
    """Entropy in nats of each next-token distribution: (…, V) -> (…) float32."""
    parts = []
    for rows in logits.flatten(0, -2).split(chunk):
        logprobs = (rows.float() / temperature).log_softmax(1)
        parts.append(-_expected(logprobs, logprobs))
    return torch.cat(parts).view(logits.shape[:-1])


def exact_kl(logits: Tensor, reference_logits: Tensor, temperature: float = 1.0, chunk: int = CHUNK) -> Tensor:
    """KL(p || q) in nats of whole next-token distributions, p from `logits`: (…, V), (…, V) -> (…) float32."""
    parts = []
    pairs = zip(logits.flatten(0, -2).split(chunk), reference_logits.flatten(0, -2).split(chunk), strict=True)
    for rows, reference_rows in pairs:
        logprobs = (rows.float() / temperature).log_softmax(1)
        reference_logprobs = (reference_rows.float() / temperature).log_softmax(1)
        parts.append(_expected(logprobs, logprobs - reference_logprobs))
    return torch.cat(parts).view(logits.shape[:-1])


def _expected(logprobs: Tensor, values: Tensor) -> Tensor:
    """Mean of values under a distribution, (…, V) -> (…): impossible tokens count 0 even where the value is infinite; NaN stays NaN."""
    probabilities = logprobs.exp()
    return torch.where(probabilities == 0, 0.0, probabilities * values).sum(-1)


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
    advantages = torch.zeros_like(errors)
    carried = torch.zeros_like(errors[:, 0])
    for t in reversed(range(errors.shape[1])):
        carried = errors[:, t] + gamma * lam * carried
        advantages[:, t] = carried
    return advantages * mask, (advantages + values) * mask


# --- schedules -------------------------------------------------------------------------------------------------------


def adapted_kl_coefficient(coefficient: float, kl: float, target: float, episodes: int, horizon: float = 200.0, clip: float = 0.2) -> float:
    """The KL coefficient after a batch of `episodes` answers whose mean KL was `kl` nats per answer: up when above target, down when below.

    Source: Ziegler et al. 2019, section 2.2 (horizon 10,000 episodes there; a sitting sees hundreds).
    """
    error = min(max(kl / target - 1.0, -clip), clip)
    return coefficient * (1.0 + error * episodes / horizon)


def warmup(step: int, steps: int) -> float:
    """Factor of the learning rate at optimizer step `step` (from 0): rises linearly to 1 over `steps` steps."""
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


def rate_for_width(rate: float, width: int) -> float:
    """A LoRA learning rate given for a model 2,000 wide, as it is for one of `width`: narrower models take larger steps.

    Source: Schulman et al. 2025, LoRA Without Regret: exponent 0.781 fitted over Llama models.
    """
    return rate * (2000 / width) ** 0.781
