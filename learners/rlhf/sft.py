"""Supervised fine-tuning: the adapter imitates answers that the operator wrote or corrected.

After Ouyang et al. 2022 (InstructGPT, step 1). What differs: only a LoRA is trained, the loss is taken on the answer's tokens alone and is a
mean over all answer tokens of the batch, and the tokens of a correction that the operator left alone count little. The policy drew those
itself, so imitating them teaches nothing on average: with few corrections it only memorises them, at many nats. At equal nats, three
corrections of a name then show several times as often in new answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from learners.feedback.samples import Target
from learners.model.batches import AnswerTokens
from learners.model.forward import LMHead, device_of
from learners.model.lora_forward import refresh
from learners.model.memory import MemoryBudget
from learners.model.shared_prompts import states_before
from learners.rlhf import ops, ranks
from learners.rlhf.distributions import token_logprobs
from learners.rlhf.optimizer import AdamSettings, Optimizer
from learners.rlhf.stats import StepStats


@dataclass(frozen=True)
class SFTSettings:
    """Constants of imitation."""

    learning_rate: float = 3e-5  # of the LoRA at width 2,000 (ops.rate_for_width); three corrections cost 1 nat in 6 steps, 4 in 8
    microbatch: int = 8  # answers in one forward; fewer where memory is short
    adam: AdamSettings = field(default_factory=AdamSettings)


class SFT:
    """Trains a tree's LoRA on targets. The tree stays in eval mode; nobody else may change it meanwhile."""

    def __init__(
        self,
        tree: nn.Module,
        width: int,
        settings: SFTSettings | None = None,
        pause: Callable[[], None] = lambda: None,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`width` is the model's hidden size; `pause` is called between forwards, to let others compute."""
        self.tree, self.settings, self.pause = tree, settings or SFTSettings(), pause
        self.memory, self._head = memory or MemoryBudget.of_tree(tree), LMHead(tree)
        rate = ops.rate_for_width(self.settings.learning_rate, width)
        parameters = [p for p in tree.parameters() if p.requires_grad]
        self.optimizer = Optimizer(parameters, rate, self.settings.adam, partial(refresh, tree))

    def step(self, batch: Sequence[Target]) -> StepStats:
        """One optimizer step on all of the batch. Raises ValueError when no answer token has weight, or a target's weights do not fit."""
        self.optimizer.clear()
        weights = [_weights(target) for target in batch]
        whole = sum(map(sum, weights))
        if whole <= 0:
            raise ValueError("nothing to imitate: the batch has no answer tokens")
        rate, total = self.optimizer.learning_rate, torch.zeros((), device=device_of(self.tree))
        own, own_weights = ranks.own(batch), ranks.own(weights)
        prompts, answers = [target.prompt_ids for target in own], [target.token_ids for target in own]
        for part in self.memory.parts(prompts, answers, gradients=True, most=self.settings.microbatch):
            loss = self._loss([own[i] for i in part], [w for i in part for w in own_weights[i]], whole)
            loss.backward()
            total += loss.detach()
            self.pause()
        norm = self.optimizer.step()
        (loss,) = ranks.total(float(total))
        tokens = sum(map(len, weights))
        return StepStats(loss=loss, grad_norm=norm, tokens=tokens, length=tokens / len(batch), learning_rate=rate)

    def _loss(self, targets: Sequence[Target], weights: Sequence[float], whole: float) -> Tensor:
        """Negative log-likelihood of these targets' tokens, each times its weight, over the weight of the whole batch."""
        answers = [target.token_ids for target in targets]
        device = device_of(self.tree)
        tokens, counted = AnswerTokens.of(answers, device), torch.tensor(weights, dtype=torch.float32, device=device)
        hidden = states_before(self.tree, [target.prompt_ids for target in targets], answers, self.memory)
        logprobs = token_logprobs(self._head, tokens.take(hidden), tokens.ids)
        return -(logprobs * counted).sum() / whole


def _weights(target: Target) -> tuple[float, ...]:
    weights = target.weights or (1.0,) * len(target.token_ids)
    if len(weights) != len(target.token_ids):
        raise ValueError(f"{len(weights)} weights for {len(target.token_ids)} tokens")
    return weights
