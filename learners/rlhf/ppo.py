"""Proximal policy optimisation: the adapter learns by trial what a reward cannot say one token at a time.

After Schulman et al. 2017 (clipped surrogate), as Ziegler et al. 2019 and Ouyang et al. 2022 apply it to language: the reward minus
an adaptive coefficient times the KL to a reference policy, generalised advantages, several epochs over each batch of rollouts. What
differs:

- Only a LoRA learns. Reference and policy are two trees over one base.
- The value head is one linear layer on the policy's states, without gradient into them and with an optimizer of its own: values
  learned from a few dozen answers are rough, and must not pull at the policy.
- Log-probabilities before the update come from the very forwards that the update makes (same rows, padding and kernels), not from
  sampling, so the ratio is exactly 1 and the approximate KL exactly 0 until the first optimizer step.
- Scores may come per token. The score of a whole answer goes on its last token, not after it, and is credited to all tokens alike
  (λ = 1): that is the better choice while the value head knows little.
- An answer that ran into the length limit is not punished unless asked for, and one that was stopped never is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from learners.feedback.tap_advantages import Tapped
from learners.model.base import Backbone
from learners.model.forward import forward
from learners.model.sampling import Row, decode
from learners.rlhf import losses, ops
from learners.rlhf.optimizer import AdamSettings, Optimizer
from learners.rlhf.stats import StepStats
from storage.records import Sampling, StopReason

TokenIds = tuple[int, ...]
Reward = Callable[[Sequence[TokenIds], Sequence[TokenIds]], Tensor]
"""Prompts and answers -> scores (B,), or each token's share of the score (B, R). Best scaled to a standard deviation of about 1."""


@dataclass(frozen=True)
class PPOSettings:
    """Constants of PPO. Those without a source were tuned on small models (benchmarks/ppo.py)."""

    learning_rate: float = 5e-5  # of the LoRA at width 2,000 (ops.rate_for_width)
    value_rate: float = 0.1  # about how far one step may move a value; Adam's rate is this over the width
    epochs: int = 2  # passes over the rollouts (4 in Ziegler et al. 2019: no better here, and slower)
    minibatch: int = 16  # answers in one optimizer step
    microbatch: int = 8  # answers in one forward; fewer when they are long
    clip: float = 0.2  # of the probability ratio (Schulman et al. 2017)
    value_clip: float = 0.2  # of a value's change; presumes scores of unit size
    gamma: float = 1.0  # discount (Ziegler et al. 2019)
    lam: float = 0.95  # λ of the advantages when the reward comes per token (Ziegler et al. 2019)
    lam_whole: float = 1.0  # λ when it comes per answer: less would credit the last 1 / (1 - λ) tokens while values are rough
    kl_target: float = 6.0  # nats per answer against the reference (Ziegler et al. 2019)
    kl_coefficient: float | None = None  # β to begin with, reward per nat; None is 1/√target, about where it settles
    kl_horizon: float = 100.0  # answers over which β adapts
    step_kl: float = 0.02  # nats per token between the policy before and after; beyond it the rollouts are left
    missing_eos_penalty: float = 0.0  # taken off the score of an answer that ran into the length limit
    tap_weight: float = 0.5  # of the mean loss over tapped tokens, beside that over the rollouts' tokens
    policy_loss_weight: float = 1.0  # 0 leaves the policy as it is, for comparison
    adam: AdamSettings = field(default_factory=AdamSettings)


@dataclass(frozen=True)
class Rollouts:
    """Answers that the policy drew, by plain sampling."""

    prompts: tuple[TokenIds, ...]  # one for each answer
    answers: tuple[TokenIds, ...]  # the end-of-sequence token included
    stops: tuple[StopReason, ...]
    logprobs: tuple[tuple[float, ...], ...]  # as sampled: for the record, not for the ratio


