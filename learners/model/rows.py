"""Rows of a decoding batch, and the mathematics of one step: pure functions of logits, on one device, without a wait for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from learners.model.truncation import Truncation


class SteeringBias(Protocol):
    """What biases the next logits. It is asked anew at every step: it may learn between tokens."""

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor | None:
        """States (K, d) and logits (K, V) of the base -> what to add to the logits (K, V), or None for nothing."""
        ...

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor | None:
        """The same where some rows have contexts: wish (K, V) is what these add to the base's logits, rows (K, 1) says which have any."""
        ...

    def fixed(self, before: FixedBias | None, device: torch.device) -> FixedBias:
        """The same in tensors that stay where they are: `before`, with what steers now copied in, or where that does not fit another one."""
        ...


class FixedBias(Protocol):
    """A bias for steps that are captured once."""

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor:
        """As SteeringBias.bias; zeros for nothing. Waits for nothing and changes nothing."""
        ...

    def criticised(self, hidden: Tensor, base_logits: Tensor, wish: Tensor, rows: Tensor) -> Tensor:
        """As SteeringBias.criticised, in the same way."""
        ...


KeysValues = list[tuple[Tensor, Tensor]]
"""Of each layer keys and values (rows, heads, n, width)."""


PLAUSIBLE = 0.1
"""Of the likeliest token's probability (Li et al. 2023, contrastive decoding)."""


class Context(NamedTuple):
    """A prompt with something more in it: the answer is drawn towards what the base would say then."""

    strength: float
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One answer to draw. `prefix_ids` are tokens of it that are fixed already; they count towards its length."""

    uid: str
    prompt_ids: tuple[int, ...]
    seed: int
    adapter: bool = True  # False draws from the base, on a tree with an adapter too
    steer: bool = False
    prefix_ids: tuple[int, ...] = ()
    temperature: float | None = None  # None: as that of the batch
    contexts: tuple[Context, ...] = ()  # each is one more row of the base

    @property
    def begun(self) -> tuple[int, ...]:
        """All tokens that the next one follows."""
        return (*self.prompt_ids, *self.prefix_ids)


class Drawn(NamedTuple):
    """One token of each of K live answers; see sampling.Step."""

    ids: list[int]
    logprobs: list[float]
    unbiased_logprobs: list[float]
    kl: list[float]
    hidden: Tensor  # (K, d)
    base_logits: Tensor  # (K, V)
    policy_logits: Tensor  # (K, V)
    wish: Tensor | None = None  # (K, V)


NOT_FINITE = "the model's numbers are not finite, and no token can be drawn by them"
WHY_NOT_FINITE = "its weights are damaged, or an adapter has run away from them: fetch the model again, or go back to an earlier version"


class Layout:
    """What follows from which rows live: K of them, then one row of the base for each that has a twin, then one for each context."""

    def __init__(self, rows: Sequence[Row], adapted: bool, twin: bool, device: torch.device) -> None:
        """adapted: whether the tree has an adapter. twin: whether rows with the adapter get a row of the base."""
        k = len(rows)
        twins = [i for i, row in enumerate(rows) if row.adapter] if twin and adapted else []
        contexts = [(i, context) for i, row in enumerate(rows) for context in row.contexts]
        self.source = [*range(k), *twins, *(i for i, _ in contexts)]  # batch row -> live row
        self.adapter = [adapted and row.adapter for row in rows] + [False] * (len(twins) + len(contexts))  # of each batch row
        self.begun = [rows[i].begun for i in self.source[: k + len(twins)]] + [(*c.prompt_ids, *rows[i].prefix_ids) for i, c in contexts]
        self._twins = len(twins)
        self.twinned = bool(twins)
        self.all_twinned = len(twins) == k
        where = {row: k + i for i, row in enumerate(twins)}
        self.base_rows = torch.tensor([where.get(i, i) for i in range(k)], device=device)
        self.scaling = None if not adapted or all(self.adapter) else torch.tensor([float(each) for each in self.adapter], device=device)
        self.any_steered = any(row.steer for row in rows)
        self.steered = torch.tensor([[float(row.steer)] for row in rows], device=device)
        self.criticised = torch.tensor([[bool(row.contexts)] for row in rows], device=device)
        self._contexts = contexts
        self._of = torch.tensor([i for i, _ in contexts], dtype=torch.long, device=device)
        self._strengths = torch.tensor([[c.strength] for _, c in contexts], device=device)

    def split(self, logits: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of all batch rows: the policy's logits (K, V), the base's logits (K, V) and the base's states (K, d)."""
        k = len(self.base_rows)
        if not self._twins:
            own = logits[:k]
            return own, own, hidden[:k]
        if self.all_twinned:
            return logits[:k], logits[k : 2 * k], hidden[k : 2 * k]
        return logits[:k], logits[self.base_rows], hidden[self.base_rows]

    def wish(self, logits: Tensor, base: Tensor) -> Tensor | None:
        """What the contexts make likelier than the base by itself does, each by its strength: (K, V), of logits of all batch rows and the base's
        (K, V); -inf for tokens that are plausible neither in a row's contexts nor without. None where no row has a context."""
        return wish_of(base, logits[-len(self._of) :], self._of, self._strengths) if len(self._of) else None

    def contexts(self) -> tuple[Tensor, Tensor]:
        """The same for as many contexts of each row as any row has, C: their batch rows (K C,), and strengths (K, C), 0 where there is none."""
        if not self._contexts:
            return self.base_rows[:0], self.steered[:, :0]
        k = len(self.base_rows)
        of = [[(j, context.strength) for j, (i, context) in enumerate(self._contexts, start=k + self._twins) if i == row] for row in range(k)]
        most = max(map(len, of))
        padded = [each + [(row, 0.0)] * (most - len(each)) for row, each in enumerate(of)]
        device = self.base_rows.device
        rows = torch.tensor([j for each in padded for j, _ in each], dtype=torch.long, device=device)
        return rows, torch.tensor([[strength for _, strength in each] for each in padded], device=device).view(k, most)


