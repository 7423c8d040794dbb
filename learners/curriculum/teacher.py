"""The policy that distillation copies: `π ∝ π_reference · exp(β·Ĥ)`, with β solved so that it stays within a budget against the base."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from learners.curriculum.weights import TokenIds, Workshop
from learners.human_reward.kl_budget import KLBudget
from learners.human_reward.logit_bias import LogitBias
from learners.model import batches
from learners.model.forward import LMHead, device_of
from learners.model.shared_prompts import states_before
from learners.rlhf.distributions import Logits
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

    def __call__(self, prompts: Sequence[batches.TokenIds], answers: Sequence[batches.TokenIds]) -> Logits:
        """The logits before each of the answers' tokens, one answer after the other."""
        shop, steering = self._shop, self.steering
        _, mask = batches.pad_answers(answers, device_of(shop.base))
        base = states_before(shop.base, prompts, answers)[mask]
        reference = states_before(shop.reference, prompts, answers)[mask] if shop.imitates else base
        head = LMHead(shop.base)  # the reference has the same

        def logits(rows: slice) -> Tensor:
            base_logits = head(base[rows])
            acting = head(reference[rows]) if shop.imitates else base_logits
            bias = steering.bias(base[rows], base_logits)
            return acting if bias is None else acting + bias

        return logits

    def _remember(self, traces: list[Trace]) -> None:
        for trace in traces:
            if trace.ids:
                self._budget.visited(trace.visited(self._shop.sampling.temperature))
