"""The policy that distillation copies: `π ∝ π_reference · exp(β·Ĥ)`, with β solved so that it stays within a budget against the base."""

from __future__ import annotations

from torch import Tensor

from learners.curriculum.weights import TokenIds, Workshop
from learners.human_reward.kl_budget import KLBudget
from learners.human_reward.logit_bias import LogitBias
from learners.model.forward import forward
from learners.rlhf import ops
from learners.rlhf.rollouts import Trace, draw_answers


class DistillationTeacher:
    """Draws answers, and gives next-token logits in the states of any answer. The reference is the base, or the SFT adapter on it."""

    def __init__(self, shop: Workshop, share: float) -> None:
        """`share` of the nats budget is what the teacher may spend."""
        self._shop = shop
        self.share = share
        self._budget = KLBudget(0.0)
        self.head = shop.inputs.head  # as it was given, wherever it lies
        self.steering = LogitBias(self.head)

    def refresh(self) -> None:
        """Use Ĥ and the budget as they are now; β is solved on the answers drawn last."""
        inputs = self._shop.inputs
        self._budget.nats = self.share * inputs.nats
        self.head = inputs.head
        if not self._budget.answers:
            self._budget.calibrate([trace.visited(self._shop.sampling.temperature) for trace in self._shop.probe(16)])
        self.steering = self._budget.solve(LogitBias(self.head), self._shop.sampling.temperature)

    def draw(self, prompts: list[TokenIds]) -> list[Trace]:
        """One answer to each prompt."""
        shop = self._shop
        traces = draw_answers(
            shop.backbone, shop.reference, prompts, shop.sampling, shop.new_seed(),
            adapter=shop.imitates, steering=self.steering, keep_states=True, pause=shop.pause,
        )  # fmt: skip
        self._remember(traces)
        return traces

    def __call__(self, batch: ops.Padded) -> Tensor:
        """(B, R, V) logits before each answer token."""
        reference = forward(self._shop.reference, batch.input_ids, batch.attention_mask, keep=batch.keep)
        base = forward(self._shop.base, batch.input_ids, batch.attention_mask, keep=batch.keep) if self._shop.imitates else reference
        bias = self.steering.bias(base.hidden[:, :-1], base.logits[:, :-1])
        logits = reference.logits[:, :-1]
        return logits if bias is None else logits + bias

    def _remember(self, traces: list[Trace]) -> None:
        for trace in traces:
            if trace.ids:
                self._budget.visited(trace.visited(self._shop.sampling.temperature))
