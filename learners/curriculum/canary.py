"""The canary: what a version is like besides what the judge likes. It keeps a policy from winning by getting worse at everything else.

Four figures of its answers to the gate's prompts, beside the base's own answers: perplexity under the base, repeated four-grams (Welleck et al. 2020
count them as seq-rep-4), refusals and length; and two of its answers to twenty neutral prompts that ship with the project: their KL against the base,
exact in each state, and their loss under the base. Limits are wide: a taste may ask for short answers or rare words, and for nothing of this kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from msgspec.structs import replace
from torch import nn

from learners.human_reward.kl_budget import pooled_nats
from learners.human_reward.logit_bias import LogitBias
from learners.model.base import Backbone
from learners.model.chat_format import PromptError
from learners.model.forward import LMHead
from learners.model.shared_prompts import states_before
from learners.rlhf.distributions import token_logprobs
from learners.rlhf.rollouts import Trace, draw_answers, spoken
from storage.records import Canary, Message, Sampling

NEUTRAL_PROMPTS = (
    "How does a seed become a plant?", "What do people mean by a good friend?", "Name three things that are found in a kitchen.",
    "Describe a quiet street in the morning.", "Why is the sky dark at night?", "How would you explain a map to a child?",
    "What can one do on a rainy day?", "Tell me how bread is made.", "What is the difference between a lake and a river?",
    "Write a sentence about a train.", "How do I fold a letter?", "Which animals live in a forest?", "What happens when water boils?",
    "Give me a short list for a picnic.", "Why do we have seasons?", "How long is a week, and why?", "What does a doctor do all day?",
    "Describe your favourite kind of weather.", "How do bicycles stay upright?", "What would you ask somebody you have just met?",
)  # fmt: skip
"""Ordinary questions that no taste is about."""
NEUTRAL_TOKENS = 32
"""Of an answer to one of them, at most."""
GRAM = 4
REFUSAL_MARKS = (
    "i can't", "i cannot", "i can not", "i'm unable", "i am unable", "i'm not able", "i am not able",
    "i won't", "i will not", "i'm sorry", "i am sorry",
    "sorry, but", "as an ai", "i must decline", "i don't feel comfortable",
)  # fmt: skip
REFUSAL_REACH = 120
"""Characters at the beginning of an answer, in which a refusal says so."""


@dataclass(frozen=True)
class CanaryLimits:
    """How far a version's figures may go beyond the base's."""

    perplexity: float = 4.0  # times the base's, on prompts like those that were taught: four rankings of a small model may double it
    neutral_perplexity: float = 2.0  # … and on the neutral ones
    repetition: float = 0.3  # more of all four-grams
    refusals: float = 0.25  # more of all answers
    length: float = 0.1  # of the base's, at least
    neutral_nats: float = 2.0  # times the budget


class CanaryGauge:
    """Takes the figures. Keeps the base's, which do not change, and the neutral prompts in tokens."""

    def __init__(
        self,
        backbone: Backbone,
        base: nn.Module,
        base_answers: Callable[[], Sequence[Trace]],
        sampling: Sampling,
        limits: CanaryLimits | None = None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """base: a tree without an adapter, of the thread that calls; base_answers: some of its answers to prompts like the gate's."""
        self._backbone, self._base, self._base_answers = backbone, base, base_answers
        self._limits, self._pause = limits or CanaryLimits(), pause
        self._sampling = sampling
        self._neutral_sampling = replace(sampling, max_new_tokens=min(NEUTRAL_TOKENS, sampling.max_new_tokens), max_thinking_tokens=None)
        self.neutral_loss: float | None = None  # of the base itself, from the first gate on

    def of(self, tree: nn.Module, steering: LogitBias | None, answers: Sequence[Trace], seed: int) -> Canary:
        """Of the policy in `tree`, steered as given, whose `answers` to the gate's prompts are there."""
        ours, theirs = self._figures(answers), self._base_figures
        neutral = self._draw(tree, seed, True, steering)
        if self.neutral_loss is None:
            self.neutral_loss = self._loss(self._draw(self._base, seed, False, None))
        perplexity, repetition, refusals, length = zip(ours, theirs, strict=True)
        return Canary(
            perplexity, repetition, refusals, length,
            neutral_kl=round(pooled_nats([t.kl for t in neutral], [len(t.ids) for t in neutral]), 4) if neutral else 0.0,
            neutral_loss=(round(self._loss(neutral), 4), round(self.neutral_loss, 4)),
        )  # fmt: skip

    def objection(self, canary: Canary, nats: float) -> str:
        """What has become so much worse that winning does not excuse it, in words; '' for nothing."""
        limits, allowed = self._limits, math.log(self._limits.neutral_perplexity)
        (perplexity, base_perplexity), (repetition, base_repetition) = canary.perplexity, canary.repetition
        (refusals, base_refusals), (length, base_length), (loss, base_loss) = canary.refusals, canary.length, canary.neutral_loss
        found = (
            (not perplexity <= limits.perplexity * base_perplexity, f"perplexity under the base {perplexity:.1f}, its own {base_perplexity:.1f}"),
            (repetition > base_repetition + limits.repetition, f"repeats {repetition:.0%} of what it says, the base {base_repetition:.0%}"),
            (refusals > base_refusals + limits.refusals, f"refuses {refusals:.0%} of prompts, the base {base_refusals:.0%}"),
            (length < limits.length * base_length, f"answers have {length:.0f} tokens, the base's {base_length:.0f}"),
            (canary.neutral_kl > limits.neutral_nats * nats, f"{canary.neutral_kl:.1f} nats on neutral prompts, the budget is {nats:g}"),
            (not loss <= base_loss + allowed, f"loss of {loss:.2f} on neutral prompts, the base {base_loss:.2f}"),
        )
        return "; ".join(words for bad, words in found if bad)

    @cached_property
    def _base_figures(self) -> tuple[float, float, float, float]:
        return self._figures(self._base_answers())

    def _figures(self, answers: Sequence[Trace]) -> tuple[float, float, float, float]:
        """Perplexity under the base, repeated share, refused share, mean tokens."""
        texts = [self._backbone.decode(ids) for ids in spoken(self._backbone, answers)[1]]
        refused = sum(is_refusal(text) for text in texts) / max(1, len(texts))
        tokens = sum(len(t.ids) for t in answers) / max(1, len(answers))
        perplexity = math.exp(min(700.0, self._loss(answers)))
        return round(perplexity, 3), round(repeated_share([t.ids for t in answers]), 4), round(refused, 4), round(tokens, 2)

    def _loss(self, answers: Sequence[Trace]) -> float:
        return loss_under(self._backbone, self._base, answers, self._pause)

    def _draw(self, tree: nn.Module, seed: int, adapter: bool, steering: LogitBias | None) -> list[Trace]:
        return draw_answers(self._backbone, tree, self._prompts, self._neutral_sampling, seed, adapter=adapter, steering=steering, pause=self._pause)

    @cached_property
    def _prompts(self) -> list[tuple[int, ...]]:
        """The neutral ones, as far as the model can read them."""
        found = []
        for text in NEUTRAL_PROMPTS:
            try:
                found.append(tuple(self._backbone.fit((Message("user", text),), self._neutral_sampling.max_new_tokens)[0]))
            except PromptError:
                continue
        return found


@torch.no_grad()
def loss_under(backbone: Backbone, base: nn.Module, answers: Sequence[Trace], pause: Callable[[], None] = lambda: None) -> float:
    """Of answers under a tree without an adapter, at temperature 1, in nats a token; `pause` is called between forwards."""
    total, count, head = 0.0, 0, LMHead(base)
    prompts, ids = [t.prompt_ids for t in answers], [tuple(t.ids) for t in answers]
    for part in backbone.memory_budget.parts(prompts, ids, gradients=False):
        hidden = states_before(base, [prompts[i] for i in part], [ids[i] for i in part])
        for row, i in enumerate(part):
            start, stop = answers[i].forced
            drawn = [j for j in range(len(ids[i])) if not start <= j < stop]
            taken = torch.tensor([ids[i][j] for j in drawn], dtype=torch.int64, device=hidden.device)
            total -= float(token_logprobs(head, hidden[row, drawn], taken).cpu().double().sum())
            count += len(taken)
        pause()
    return total / max(1, count)


def repeated_share(answers: Sequence[Sequence[int]]) -> float:
    """Share of four-grams of tokens that their own answer had said before; 0 where there are none."""
    total = distinct = 0
    for ids in answers:
        grams = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
        total, distinct = total + len(grams), distinct + len({*grams})
    return 1 - distinct / total if total else 0.0


def is_refusal(text: str) -> bool:
    """Whether an answer begins by declining, in the English phrases that chat models use for it."""
    beginning = " ".join(text.lower().replace("’", "'").split())[:REFUSAL_REACH]
    return any(mark in beginning for mark in REFUSAL_MARKS)
