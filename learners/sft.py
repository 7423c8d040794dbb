"""Supervised fine-tuning: the adapter imitates answers that the operator wrote or corrected.

After Ouyang et al. 2022 (InstructGPT, step 1). What differs: only a LoRA is trained, the loss is taken on the answer's tokens alone, and the
mean is over all answer tokens of the batch, so a long answer weighs more than a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from learners import losses, ops
from learners.backbone import forward
from learners.examples import Stats, Target
from learners.optimizer import AdamSettings, Optimizer


@dataclass(frozen=True)
class SFTSettings:
    """Constants of imitation."""

    learning_rate: float = 2e-4  # of the LoRA at width 2,000 (ops.rate_for_width)
    microbatch: int = 8  # answers in one forward
    adam: AdamSettings = field(default_factory=AdamSettings)


class SFT:
    """Trains a tree's LoRA on targets. The tree stays in eval mode; nobody else may change it meanwhile."""

    def __init__(
        self, tree: nn.Module, width: int, settings: SFTSettings | None = None, pause: Callable[[], None] = lambda: None
    ) -> None:
        """`width` is the model's hidden size; `pause` is called between forwards, to let others compute."""
        self.tree, self.settings, self.pause = tree, settings or SFTSettings(), pause
        rate = ops.rate_for_width(self.settings.learning_rate, width)
        parameters = [p for p in tree.parameters() if p.requires_grad]
        self._device = parameters[0].device
        self._optimizer = Optimizer(parameters, rate, self.settings.adam)

    def step(self, batch: Sequence[Target]) -> Stats:
        """One optimizer step on all of the batch. Raises ValueError when it has no answer token."""
        tokens = sum(len(target.token_ids) for target in batch)
        if tokens == 0:
            raise ValueError("nothing to imitate: the batch has no answer tokens")
        rate = self._optimizer.learning_rate
        total = 0.0
        for start in range(0, len(batch), self.settings.microbatch):
            part = batch[start : start + self.settings.microbatch]
            padded = ops.pad([t.prompt_ids for t in part], [t.token_ids for t in part], self._device)
            output = forward(self.tree, padded.input_ids, padded.attention_mask, keep=padded.keep)
            loss = losses.token_nll(output.logits[:, :-1], padded.answer_ids, padded.answer_mask, tokens)
            loss.backward()
            total += float(loss)
            self.pause()
        norm = self._optimizer.step()
        return Stats(loss=total, grad_norm=norm, tokens=tokens, length=tokens / len(batch), learning_rate=rate)

    def reset_optimizer(self) -> None:
        """Forget the optimizer's state: other weights have been loaded into the tree."""
        self._optimizer.reset()
