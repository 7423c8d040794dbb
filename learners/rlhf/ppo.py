"""Proximal policy optimisation: the adapter learns by trial what a reward cannot say one token at a time.

After Schulman et al. 2017 (clipped surrogate), as Ziegler et al. 2019 and Ouyang et al. 2022 apply it to language: the reward minus
an adaptive coefficient times the KL to a reference policy, generalised advantages, several epochs over each batch of rollouts. What
differs:

- Only a LoRA learns. Reference and policy are two trees over one base.
- The value head is one linear layer on the policy's states, without gradient into them and with an optimizer of its own: values
  learned from a few dozen answers are rough, and must not pull at the policy.
- Log-probabilities before the update come from the very forwards that the update makes (same rows, padding and kernels), not from
  sampling, so the ratio is exactly 1 and the approximate KL exactly 0 until the first optimizer step.
- Of several ranks each draws and computes its share of every batch; advantages are whitened over all rollouts of all ranks.
- Answers are shuffled by whole prompts: a forward computes the prompt of its answers once.
- A token that nobody drew, as one that closes a thought, is a step of the environment: it has a value, and neither a ratio nor a KL.
- Scores may come per token. The score of a whole answer goes on its last token, not after it, and is credited to all tokens alike
  (λ = 1): that is the better choice while the value head knows little.
- The KL coefficient is not only adapted to the sum of past errors, as in Ziegler et al. 2019, but also to the KL of the rollouts themselves.
- An answer that ran into the length limit is not punished unless asked for, and one that was stopped never is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.feedback.tap_advantages import Tapped
from learners.model.base import Backbone
from learners.model.batches import AnswerTokens, TokenIds, mask_of
from learners.model.forward import LMHead
from learners.model.lora_forward import refresh
from learners.model.shared_prompts import states_before
from learners.rlhf import losses, ops, ranks
from learners.rlhf.distributions import Compared, compare, token_logprobs
from learners.rlhf.microbatches import Microbatch, minibatches
from learners.rlhf.optimizer import AdamSettings, Optimizer
from learners.rlhf.rollouts import Rollouts, draw_answers
from learners.rlhf.stats import StepStats
from storage.records import Sampling

Reward = Callable[[Sequence[TokenIds], Sequence[TokenIds]], Tensor]
"""Prompts and answers -> scores (B,), or each token's share of the score (B, R). Best scaled to a standard deviation of about 1."""

LEAST_TOKENS = 2
"""Of all answers of a step together: the advantages of fewer cannot be whitened."""


