"""The reward model: a LoRA and a scalar head that score answers as the operator ranks and rates them.

After Ouyang et al. 2022 (InstructGPT, step 2: Bradley-Terry over all C(K,2) pairs of one ranking together). What differs: an
answer's score is the mean over its tokens of the head's value after each token, not the value at the last one - dense, so that
few rankings suffice and PPO knows where the reward came from; rankings may have ties and be partial; centred ratings are learned
beside them by squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.feedback.samples import Comparison, Scored
from learners.model.batches import TokenIds, mask_of
from learners.model.lora_forward import refresh
from learners.model.memory import MemoryBudget
from learners.model.shared_prompts import states_after
from learners.rlhf import losses, ops, ranks
from learners.rlhf.optimizer import AdamSettings, Optimizer
from learners.rlhf.stats import StepStats


@dataclass(frozen=True)
class RewardSettings:
    """Constants of the reward model."""

    learning_rate: float = 1e-4  # of LoRA and head at width 2,000 (ops.rate_for_width)
    centring_weight: float = 0.01  # of the mean squared score beside one ranking (Eisenstein et al. 2023)
    rating_weight: float = 1.0  # of the squared error of one rating beside one ranking
    microbatch: int = 32  # answers in one forward, fewer where memory is short
    adam: AdamSettings = field(default_factory=AdamSettings)


class RewardModel:
    """Scores answers with a tree of its own; the head is a float32 linear layer beside it. The tree stays in eval mode."""

    def __init__(
        self,
        tree: nn.Module,
        width: int,
        settings: RewardSettings | None = None,
        seed: int = 0,
        pause: Callable[[], None] = lambda: None,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`width` is the model's hidden size; `pause` is called between forwards, to let others compute."""
        self.tree, self.settings, self.pause = tree, settings or RewardSettings(), pause
        self.memory = memory or MemoryBudget.of_tree(tree)
        self._lora = {name: p for name, p in tree.named_parameters() if p.requires_grad}
        self._device = next(iter(self._lora.values())).device
        self.head = _drawn_head(width, seed).to(self._device)
        self.gain, self.bias = 1.0, 0.0  # of the scores that others see; learning sees the raw ones
        rate = ops.rate_for_width(self.settings.learning_rate, width)
        self.optimizer = Optimizer([*self._lora.values(), *self.head.parameters()], rate, self.settings.adam, partial(refresh, tree))

    def step(self, batch: Sequence[Comparison | Scored]) -> StepStats:
        """One optimizer step on all of the batch; `accuracy` is of its untied pairs before the step.

        Raises ValueError on an empty batch.
        """
        if not batch:
            raise ValueError("nothing to learn: the batch is empty")
        self.optimizer.clear()
        rate = self.optimizer.learning_rate
        own = ranks.own(batch)
        found = [torch.zeros(1, device=self._device)]  # losses, then scores: looked at once, in the end
        for items in self._microbatches(own):
            loss, scores = self._backward(items, len(batch))
            found[0] = found[0] + loss
            found.append(scores)
            self.pause()
        norm = self.optimizer.step()
        loss_of_own, *of_own = torch.cat(found).tolist()
        by_item = iter(of_own)
        orders = [_right_order(item, [*islice(by_item, len(_answers(item)))]) for item in own]
        tokens = sum(len(answer) for item in own for answer in _answers(item))
        total, *counts = ranks.total(loss_of_own, sum(right for right, _ in orders), sum(pairs for _, pairs in orders), tokens)
        right, pairs, tokens = map(int, counts)
        return StepStats(loss=total, grad_norm=norm, tokens=tokens, accuracy=right / pairs if pairs else None, learning_rate=rate)

    @torch.no_grad()
    def token_rewards(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Normalised reward after each token, (B, R) float32, 0 beyond an answer's end. Their mean is the answer's score."""
        mask = mask_of(answers, self._device)
        rewards = torch.zeros(mask.shape, device=self._device)
        own = ranks.share(len(answers))
        for part in self._parts(ranks.own(prompts), ranks.own(answers), gradients=False):
            rows = [own[i] for i in part]
            raw, of_part = self._raw_rewards([prompts[i] for i in rows], [answers[i] for i in rows])
            rewards[rows, : raw.shape[1]] = (self.gain * raw + self.bias) * of_part
            self.pause()
        ranks.add_up(rewards)
        return rewards

    def token_shares(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Each token's share of its answer's score, (B, R): they add up to the score. What PPO takes as its reward."""
        lengths = torch.tensor([max(1, len(answer)) for answer in answers], device=self._device)
        return self.token_rewards(prompts, answers) / lengths[:, None]

    def score(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Normalised scores, (B,) float32; 0 for an empty answer."""
        return self.token_shares(prompts, answers).sum(1)

    def normalise(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> None:
        """Choose gain and bias so that the scores of these reference answers have mean 0 and standard deviation 1.

        Raises ValueError on fewer than two answers. Where all scores are equal the gain stays 1. Source: Ziegler et al. 2019, 2.1.
        """
        if len(answers) < 2:
            raise ValueError("normalising needs at least two reference answers")
        self.gain, self.bias = 1.0, 0.0
        scores = self.score(prompts, answers).cpu().double()  # there is no float64 on Apple's GPUs
        spread = float(scores.std(correction=0))
        self.gain = 1.0 / spread if spread > 1e-6 else 1.0
        self.bias = -self.gain * float(scores.mean())

    def state(self) -> dict[str, Tensor]:
        """LoRA, head and normalisation: copies on the CPU, ready for safetensors."""
        tensors = {f"lora.{name}": p for name, p in self._lora.items()}
        tensors |= {f"head.{name}": p for name, p in self.head.named_parameters()}
        tensors["normalisation"] = torch.tensor([self.gain, self.bias], dtype=torch.float64)
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Become the reward model that `state` came from; the optimizer starts afresh.

        Raises KeyError or RuntimeError, before anything is changed, when names or shapes are another model's.
        """
        own = self.state()
        if own.keys() != state.keys():
            raise KeyError(f"not this model's reward model: {sorted(own.keys() ^ state.keys())[:3]}")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise RuntimeError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
        for name, parameter in self._lora.items():
            parameter.copy_(state[f"lora.{name}"])
        for name, parameter in self.head.named_parameters():
            parameter.copy_(state[f"head.{name}"])
        self.gain, self.bias = state["normalisation"].tolist()
        self.reset_optimizer()

    def checkpoint(self) -> dict[str, Any]:
        """All that the next step depends on; for `restore`."""
        return {"state": self.state(), "optimizer": self.optimizer.state()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.load_state(saved["state"])
        self.optimizer.load_state(saved["optimizer"])

    def reset_optimizer(self) -> None:
        """Forget the optimizer's state: other weights have been loaded into the tree."""
        self.optimizer.reset()

    # --- the gradient ------------------------------------------------------------------------------------------------

    def _microbatches(self, batch: Sequence[Comparison | Scored]) -> Iterator[list[Comparison | Scored]]:
        """Items whose answers go into one forward; an item that does not fit stands alone."""
        items: list[Comparison | Scored] = []
        for item in batch:
            if items and not self._fit([*items, item]):
                yield items
                items = []
            items.append(item)
        if items:
            yield items

    def _fit(self, items: Sequence[Comparison | Scored]) -> bool:
        prompts, answers = _sequences(items)
        return len(answers) <= self.settings.microbatch and self.memory.fits(prompts, answers, gradients=True)

    def _backward(self, items: Sequence[Comparison | Scored], count: int) -> tuple[Tensor, Tensor]:
        """Add the gradient of these items' share of the mean loss over `count`; that share (), and the raw scores of all answers."""
        prompts, answers = _sequences(items)
        if self._fit(items):
            judged = self._judged(items)
            scores = self._raw_scores(prompts, answers)
            loss = judged.loss(scores) / count
            loss.backward()
            return loss.detach(), scores.detach()
        return self._backward_in_parts(items, prompts, answers, count)

    def _backward_in_parts(
        self, items: Sequence[Comparison | Scored], prompts: Sequence[TokenIds], answers: Sequence[TokenIds], count: int
    ) -> tuple[Tensor, Tensor]:
        """The same where the answers do not fit into one forward: scores first, without gradients; then each answer's, times d loss / d score."""
        judged = self._judged(items)
        with torch.no_grad():
            scores = torch.zeros(len(answers), device=self._device)
            for part in self._parts(prompts, answers, gradients=False):
                scores[part] = self._raw_scores([prompts[i] for i in part], [answers[i] for i in part])
                self.pause()
        scores.requires_grad_()
        loss = judged.loss(scores) / count
        (slopes,) = torch.autograd.grad(loss, scores)
        for part in self._parts(prompts, answers, gradients=True):
            (self._raw_scores([prompts[i] for i in part], [answers[i] for i in part]) * slopes[part]).sum().backward()
            self.pause()
        return loss.detach(), scores.detach()

    def _parts(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds], gradients: bool) -> list[list[int]]:
        return self.memory.parts(prompts, answers, gradients, self.settings.microbatch)

    def _raw_scores(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Scores as learned, (B,)."""
        rewards, mask = self._raw_rewards(prompts, answers)
        return (rewards * mask).sum(1) / mask.sum(1).clamp_min(1)

    def _raw_rewards(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
        """Of the states that have read each answer token (B, R), and the answers' mask (B, R)."""
        mask = mask_of(answers, self._device)  # before the forward is launched, for which it would wait
        return self.head(states_after(self.tree, prompts, answers, self.memory))[..., 0], mask

    def _judged(self, items: Sequence[Comparison | Scored]) -> _Judged:
        """A rating alone has no pairs."""
        pairs = losses.Pairs.of([(1,) if isinstance(item, Scored) else item.ranks for item in items], self._device)
        targets, weights = torch.tensor([pull for item in items for pull in self._pulls(item)], dtype=torch.float32, device=self._device).T
        return _Judged(pairs, targets, weights)

    def _pulls(self, item: Comparison | Scored) -> list[tuple[float, float]]:
        """Of each answer what its score is pulled to, and how strongly: to its rating; else to 0, together as strongly as the settings say."""
        if isinstance(item, Scored):
            return [(item.score, self.settings.rating_weight)]
        return [(0.0, self.settings.centring_weight / len(item.answers))] * len(item.answers)


class _Judged(NamedTuple):
    """What is learned from some items, on the device: tensors that are made before a forward is launched do not wait for it."""

    pairs: losses.Pairs
    targets: Tensor  # (N,) of all answers, one after the other
    weights: Tensor  # (N,)

    def loss(self, scores: Tensor) -> Tensor:
        """Scores (N,) -> (), summed over items."""
        return losses.bradley_terry(scores, self.pairs) + losses.squared_error(scores, self.targets, self.weights)


def _drawn_head(width: int, seed: int) -> nn.Linear:
    """Weights from N(0, 1 / (width + 1)), bias 0. Source: Ziegler et al. 2019's code."""
    head = nn.Linear(width, 1, dtype=torch.float32)
    with torch.no_grad():
        drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
        head.weight.copy_(drawn / math.sqrt(width + 1))
        head.bias.zero_()
    return head


def _answers(item: Comparison | Scored) -> tuple[TokenIds, ...]:
    return (item.answer,) if isinstance(item, Scored) else item.answers


def _sequences(items: Sequence[Comparison | Scored]) -> tuple[list[TokenIds], list[TokenIds]]:
    """Prompts and answers of all items, one after the other."""
    prompts = [prompt for item in items for prompt in ((item.prompt_ids,) if isinstance(item, Scored) else item.prompts)]
    return prompts, [answer for item in items for answer in _answers(item)]


def _right_order(item: Comparison | Scored, scores: Sequence[float]) -> tuple[int, int]:
    return (0, 0) if isinstance(item, Scored) else losses.right_order(scores, item.ranks)
