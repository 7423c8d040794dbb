"""The policy that distillation copies: `π ∝ π_reference · exp(β·Ĥ + γ·(l_critique − l_plain))`, within a budget against the base.

So what critiques ask for is absorbed as Ĥ is: the adapter acts without their words in its context (context distillation, Askell et al. 2021).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from learners.curriculum.inputs import LearnerInputs
from learners.curriculum.practice import Practice
from learners.curriculum.weights import PolicyWeights
from learners.feedback.critiques import Conversation, Critiques
from learners.human_reward.critique_bias import BiasWithCritiques, CritiqueBias, CritiqueBudget
from learners.human_reward.head import RewardHead
from learners.human_reward.kl_budget import KLBudget
from learners.human_reward.logit_bias import LogitBias
from learners.model import batches
from learners.model.batches import TokenIds
from learners.model.chat_format import PromptError
from learners.model.forward import LMHead
from learners.model.rows import Context, wish_of
from learners.rlhf.distillation import DistillBatch
from learners.rlhf.distributions import Logits
from learners.rlhf.frozen_states import FrozenStates
from learners.rlhf.rollouts import Trace, draw_answers, spoken


class DistillationTeacher:
    """Draws answers, and gives next-token logits in the states of any answer. The reference is the base, or the SFT adapter on it."""

    def __init__(self, practice: Practice, weights: PolicyWeights, share: float) -> None:
        """`share` of the nats budget is what the teacher may spend. `refresh` comes before anything else."""
        self._practice, self._weights = practice, weights
        self.share = share
        self._budget = KLBudget(0.0)
        self._base_states, self._reference_states = FrozenStates(practice.base), FrozenStates(weights.reference)
        self._reference_generation = weights.reference_generation
        self.critiques = Critiques()
        self._critique_budget, self._critique_bias = CritiqueBudget(), CritiqueBias()
        self._conversations: dict[TokenIds, Conversation] = {}
        self._contexts: dict[TokenIds, tuple[Context, ...]] = {}  # of prompts, as far as they were asked for
        self._asked: dict[TokenIds, TokenIds] = {}  # of prompts with what was thought, in the batch that is learned from: what was asked
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
        critiques = Critiques.of(inputs.feedback.lessons)
        if critiques != self.critiques:
            self.critiques = critiques
            self._critique_budget.forget()
        self._conversations, self._contexts = self._practice.conversations() if critiques.lessons else {}, {}
        self._solve_critiques()

    def checkpoint(self) -> dict[str, Any]:
        """What was drawn, solved and remembered; for `restore`."""
        remembered = [states.checkpoint() for states in (self._base_states, self._reference_states)]
        beta = self.steering.beta if hasattr(self, "steering") else None
        visited = self._budget.checkpoint(), self._critique_budget.checkpoint()
        return {"share": self.share, "beta": beta, "visited": visited, "states": remembered, "generation": self._reference_generation}

    def restore(self, saved: Mapping[str, Any], inputs: LearnerInputs) -> None:
        """Go on from a checkpoint that was taken with these inputs."""
        self.share, self._reference_generation = saved["share"], saved["generation"]
        for states, known in zip((self._base_states, self._reference_states), saved["states"], strict=True):
            states.restore(known)
        if saved["beta"] is not None:
            self.refresh(inputs)
            self.steering = LogitBias(inputs.head, saved["beta"])
        self._budget.restore(saved["visited"][0])
        self._critique_budget.restore(saved["visited"][1])
        if saved["beta"] is not None:
            self._solve_critiques()

    @property
    def beta(self) -> float:
        """Strength of Ĥ where it is not weakened for critiques of single prompts."""
        wishes = any(each.judgement.scope == "all" for each in self.critiques.lessons)  # type: ignore[union-attr]
        return self.steering.beta * (self._critique_bias.share if wishes else 1.0)

    def start_over(self) -> None:
        """Forget the answers drawn so far: training begins again from the reference."""
        self._budget = KLBudget(0.0)
        self._critique_budget.forget()

    def draw(self, prompts: list[TokenIds]) -> list[Trace]:
        """One answer to each prompt."""
        practice, weights = self._practice, self._weights
        traces = draw_answers(
            practice.backbone, weights.reference, prompts, practice.sampling, practice.new_seed(),
            adapter=weights.imitates, steering=self._bias, keep_states=True, pause=practice.pause,
            contexts=[self._contexts_of(prompt) for prompt in prompts] if self.critiques.lessons else (),
        )  # fmt: skip
        self._remember(traces)
        return traces

    def batch(self, traces: Sequence[Trace]) -> tuple[DistillBatch, frozenset[int]]:
        """To learn these from it next, and the critiques that speak in what it says there."""
        prompts, answers = spoken(self._practice.backbone, traces)
        self._asked = {prompt: trace.prompt_ids for prompt, trace in zip(prompts, traces, strict=True)}
        criticised = {trace.prompt_ids for trace in traces if self.critiques.lessons and self._contexts_of(trace.prompt_ids)}
        said = frozenset(lesson.seq for prompt in criticised for lesson in self.critiques.holding(self._conversations[prompt]))
        return DistillBatch(prompts, answers), said

    def __call__(self, prompts: Sequence[batches.TokenIds], answers: Sequence[batches.TokenIds]) -> Logits:
        """The logits before each of the answers' tokens, one answer after the other; critiques speak in those of the `batch`."""
        bias_of, imitates = self._bias, self._weights.imitates
        base = self._base_states.before(prompts, answers)
        reference = self._of_reference().before(prompts, answers) if imitates else base
        head = LMHead(self._practice.base)  # the reference has the same
        contexts = self._states_in_contexts(prompts, answers, base)

        def logits(rows: slice) -> Tensor:
            base_logits = head(base[rows])
            acting = head(reference[rows]) if imitates else base_logits
            bias = bias_of.bias(base[rows], base_logits)
            if contexts:
                said = [(head(states[rows][there]), there.nonzero()[:, 0], strengths[rows][there])
                        for states, strengths in contexts if (there := strengths[rows, 0] != 0).any()]  # fmt: skip
                if said:
                    texts, of, strengths = (torch.cat(each) for each in zip(*said, strict=True))
                    criticised = torch.zeros(len(base_logits), 1, dtype=torch.bool, device=of.device).index_fill_(0, of, True)
                    bias = bias_of.criticised(base[rows], base_logits, wish_of(base_logits, texts, of, strengths), criticised)
            return acting if bias is None else acting + bias

        return logits

    @property
    def _bias(self) -> BiasWithCritiques:
        return BiasWithCritiques(self.steering, self._critique_bias)

    def _states_in_contexts(
        self, prompts: Sequence[batches.TokenIds], answers: Sequence[batches.TokenIds], base: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """As many times as a prompt has contexts at most: states (N, d) before all answers' tokens, and strengths (N, 1), 0 where there is none."""
        found = [self._contexts_with_thought(tuple(prompt)) for prompt in prompts] if self.critiques.lessons else []
        made = []
        for place in range(max(map(len, found), default=0)):
            there = [contexts[place] if place < len(contexts) else Context(0.0, tuple(p)) for contexts, p in zip(found, prompts, strict=True)]
            strengths = [context.strength for context, answer in zip(there, answers, strict=True) for _ in answer]
            states = self._base_states.before([context.prompt_ids for context in there], answers)
            made.append((states, torch.tensor(strengths, device=base.device)[:, None]))
        return made

    def _contexts_with_thought(self, prompt: TokenIds) -> list[Context]:
        """Of a prompt with what was thought before the answer, which stands behind what was asked in each context too."""
        asked = self._asked.get(prompt, prompt)
        return [Context(context.strength, (*context.prompt_ids, *prompt[len(asked) :])) for context in self._contexts_of(asked)]

    def _contexts_of(self, prompt: TokenIds) -> tuple[Context, ...]:
        """Of the critiques that hold for it; none where it does not fit with them, or where it is not known what it was made of."""
        if prompt not in self._contexts:
            messages, backbone = self._conversations.get(prompt), self._practice.backbone
            room = backbone.most_tokens(self._practice.sampling)
            asked = self.critiques.contexts(messages, backbone.chat_template) if messages else []
            self._contexts[prompt] = ()
            with contextlib.suppress(PromptError):
                fitted = [(strength, *backbone.fit(each, room)) for strength, each in asked]
                if not any(cut for _, _, cut in fitted):
                    self._contexts[prompt] = tuple(Context(strength, tuple(ids)) for strength, ids, _ in fitted)
        return self._contexts[prompt]

    def _solve_critiques(self) -> None:
        if self.critiques.lessons:
            found = self._critique_budget.solve(self.steering, self._budget.nats, self._practice.sampling.temperature)
            self._critique_bias = found or CritiqueBias()

    def _of_reference(self) -> FrozenStates:
        if self._reference_generation != self._weights.reference_generation:
            self._reference_generation = self._weights.reference_generation
            self._reference_states.forget()
        return self._reference_states

    def _remember(self, traces: list[Trace]) -> None:
        for trace in traces:
            if trace.ids:
                self._budget.visited(trace.visited(self._practice.sampling.temperature))
                if self._contexts.get(trace.prompt_ids) and (states := trace.criticised()) is not None:
                    self._critique_budget.visited(states)
        self._solve_critiques()
