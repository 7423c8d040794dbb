"""Distillation: the adapter absorbs the steered policy, `π ∝ π_base · exp(β·Ĥ)`, so that it acts the same without the bias.

After Hinton et al. 2015. A myopic reward under a KL penalty has a known optimum (Korbak et al. 2022: RL with a KL penalty is Bayesian
inference), which is the policy that Ĥ already steers; so it need not be searched for by reinforcement. What differs: the teacher is the base
itself with a bias on its logits, the loss is KL(teacher || adapter) over the whole vocabulary at temperature 1 in every state of answers that
the teacher drew, and nothing but those states' tokens is stored: the teacher is computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from learners.model.forward import forward
from learners.rlhf import losses, ops
from learners.rlhf.optimizer import AdamSettings, Optimizer
from learners.rlhf.stats import StepStats

TeacherLogits = Callable[[ops.Padded], Tensor]
"""Prompts and answers -> the teacher's next-token logits before each answer token, (B, R, V)."""


@dataclass(frozen=True)
class DistillSettings:
    """Constants of distillation."""

    learning_rate: float = 3e-4  # of the LoRA at width 2,000 (ops.rate_for_width) …
    highest_rate: float = 1.5e-3  # … and at any width: beyond it the smallest models overshoot the budget
    microbatch: int = 8  # answers in one forward; fewer when they are long
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
        teacher: TeacherLogits,
        width: int,
        settings: DistillSettings | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """`width` is the model's hidden size; `pause` is called between forwards, to let others compute."""
        self.tree, self.teacher = tree, teacher
        self.settings, self.pause = settings or DistillSettings(), pause
        rate = min(ops.rate_for_width(self.settings.learning_rate, width), self.settings.highest_rate)
        parameters = [p for p in tree.parameters() if p.requires_grad]
        self._device = parameters[0].device
        self._optimizer = Optimizer(parameters, rate, self.settings.adam)

    def step(self, batch: DistillBatch) -> StepStats:
        """One optimizer step on all of the batch; `loss` is in nats per token and `kl` in nats per answer from teacher to adapter.

        Raises ValueError when the batch has no answer token.
        """
        tokens = sum(map(len, batch.answers))
        if tokens == 0:
            raise ValueError("nothing to distil: the batch has no answer tokens")
        self._optimizer.clear()
        rate = self._optimizer.learning_rate
        total = 0.0
        rows = ops.answers_per_forward(self.settings.microbatch, max(map(len, batch.answers)))
        for start in range(0, len(batch.answers), rows):
            part = slice(start, start + rows)
            padded = ops.pad(batch.prompts[part], batch.answers[part], self._device)
            loss = self._loss(padded, tokens)
            loss.backward()
            total += loss.item()
            self.pause()
        norm = self._optimizer.step()
        n = len(batch.answers)
        return StepStats(loss=total, grad_norm=norm, tokens=tokens, kl=total * tokens / n, length=tokens / n, learning_rate=rate)

    def reset_optimizer(self) -> None:
        """Forget the optimizer's state: other weights have been loaded into the tree."""
        self._optimizer.reset()

    def _loss(self, padded: ops.Padded, tokens: int) -> Tensor:
        with torch.no_grad():
            wanted = self.teacher(padded)
        self.pause()
        output = forward(self.tree, padded.input_ids, padded.attention_mask, keep=padded.keep)
        return losses.forward_kl(output.logits[:, :-1], wanted, padded.answer_mask, tokens)
