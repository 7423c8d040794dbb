"""The policy that distillation copies: `π ∝ π_reference · exp(β·Ĥ)`, with β solved so that it stays within a budget against the base."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from learners.curriculum.inputs import LearnerInputs, TokenIds
from learners.curriculum.practice import Practice
from learners.curriculum.weights import PolicyWeights
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import KLBudget
from learners.human_reward.logit_bias import LogitBias
from learners.model import batches
from learners.model.forward import LMHead
from learners.rlhf.distributions import Logits
from learners.rlhf.frozen_states import FrozenStates
from learners.rlhf.rollouts import Trace, draw_answers


class DistillationTeacher:
    """Draws answers, and gives next-token logits in the states of any answer. The reference is the base, or the SFT adapter on it."""

    def __init__(self, practice: Practice, weights: PolicyWeights, share: float) -> None:
        """`share` of the nats budget is what the teacher may spend. `refresh` comes before anything else."""
        self._practice, self._weights = practice, weights
        self.share = share
        self._budget = KLBudget(0.0)
        self._base_states, self._reference_states = FrozenStates(practice.base), FrozenStates(weights.reference)
        self._reference_generation = weights.reference_generation
        self.head: RewardHead
        self.steering: LogitBias

    def refresh(self, inputs: LearnerInputs) -> None:
        """Use Ĥ and the budget of these inputs; β is solved on the answers drawn last."""
        temperature = self._practice.sampling.temperature
        self._budget.nats = self.share * inputs.nats
        self.head = inputs.head
        if not self._budget.answers:
            self._budget.calibrate([trace.visited(temperature) for trace in self._practice.base_answers()])
        self.steering = self._budget.solve(LogitBias(self.head), temperature)

    def start_over(self) -> None:
        """Forget the answers drawn so far: training begins again from the reference."""
        self._budget = KLBudget(0.0)

    def draw(self, prompts: list[TokenIds]) -> list[Trace]:
        """One answer to each prompt."""
        practice, weights = self._practice, self._weights
        traces = draw_answers(
            practice.backbone, weights.reference, prompts, practice.sampling, practice.new_seed(),
            adapter=weights.imitates, steering=self.steering, keep_states=True, pause=practice.pause,
        )  # fmt: skip
        self._remember(traces)
        return traces

    def __call__(self, prompts: Sequence[batches.TokenIds], answers: Sequence[batches.TokenIds]) -> Logits:
        """The logits before each of the answers' tokens, one answer after the other."""
        steering, imitates = self.steering, self._weights.imitates
        base = self._base_states.before(prompts, answers)
        reference = self._of_reference().before(prompts, answers) if imitates else base
        head = LMHead(self._practice.base)  # the reference has the same

        def logits(rows: slice) -> Tensor:
            base_logits = head(base[rows])
            acting = head(reference[rows]) if imitates else base_logits
            bias = steering.bias(base[rows], base_logits)
            return acting if bias is None else acting + bias

        return logits

    def _of_reference(self) -> FrozenStates:
        if self._reference_generation != self._weights.reference_generation:
            self._reference_generation = self._weights.reference_generation
            self._reference_states.forget()
        return self._reference_states

    def _remember(self, traces: list[Trace]) -> None:
        for trace in traces:
            if trace.ids:
                self._budget.visited(trace.visited(self._practice.sampling.temperature))
