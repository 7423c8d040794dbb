"""Next-token distributions from states, a chunk of positions at a time: what losses and PPO need of them is one number for each position.

Nothing of shape (N, V) outlives its chunk. In the forward pass each chunk's gradient is taken down to its states at once, (n, d) numbers, which the
backward pass only scales: a position's number depends on its own state alone, and the LM head is frozen. The idea is that of fused linear
cross-entropy (Wijmans et al. 2024, Cut Your Losses); here any head of a `transformers` model serves, and any number of this form.

Notation: N positions, d their width, V vocabulary; `head` gives logits (n, V) of states (n, d). Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Head(Protocol):
    """An LM head apart from its model's body."""

    positions: int  # states to give it at once

    def __call__(self, hidden: Tensor) -> Tensor:
        """States (n, d) -> logits (n, V)."""
        ...


Logits = Callable[[slice], Tensor]
"""Some of N positions -> their logits (n, V), made when they are asked for."""


def token_logprobs(head: Head, hidden: Tensor, token_ids: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of the token taken in each state: (N, d), (N,) -> (N,). Gradients flow into the states."""

    def taken(logits: Tensor, rows: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        logprobs, ids = _log_softmax(logits, temperature), token_ids[rows, None]
        values = logprobs.gather(1, ids)
        if not gradient:
            return values[:, 0], None
        return values[:, 0], logprobs.exp_().neg_().scatter_add_(1, ids, torch.ones_like(values)).div_(temperature)

    return _PerPosition.apply(hidden, head, taken)


def forward_kl(head: Head, hidden: Tensor, target: Logits) -> Tensor:
    """KL(target || policy) over the whole vocabulary in each state, in nats: (N, d) -> (N,). Gradients flow into the states.

    Source: Hinton et al. 2015, at temperature 1.
    """

    def divergence(logits: Tensor, rows: slice, gradient: bool) -> tuple[Tensor, Tensor | None]:
        wanted, logprobs = target(rows).float().log_softmax(-1), logits.log_softmax(-1)
        values = expected(wanted, wanted - logprobs)
        return values, logprobs.exp_().sub_(wanted.exp_()) if gradient else None

    return _PerPosition.apply(hidden, head, divergence)


class Compared(NamedTuple):
    """What two policies say of taken tokens, (N,) each."""

    logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor  # nats
    kl: Tensor  # policy || reference, exact, in nats


@torch.no_grad()
def compare(head: Head, hidden: Tensor, ref_hidden: Tensor, token_ids: Tensor, temperature: float = 1.0) -> Compared:
    """Policy and reference over one LM head, from their states (N, d) each, in which the tokens (N,) were taken; without gradients."""
    parts = []
    for rows in chunks(len(hidden), head.positions):
        policy, reference = (_log_softmax(head(states[rows]), temperature) for states in (hidden, ref_hidden))
        taken, probabilities = token_ids[rows, None], policy.exp()
        entropy, kl = -_mean(probabilities, policy), _mean(probabilities, policy - reference)
        parts.append((policy.gather(1, taken)[:, 0], reference.gather(1, taken)[:, 0], entropy, kl))
    return Compared(*(torch.cat(each) for each in zip(*parts, strict=True)))


def expected(logprobs: Tensor, values: Tensor) -> Tensor:
    """Mean of values under a distribution, (…, V) -> (…): impossible tokens count 0 even where the value is infinite; NaN stays NaN."""
    return _mean(logprobs.exp(), values)


def _mean(probabilities: Tensor, values: Tensor) -> Tensor:
    return (probabilities * values).masked_fill_(probabilities == 0, 0.0).sum(-1)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `count` positions, `size` at a time; one empty slice where there is none."""
    return (slice(start, start + size) for start in range(0, max(1, count), size))


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature if temperature != 1.0 else logits).log_softmax(-1)


_Number = Callable[[Tensor, slice, bool], tuple[Tensor, Tensor | None]]
"""Logits (n, V) of some positions, and whether their gradient is wanted -> a number for each (n,), and its gradient (n, V)."""


class _PerPosition(torch.autograd.Function):
    """A number for each state, through the LM head; keeps its gradient (N, d) and no logits."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, number: _Number) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        values, gradients = [], []
        for rows in chunks(len(hidden), head.positions):
            with torch.set_grad_enabled(wanted):
                entering = hidden[rows].detach().requires_grad_(wanted)
                logits = head(entering)
            value, gradient = number(logits.detach(), rows, wanted)
            values.append(value)
            if gradient is not None:
                gradients += torch.autograd.grad(logits, entering, gradient)
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return upstream[0][:, None] * gradients, None, None
