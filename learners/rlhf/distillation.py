"""Distillation: the adapter absorbs the steered policy, `π ∝ π_base · exp(β·Ĥ)`, so that it acts the same without the bias.

After Hinton et al. 2015. A myopic reward under a KL penalty has a known optimum (Korbak et al. 2022: RL with a KL penalty is Bayesian
inference), which is the policy that Ĥ already steers; so it need not be searched for by reinforcement. What differs: the teacher is the base
itself with a bias on its logits, the loss is KL(teacher || adapter) over the whole vocabulary at temperature 1 in every state of answers that
the teacher drew. The teacher's weights stand still, so its states are computed once for each answer, however often it is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from learners.model.batches import AnswerTokens, TokenIds
from learners.model.forward import LMHead, device_of
from learners.model.lora_forward import refresh
from learners.model.memory import MemoryBudget
from learners.model.shared_prompts import states_before
from learners.rlhf import ops, ranks
from learners.rlhf.distributions import Logits, forward_kl
from learners.rlhf.optimizer import AdamSettings, Optimizer
from learners.rlhf.stats import StepStats

Teacher = Callable[[Sequence[TokenIds], Sequence[TokenIds]], Logits]
"""Prompts and answers -> the teacher's next-token logits before each of the answers' tokens, one answer after the other."""


@dataclass(frozen=True)
class DistillSettings:
    """Constants of distillation."""

    learning_rate: float = 3e-4  # of the LoRA at width 2,000 (ops.rate_for_width) …
    highest_rate: float = 1.5e-3  # … and at any width: beyond it the smallest models overshoot the budget
    microbatch: int = 8  # answers in one forward; fewer where memory is short
    adam: AdamSettings = field(default_factory=AdamSettings)


@dataclass(frozen=True)
class DistillBatch:
    """Answers whose states the adapter is to learn in, drawn by the teacher."""

    prompts: Sequence[tuple[int, ...]]
    answers: Sequence[tuple[int, ...]]


class Distill:
    """Trains a tree's LoRA towards a teacher. The tree stays in eval mode; nobody else may change it meanwhile."""

    def __init__(
        self,
        tree: nn.Module,
        teacher: Teacher,
        width: int,
        settings: DistillSettings | None = None,
        pause: Callable[[], None] = lambda: None,
        memory: MemoryBudget | None = None,
    ) -> None:
        """`width` is the model's hidden size; `pause` is called between forwards, to let others compute."""
        self.tree, self.teacher = tree, teacher
        self.settings, self.pause = settings or DistillSettings(), pause
        self.memory, self._head = memory or MemoryBudget.of_tree(tree), LMHead(tree)
        rate = min(ops.rate_for_width(self.settings.learning_rate, width), self.settings.highest_rate)
        parameters = [p for p in tree.parameters() if p.requires_grad]
        self.optimizer = Optimizer(parameters, rate, self.settings.adam, partial(refresh, tree))

    def step(self, batch: DistillBatch) -> StepStats:
        """One optimizer step on all of the batch; `loss` is in nats per token and `kl` in nats per answer from teacher to adapter.

        Raises ValueError when the batch has no answer token.
        """
        tokens = sum(map(len, batch.answers))
        if tokens == 0:
            raise ValueError("nothing to distil: the batch has no answer tokens")
        self.optimizer.clear()
        rate = self.optimizer.learning_rate
        total = torch.zeros((), device=device_of(self.tree))
        prompts, answers = ranks.own(batch.prompts), ranks.own(batch.answers)
        for part in self.memory.parts(prompts, answers, gradients=True, most=self.settings.microbatch):
            if not any(answers[i] for i in part):
                continue
            loss = self._loss([prompts[i] for i in part], [answers[i] for i in part]) / tokens
            loss.backward()
            total += loss.detach()
            self.pause()
        norm = self.optimizer.step()
        (nats,) = ranks.total(float(total))
        n = len(batch.answers)
        return StepStats(loss=nats, grad_norm=norm, tokens=tokens, kl=nats * tokens / n, length=tokens / n, learning_rate=rate)

    def _loss(self, prompts: Sequence[TokenIds], answers: Sequence[TokenIds]) -> Tensor:
        """Nats from teacher to adapter, summed over the answers' tokens."""
        tokens = AnswerTokens.of(answers, device_of(self.tree))
        with torch.no_grad():
            wanted = self.teacher(prompts, answers)
        self.pause()
        return forward_kl(self._head, tokens.take(states_before(self.tree, prompts, answers, self.memory)), wanted).sum()