class PPO:
    """Trains a tree's LoRA on its own rollouts: `ppo.step(ppo.rollout(prompts, 4))`. All trees stay in eval mode."""

    def __init__(
        self,
        policy: nn.Module,
        reference: nn.Module,
        reward: Reward,
        settings: PPOSettings | None = None,
        seed: int = 0,
        *,
        backbone: Backbone,
        sampling: Sampling | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """`backbone` is what the trees stand on; `pause` is called between forwards, to let others compute.

        `reward`, `sampling` and `kl_target` may be changed between steps.
        """
        self.policy, self.reference, self.reward = policy, reference, reward
        self.settings, self.backbone, self.pause = settings or PPOSettings(), backbone, pause
        self.sampling = sampling or Sampling()
        self._kl_target = self.settings.kl_target
        self.kl_coefficient = self.settings.kl_coefficient or self._kl_target**-0.5
        self._random = torch.Generator().manual_seed(seed)
        parameters = [p for p in policy.parameters() if p.requires_grad]
        self._device = parameters[0].device
        self.value_head = nn.Linear(backbone.width, 1, device=self._device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        rate, value_rate = ops.rate_for_width(self.settings.learning_rate, backbone.width), self.settings.value_rate
        self._policy_optimizer = Optimizer(parameters, rate, self.settings.adam)
        self._value_optimizer = Optimizer(self.value_head.parameters(), value_rate / backbone.width, self.settings.adam)

    @property
    def kl_target(self) -> float:
        """Nats per answer that the policy may be from the reference. Changing it scales β by 1/√target.

        Why the root: scores of unit variance, normal under the reference and tilted by exp(score / β), cost 1 / (2β²) nats.
        """
        return self._kl_target

    @kl_target.setter
    def kl_target(self, nats: float) -> None:
        self.kl_coefficient *= (self._kl_target / nats) ** 0.5
        self._kl_target = nats

    def rollout(self, prompts: Sequence[TokenIds], answers_per_prompt: int) -> Rollouts:
        """Draw answers to each prompt from the policy as it is now."""
        repeated = [tuple(prompt) for prompt in prompts for _ in range(answers_per_prompt)]
        rows = [Row(str(i), prompt, self._new_seed(), adapter=True, steer=False) for i, prompt in enumerate(repeated)]
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        stops: dict[str, StopReason] = {}
        backbone = self.backbone
        steps = decode(self.policy, rows, self.sampling, backbone.eos_ids, backbone.pad_id)
        for step in steps:
            for uid, token, logprob in zip(step.uids, step.ids, step.logprobs, strict=True):
                ids[int(uid)].append(int(token))
                logprobs[int(uid)].append(float(logprob))
            stops.update(step.ended)
            self.pause()
        return Rollouts(
            prompts=tuple(repeated),
            answers=tuple(map(tuple, ids)),
            stops=tuple(stops[row.uid] for row in rows),
            logprobs=tuple(map(tuple, logprobs)),
        )

    def step(self, rollouts: Rollouts, tapped: Tapped | None = None) -> StepStats:
        """Several epochs over one batch of rollouts, which must be this policy's own as it is now.

        `tapped` are answers that a person praised and blamed, as advantages of single tokens: they pull in every optimizer step. Raises
        ValueError when the reward has not the answers' shape or is not finite, or on fewer than two tokens.
        """
        batch = ops.pad(rollouts.prompts, rollouts.answers, self._device)
        mask = batch.answer_mask
        order = torch.randperm(len(mask), generator=self._random).to(self._device)
        parts = order.split(ops.answers_per_forward(self.settings.microbatch, mask.shape[1]))  # the rows of each forward, the same in every epoch
        before = self._look(batch, parts)
        rewards = self._rewards(rollouts, mask)
        lam = self.settings.lam if rewards.dim() == 2 else self.settings.lam_whole
        shares = self._shares(rewards, rollouts, mask)
        log_ratios = ops.kl_k1(before.logprobs, before.reference_logprobs)
        penalised = ops.per_token_rewards(shares, log_ratios, mask, self.kl_coefficient)
        advantages, returns = ops.generalised_advantages(penalised, before.values, mask, self.settings.gamma, lam)
        advantages = ops.masked_whiten(advantages, mask)
        experience = _Experience(batch, before.logprobs, before.values, advantages, returns)
        updates = self._update([experience.rows(rows) for rows in parts], self._praise(tapped))
        stats = self._stats(rollouts, before, experience, shares, updates)
        self._adapt_kl_coefficient(before, len(mask))
        return stats

    def reset_optimizer(self) -> None:
        """Forget the optimizers' state: other weights have been loaded into the policy."""
        self._policy_optimizer.reset()
        self._value_optimizer.reset()

    def state(self) -> dict[str, Tensor]:
        """Value head, KL coefficient and its target, copied to the CPU; the LoRA is the tree's."""
        state = {name: p.detach().cpu().clone() for name, p in self.value_head.named_parameters()}
        return state | {"kl": torch.tensor([self.kl_coefficient, self._kl_target], dtype=torch.float64)}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the value head and the KL coefficient and target of `state`. Raises RuntimeError when its width is another."""
        for name, parameter in self.value_head.named_parameters():
            parameter.copy_(state[name])
        self.kl_coefficient, self._kl_target = state["kl"].tolist()

    # --- before the update -------------------------------------------------------------------------------------------

    def _look(self, batch: ops.Padded, parts: Sequence[Tensor]) -> _Before:
        """What policy, value head and reference say of the rollouts. The policy's forward keeps its graph, as in the update."""
        before = _Before(*(torch.zeros_like(batch.answer_mask, dtype=torch.float32) for _ in _Before._fields))
        for rows in parts:
            padded = batch.rows(rows)
            logits, logprobs, values = self._evaluate(padded)
            with torch.no_grad():
                output = forward(self.reference, padded.input_ids, padded.attention_mask, keep=padded.keep)
                reference, temperature = output.logits[:, :-1], self.sampling.temperature
                found = _Before(
                    logprobs.detach(),
                    ops.token_logprobs(reference, padded.answer_ids, temperature),
                    values.detach(),
                    ops.exact_kl(logits, reference, temperature),
                    ops.entropy(logits, temperature),
                )
            for whole, part in zip(before, found, strict=True):
                whole[rows] = part * padded.answer_mask
            self.pause()
        return before

    def _evaluate(self, padded: ops.Padded) -> tuple[Tensor, Tensor, Tensor]:
        """The policy's logits (B, R, V), log-probabilities of the taken tokens (B, R) and values of the states before them (B, R)."""
        output = forward(self.policy, padded.input_ids, padded.attention_mask, keep=padded.keep)
        logits, states = output.logits[:, :-1], output.hidden[:, :-1].detach()
        logprobs = ops.token_logprobs(logits, padded.answer_ids, self.sampling.temperature)
        unit = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + 1e-6)
        return logits, logprobs, self.value_head(unit)[..., 0]

    def _rewards(self, rollouts: Rollouts, mask: Tensor) -> Tensor:
        """What the reward says, (B,) or (B, R), checked."""
        rewards = self.reward(rollouts.prompts, rollouts.answers).to(self._device, torch.float32)
        if rewards.shape not in (mask.shape, mask.shape[:1]):
            raise ValueError(f"a reward of shape {tuple(rewards.shape)} for answers of shape {tuple(mask.shape)}")
        if not rewards.isfinite().all():
            raise ValueError("a reward is not finite")
        return rewards

    def _shares(self, rewards: Tensor, rollouts: Rollouts, mask: Tensor) -> Tensor:
        """The reward as shares per token (B, R), less what a missing end of sequence costs."""
        shares = rewards * mask if rewards.dim() == 2 else ops.on_last_token(rewards, mask)
        cut_off = torch.tensor([stop == "length" for stop in rollouts.stops], device=self._device)
        return shares - ops.on_last_token(cut_off * self.settings.missing_eos_penalty, mask)

    def _praise(self, tapped: Tapped | None) -> _Praise | None:
        """Tapped answers as the policy sees them before the update."""
        if tapped is None:
            return None
        batch = ops.pad(tapped.prompts, tapped.answers, self._device)
        advantages = torch.zeros_like(batch.answer_mask, dtype=torch.float32)
        for row, values in zip(advantages, tapped.advantages, strict=True):
            row[: len(values)] = torch.tensor(values, device=self._device)
        with torch.no_grad():
            _, logprobs, _ = self._evaluate(batch)
        return _Praise(batch, logprobs, advantages)

    # --- the update --------------------------------------------------------------------------------------------------

    def _update(self, parts: Sequence[_Experience], praise: _Praise | None) -> list[_Update]:
        """Optimizer steps over shuffled minibatches, until the epochs are over or the policy has moved far enough."""
        updates: list[_Update] = []
        forwards_per_step = max(1, self.settings.minibatch // len(parts[0].advantages))
        for _ in range(self.settings.epochs):
            shuffled = torch.randperm(len(parts), generator=self._random)
            for chosen in shuffled.split(forwards_per_step):
                updates.append(self._minibatch([parts[i] for i in chosen], praise))
                if not updates[-1].applied:
                    return updates
        return updates

    def _minibatch(self, parts: Sequence[_Experience], praise: _Praise | None) -> _Update:
        """One optimizer step, its gradient gathered over several forwards; left out when the policy has moved too far."""
        self._clear()
        tokens = sum(int(part.batch.answer_mask.sum()) for part in parts)
        sums = torch.zeros(5, device=self._device)
        for part in parts:
            sums += self._backward(part, tokens)
            self.pause()
        if praise is not None:
            self._backward_praise(praise)
        policy_loss, value_loss, ratio, approx_kl, clip_fraction = (sums / tokens).tolist()
        applied = approx_kl <= self.settings.step_kl
        norm = 0.0
        if applied:
            norm = self._policy_optimizer.step()
            self._value_optimizer.step()
        self._clear()
        return _Update(policy_loss, value_loss, ratio, approx_kl, clip_fraction, norm, applied)

    def _clear(self) -> None:
        self._policy_optimizer.clear()
        self._value_optimizer.clear()

    def _backward(self, part: _Experience, tokens: int) -> Tensor:
        """Add the gradient of the mean loss over `tokens`; sums over tokens of the five figures of an update, (5,)."""
        settings, mask = self.settings, part.batch.answer_mask
        _, logprobs, values = self._evaluate(part.batch)
        policy = losses.clipped_policy_loss(logprobs, part.logprobs, part.advantages, mask, settings.clip, count=1)
        value = losses.clipped_value_loss(values, part.values, part.returns, mask, settings.value_clip, count=1)
        ((settings.policy_loss_weight * policy.loss + value) / tokens).backward()
        with torch.no_grad():
            ratio = (policy.ratio * mask).sum()
            approx_kl = (ops.kl_k3(part.logprobs, logprobs) * mask).sum()
            return torch.stack([policy.loss, value, ratio, approx_kl, policy.clip_fraction])

    def _backward_praise(self, praise: _Praise) -> None:
        """Add the gradient of the mean clipped surrogate over the tokens that taps were about."""
        about = (praise.advantages != 0).float() * praise.batch.answer_mask
        _, logprobs, _ = self._evaluate(praise.batch)
        loss = losses.clipped_policy_loss(logprobs, praise.logprobs, praise.advantages, about, self.settings.clip).loss
        (self.settings.tap_weight * self.settings.policy_loss_weight * loss).backward()
        self.pause()

    # --- after the update --------------------------------------------------------------------------------------------

    def _adapt_kl_coefficient(self, before: _Before, answers: int) -> None:
        kl = float(before.kl.sum()) / answers
        self.kl_coefficient = ops.adapted_kl_coefficient(self.kl_coefficient, kl, self.kl_target, answers, self.settings.kl_horizon)

    def _stats(
        self,
        rollouts: Rollouts,
        before: _Before,
        experience: _Experience,
        shares: Tensor,
        updates: Sequence[_Update],
    ) -> StepStats:
        mask = experience.batch.answer_mask
        answers, tokens = len(mask), int(mask.sum())
        return StepStats(
            loss=fmean(u.policy_loss for u in updates),
            grad_norm=updates[0].grad_norm,
            tokens=tokens,
            reward=float(shares.sum()) / answers,
            kl=float(before.kl.sum()) / answers,
            kl_coefficient=self.kl_coefficient,
            approx_kl=updates[-1].approx_kl,
            ratio=updates[0].ratio,
            clip_fraction=fmean(u.clip_fraction for u in updates),
            entropy=float(before.entropy.sum()) / tokens,
            value_loss=fmean(u.value_loss for u in updates),
            explained_variance=float(ops.explained_variance(experience.values, experience.returns, mask)),
            length=tokens / answers,
            no_eos=sum(stop == "length" for stop in rollouts.stops) / answers,
            learning_rate=self._policy_optimizer.learning_rate,
        )

    def _new_seed(self) -> int:
        return int(torch.randint(2**62, (), generator=self._random))


class _Before(NamedTuple):
    """The rollouts as the trees see them before the update: (B, R) each, 0 outside the mask."""

    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    kl: Tensor  # exact, policy against reference
    entropy: Tensor


class _Experience(NamedTuple):
    """Rollouts with all that the update needs: (B, R) each."""

    batch: ops.Padded
    logprobs: Tensor
    values: Tensor
    advantages: Tensor  # whitened over all rollouts
    returns: Tensor

    def rows(self, chosen: Tensor) -> _Experience:
        return _Experience(self.batch.rows(chosen), *(field[chosen] for field in self[1:]))


class _Praise(NamedTuple):
    """Tapped answers with what the update needs: (B, R) each."""

    batch: ops.Padded
    logprobs: Tensor
    advantages: Tensor  # not whitened: 0 is what nobody said anything about


class _Update(NamedTuple):
    """One minibatch, means over its tokens; all but the norm are of before its optimizer step."""

    policy_loss: float
    value_loss: float
    ratio: float
    approx_kl: float
    clip_fraction: float
    grad_norm: float
    applied: bool