def wish_of(base: Tensor, said: Tensor, of: Tensor, strengths: Tensor) -> Tensor:
    """See Layout.wish. base: logits (K, V); said: logits (M, V) in contexts of rows `of` (M,), with strengths (M, 1), 0 for what is no context."""
    plain, there = base[of], strengths != 0
    more = ((said - plain) * strengths).nan_to_num_(0.0, 0.0, 0.0)  # tokens that cannot come have -inf on both sides
    found, own = (each >= each.amax(1, keepdim=True) + math.log(PLAUSIBLE) for each in (said, plain))
    none = base.new_ones(len(base), 1).index_add_(0, of, there.to(base.dtype), alpha=-2) > 0  # of rows without any context
    plausible = none | (torch.zeros_like(base).index_add_(0, of, ((found | own) & there).to(base.dtype)) > 0)
    return torch.zeros_like(base).index_add_(0, of, more.to(base.dtype)).masked_fill_(~plausible, -math.inf)


def uniforms_of(rows: Sequence[Row], count: int, device: torch.device) -> Tensor:
    """(K, count): a number for each token of each answer, from its own seed; the same for a resumed answer at the same position."""
    drawn = [torch.rand(count, generator=torch.Generator().manual_seed(row.seed), dtype=torch.float64) for row in rows]
    return torch.stack(drawn).to(_widest(device)).to(device)


def temperatures(rows: Sequence[Row], usual: float, device: torch.device) -> Tensor:
    """(K, 1)"""
    return torch.tensor([[usual if row.temperature is None else row.temperature] for row in rows], device=device)


def draw_tokens(
    policy: Tensor, base: Tensor, biased: Tensor | None, temperature: float | Tensor, uniforms: Tensor, truncation: Truncation | None = None
) -> Tensor:
    """Draw from softmax(acting / temperature), truncated or not, by where `uniforms` (K,) fall in the cumulated probabilities.

    policy, base: logits (K, V), the same tensor where the base draws. biased: the acting logits where they are not the policy's. temperature: () or
    (K, 1). Gives (4, K): tokens, their log-probabilities under the distribution that they were drawn from, and under the policy without bias and
    truncation, and the exact KL(acting || base) in nats, without truncation too; float64 where the device has it.
    """
    acting = policy if biased is None else biased
    logprobs = (acting / temperature).log_softmax(-1)
    unbiased = logprobs if biased is None else (policy / temperature).log_softmax(-1)
    at_base = unbiased if base is policy else (base / temperature).log_softmax(-1)
    probabilities = logprobs.exp()
    drawn_by = logprobs if truncation is None else truncation.logprobs(acting, temperature)
    tokens = inverse_cdf(probabilities if truncation is None else drawn_by.exp(), uniforms)
    nats = torch.zeros_like(uniforms)
    if at_base is not logprobs:  # what cannot be drawn costs nothing, also at -inf
        nats = torch.where(probabilities == 0, 0.0, probabilities * (logprobs - at_base)).sum(1)
    taken = (each.gather(1, tokens[:, None])[:, 0] for each in (drawn_by, unbiased))
    return torch.stack([each.to(uniforms.dtype) for each in (tokens, *taken, nats)])


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """(K, V), (K,) in [0, 1) -> (K,) the token at that point of the cumulated probabilities; float64, so that rare tokens keep their share."""
    if probabilities.device.type == "mps":  # no float64 there
        return inverse_cdf(probabilities.cpu(), uniforms.cpu()).to(probabilities.device)
    cumulated = probabilities.cumsum(-1, dtype=torch.float64)
    points = (uniforms * cumulated[:, -1])[:, None]
    return torch.searchsorted(cumulated, points, right=True)[:, 0].clamp_max_(probabilities.shape[1] - 1)


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