@dataclass(frozen=True)
class PPOSettings:
    """Constants of PPO. Those without a source were tuned on small models (benchmarks/ppo.py)."""

    learning_rate: float = 5e-5  # of the LoRA at width 2,000 (ops.rate_for_width)
    value_rate: float = 0.1  # about how far one step may move a value; Adam's rate is this over the width
    epochs: int = 2  # passes over the rollouts (4 in Ziegler et al. 2019: no better here, and slower)
    minibatch: int = 16  # answers in one optimizer step
    microbatch: int = 16  # answers in one forward; fewer where memory is short
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
        self._head = LMHead(policy)
        self.value_head = nn.Linear(backbone.width, 1, device=self._device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        rate, value_rate = ops.rate_for_width(self.settings.learning_rate, backbone.width), self.settings.value_rate
        self._policy_optimizer = Optimizer(parameters, rate, self.settings.adam, partial(refresh, policy))
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
        seed = int(torch.randint(2**62, (), generator=self._random))
        how = {"adapter": True, "exact_kl": False, "pause": self.pause}
        return Rollouts.of(self.backbone, draw_answers(self.backbone, self.policy, repeated, self.sampling, seed, **how))  # type: ignore[arg-type]

    def step(self, rollouts: Rollouts, tapped: Tapped | None = None) -> StepStats:
        """Several epochs over one batch of rollouts, which must be this policy's own as it is now.

        `tapped` are answers that a person praised and blamed, as advantages of single tokens: they pull in every optimizer step. Raises
        ValueError when the reward has not the answers' shape or is not finite, or on fewer than LEAST_TOKENS tokens.
        """
        parts = self._parts(rollouts)  # the answers of each forward, the same in every epoch
        trajectory = self._trajectory(rollouts, parts)
        score, lam = self._score(rollouts, trajectory.mask)
        log_ratios = ops.kl_k1(trajectory.logprobs, trajectory.ref_logprobs)
        answers = len(rollouts.answers)
        kl = float(trajectory.kl.sum()) / answers
        coefficient = ops.damped_kl_coefficient(self.kl_coefficient, kl, self.kl_target)
        rewards = ops.per_token_rewards(score, log_ratios, trajectory.mask, coefficient)
        advantages, returns = ops.generalised_advantages(rewards, trajectory.values, trajectory.mask, self.settings.gamma, lam)
        advantages = ops.masked_whiten(advantages, trajectory.chosen)
        fields = (trajectory.chosen, trajectory.logprobs, trajectory.values, advantages, returns)
        microbatches = [Microbatch.of(rollouts, part, *fields) for part in parts]
        updates = self._update(microbatches, self._tapped(tapped))
        stats = self._stats(rollouts, trajectory, returns, score, kl, coefficient, updates)
        self.kl_coefficient = ops.adapted_kl_coefficient(self.kl_coefficient, kl, self.kl_target, answers, self.settings.kl_horizon)
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

    def checkpoint(self) -> dict[str, Any]:
        """All that the next step depends on beside the trees' weights; for `restore`."""
        optimizers = [self._policy_optimizer.state(), self._value_optimizer.state()]
        return {"state": self.state(), "optimizers": optimizers, "random": self._random.get_state()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the policy has the weights of it."""
        self.load_state(saved["state"])
        for optimizer, state in zip((self._policy_optimizer, self._value_optimizer), saved["optimizers"], strict=True):
            optimizer.load_state(state)
        self._random.set_state(saved["random"])

    # --- trajectories and rewards --------------------------------------------------------------------------------------

    def _parts(self, rollouts: Rollouts) -> list[list[int]]:
        """The answers in random order, those to one prompt beside each other, as many to a forward as may be."""
        prompts = list(dict.fromkeys(rollouts.prompts))
        place = dict(zip(prompts, torch.randperm(len(prompts), generator=self._random).tolist(), strict=True))
        order = sorted(torch.randperm(len(rollouts.answers), generator=self._random).tolist(), key=lambda i: place[rollouts.prompts[i]])
        parts = self.backbone.memory_budget.parts(
            [rollouts.prompts[i] for i in order], [rollouts.answers[i] for i in order], gradients=True, most=self.settings.microbatch
        )
        return [[order[i] for i in part] for part in parts]

    def _trajectory(self, rollouts: Rollouts, parts: Sequence[Sequence[int]]) -> Trajectory:
        """What policy, value head and reference say of the rollouts. The policy's forward keeps its graph, as in the update."""
        mask, chosen = mask_of(rollouts.answers, self._device), mask_of(rollouts.answers, self._device, rollouts.forced)
        trajectory = Trajectory(mask, chosen, *(torch.zeros(mask.shape, device=self._device) for _ in Trajectory._fields[2:]))
        for part in map(ranks.own, parts):
            if not part:
                continue
            prompts, answers = [rollouts.prompts[i] for i in part], [rollouts.answers[i] for i in part]
            tokens = AnswerTokens.of(answers, self._device)
            hidden = states_before(self.policy, prompts, answers, self.backbone.memory_budget).detach()
            with torch.no_grad():
                ref_hidden = states_before(self.reference, prompts, answers)
                found = compare(self._head, tokens.take(hidden), tokens.take(ref_hidden), tokens.ids, self.sampling.temperature)
                columns = (*map(tokens.spread, found), self._values(hidden))
            for whole, values in zip(trajectory[2:], columns, strict=True):
                whole[part, : tokens.shape[1]] = values
            self.pause()
        ranks.add_up(*trajectory[2:])
        return trajectory._replace(values=trajectory.values * mask, **{name: getattr(trajectory, name) * chosen for name in Compared._fields})

    def _values(self, hidden: Tensor) -> Tensor:
        """Of states (…, d), scaled to unit size: (…). No gradient flows into the states."""
        hidden = hidden.detach()
        return self.value_head(hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + 1e-6))[..., 0]

    def _score(self, rollouts: Rollouts, mask: Tensor) -> tuple[Tensor, float]:
        """The reward as each token's share of it (B, R), less what a missing end of sequence costs; and the λ that goes with it."""
        rewards = self._reward(rollouts, mask)
        whole = rewards.dim() == 1
        shares = ops.on_last_token(rewards, mask) if whole else rewards * mask
        cut_off = torch.tensor([stop == "length" for stop in rollouts.stops], device=self._device)
        shares = shares - ops.on_last_token(cut_off * self.settings.missing_eos_penalty, mask)
        return shares, self.settings.lam_whole if whole else self.settings.lam

    def _reward(self, rollouts: Rollouts, mask: Tensor) -> Tensor:
        """What the reward says, (B,) or (B, R), checked."""
        rewards = self.reward(rollouts.prompts, rollouts.answers).to(self._device, torch.float32)
        if rewards.shape not in (mask.shape, mask.shape[:1]):
            raise ValueError(f"a reward of shape {tuple(rewards.shape)} for answers of shape {tuple(mask.shape)}")
        if not rewards.isfinite().all():
            raise ValueError("a reward is not finite")
        return rewards

    def _tapped(self, tapped: Tapped | None) -> list[Microbatch]:
        """Tapped answers as the policy sees them before the update, masked to the tokens that taps were about."""
        if tapped is None:
            return []
        parts = self.backbone.memory_budget.parts(tapped.prompts, tapped.answers, gradients=True)
        return [self._tapped_part(tapped, part) for part in parts]

    def _tapped_part(self, tapped: Tapped, part: Sequence[int]) -> Microbatch:
        prompts, answers = tuple(tapped.prompts[i] for i in part), tuple(tapped.answers[i] for i in part)
        longest = max(1, *map(len, answers))
        rows = [(*tapped.advantages[i][:longest], *(0.0,) * (longest - len(tapped.advantages[i]))) for i in part]
        advantages = torch.tensor(rows, device=self._device)
        nothing, old_logprobs = torch.zeros_like(advantages), torch.zeros_like(advantages)
        own = ranks.share(len(part))
        if own:
            with torch.no_grad():
                found, _ = self._evaluate(ranks.own(prompts), ranks.own(answers))
            old_logprobs[own.start : own.stop, : found.shape[1]] = found
        count = sum(advantage != 0 for row in rows for advantage in row)
        return Microbatch(prompts, answers, count, advantages != 0, old_logprobs, nothing, advantages, nothing)

    # --- the update --------------------------------------------------------------------------------------------------

    def _update(self, microbatches: Sequence[Microbatch], tapped: Sequence[Microbatch]) -> list[_Update]:
        """Optimizer steps over shuffled minibatches, until the epochs are over or the policy has moved far enough."""
        updates: list[_Update] = []
        for _ in range(self.settings.epochs):
            for chosen in minibatches(microbatches, self.settings.minibatch, self._random):
                updates.append(self._minibatch(chosen, tapped))
                if not updates[-1].applied:
                    return updates
        return updates

    def _minibatch(self, microbatches: Sequence[Microbatch], tapped: Sequence[Microbatch]) -> _Update:
        """One optimizer step, its gradient gathered over several forwards; left out when the policy has moved too far."""
        self._clear()
        tokens = sum(each.counted for each in microbatches)
        sums = torch.zeros(5, device=self._device)
        for each in map(Microbatch.own, microbatches):
            if each.answers:
                sums += self._backward(each, tokens)
            self.pause()
        self._backward_tapped(tapped)
        ranks.add_up(sums)
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

    def _evaluate(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
        """The policy's log-probabilities of the taken tokens and the values of the states before them: (B, R) each, anything
        beyond the answers."""
        tokens = AnswerTokens.of(answers, self._device)
        hidden = states_before(self.policy, prompts, answers, self.backbone.memory_budget)
        logprobs = token_logprobs(self._head, tokens.take(hidden), tokens.ids, self.sampling.temperature)
        return tokens.spread(logprobs), self._values(hidden)

    def _backward(self, part: Microbatch, tokens: int) -> Tensor:
        """Add the gradient of the mean loss over `tokens`; sums over tokens of the five figures of an update, (5,)."""
        settings, mask = self.settings, part.mask
        logprobs, values = self._evaluate(part.prompts, part.answers)
        policy = losses.clipped_policy_loss(logprobs, part.old_logprobs, part.advantages, mask, settings.clip, count=1)
        value = losses.clipped_value_loss(values, part.old_values, part.returns, mask, settings.value_clip, count=1)
        ((settings.policy_loss_weight * policy.loss + value) / tokens).backward()
        with torch.no_grad():
            ratio = (policy.ratio * mask).sum()
            approx_kl = (ops.kl_k3(part.old_logprobs, logprobs) * mask).sum()
            return torch.stack([policy.loss, value, ratio, approx_kl, policy.clip_fraction])

    def _backward_tapped(self, tapped: Sequence[Microbatch]) -> None:
        """Add the gradient of the mean clipped surrogate over the tokens that taps were about."""
        tokens = sum(part.counted for part in tapped)
        for part in map(Microbatch.own, tapped):
            if not part.answers:
                continue
            logprobs, _ = self._evaluate(part.prompts, part.answers)
            loss = losses.clipped_policy_loss(logprobs, part.old_logprobs, part.advantages, part.mask, self.settings.clip, max(1, tokens)).loss
            (self.settings.tap_weight * self.settings.policy_loss_weight * loss).backward()
            self.pause()

    # --- after the update --------------------------------------------------------------------------------------------

    def _stats(
        self, rollouts: Rollouts, trajectory: Trajectory, returns: Tensor, score: Tensor, kl: float, coefficient: float, updates: Sequence[_Update]
    ) -> StepStats:
        answers, tokens = len(rollouts.answers), sum(map(len, rollouts.answers))
        explained = ops.explained_variance(trajectory.values, returns, trajectory.mask)
        reward, entropy, explained_variance = torch.stack([score.sum(), trajectory.entropy.sum(), explained]).tolist()
        return StepStats(
            loss=fmean(u.policy_loss for u in updates),
            grad_norm=updates[0].grad_norm,
            tokens=tokens,
            reward=reward / answers,
            kl=kl,
            kl_coefficient=coefficient,
            approx_kl=updates[-1].approx_kl,
            ratio=updates[0].ratio,
            clip_fraction=fmean(u.clip_fraction for u in updates),
            entropy=entropy / tokens,
            value_loss=fmean(u.value_loss for u in updates),
            explained_variance=explained_variance,
            length=tokens / answers,
            no_eos=sum(stop == "length" for stop in rollouts.stops) / answers,
            learning_rate=self._policy_optimizer.learning_rate,
        )


class Trajectory(NamedTuple):
    """The rollouts as the trees see them before the update: (B, R) each, 0 outside the mask."""

    mask: Tensor  # bool, the tokens of answers
    chosen: Tensor  # bool, those that the policy drew; of what follows, all but values are 0 at the others
    logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    kl: Tensor  # exact, policy against reference
    values: Tensor


class _Update(NamedTuple):
    """One minibatch, means over its tokens; all but the norm are of before its optimizer step."""

    policy_loss: float
    value_loss: float
    ratio: float
    approx_kl: float
    clip_fraction: float
    grad_norm: float
    applied: bool
