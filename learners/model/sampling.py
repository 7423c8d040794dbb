"""Batched streaming sampler: one forward and one token of every live answer at a step.

Plain sampling from the acting policy, softmax((policy logits + bias) / T). The departures from a usual `generate`: every answer has its own
generator, so that a seed means the same answer whatever is drawn beside it (up to rounding); answers that share a prompt share its prefill; an
answer that ends leaves the batch; and with twin rows the base runs over the same tokens in the same forward, which gives its state and the exact
KL(acting || base) at every visited state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from learners.model.forward import Output, forward
from learners.model.lora import has_adapter, row_scaling
from storage.records import Sampling, StopReason


class SteeringBias(Protocol):
    """What biases the next logits. It is asked anew at every step: it may learn between tokens."""

    def bias(self, hidden: Tensor, base_logits: Tensor) -> Tensor | None:
        """States (K, d) and logits (K, V) of the base -> what to add to the logits (K, V), or None for nothing."""
        ...


@dataclass(frozen=True)
class Row:
    """One answer to draw. `prefix_ids` are tokens of it that are fixed already; they count towards its length."""

    uid: str
    prompt_ids: tuple[int, ...]
    seed: int
    adapter: bool = True  # False draws from the base, on a tree with an adapter too
    steer: bool = False
    prefix_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """One token of each of K live answers. Log-probabilities and KL have the temperature applied; the logits have not."""

    uids: tuple[str, ...]
    ids: list[int]  # an end token is the last id of its answer
    logprobs: list[float]  # under the distribution it was drawn from
    unbiased_logprobs: list[float]  # under the same policy without the bias
    kl: list[float]  # nats of the acting distribution against the base, exact at this state
    hidden: Tensor  # (K, d) state of the base, float32; without twin rows the policy's own
    base_logits: Tensor  # (K, V)
    policy_logits: Tensor  # (K, V) without the bias; the same object as `base_logits` without twin rows
    ended: dict[str, StopReason] = field(default_factory=dict)  # answers that got their last token here, or were stopped before it


@torch.no_grad()
def decode(
    tree: nn.Module,
    rows: Sequence[Row],
    sampling: Sampling,
    eos_ids: Collection[int],
    pad_id: int,
    steer: SteeringBias | None = None,
    twin: bool = False,
    want_stop: Callable[[], Collection[str]] = frozenset,
) -> Iterator[Step]:
    """Draw all answers in one batch, a step for each token, until all have ended.

    twin: on a tree with an adapter, rows with `adapter` get a row of the base beside them. want_stop: uids to end as 'stopped', asked before each
    step; they get no further token. Raises ValueError unless the temperature is positive. The tree may be used for other forwards between steps.
    """
    if sampling.temperature <= 0:
        raise ValueError("the temperature of plain sampling must be positive")
    ended = {row.uid: reason for row in rows if (reason := _ended_already(row, sampling, eos_ids))}
    batch = _Batch(tree, [row for row in rows if row.uid not in ended], sampling, pad_id, twin)
    while True:
        ended |= batch.drop({uid: "stopped" for uid in want_stop() if uid in batch.uids})
        if not batch.uids:
            break
        step = _draw(batch, steer, ended)
        batch.append(step.ids)
        last = {uid: r for uid, n, i in zip(step.uids, batch.lengths, step.ids, strict=True) if (r := _reason(i, n, batch, eos_ids))}
        step.ended.update(last)
        ended = {}
        yield step
        batch.drop(last)
    if ended:
        nothing = torch.empty(0, 0)
        yield Step((), [], [], [], [], nothing, nothing, nothing, ended)


def _ended_already(row: Row, sampling: Sampling, eos_ids: Collection[int]) -> StopReason | None:
    if row.prefix_ids and row.prefix_ids[-1] in eos_ids:
        return "eos"
    return "length" if len(row.prefix_ids) >= sampling.max_new_tokens else None


def _reason(token: int, length: int, batch: _Batch, eos_ids: Collection[int]) -> StopReason | None:
    if token in eos_ids:
        return "eos"
    return "length" if length >= batch.max_new_tokens else None


def _draw(batch: _Batch, steer: SteeringBias | None, ended: dict[str, StopReason]) -> Step:
    """The forward of one step and a token for each row."""
    logits, hidden = batch.forward()
    policy, base, state = batch.split(logits, hidden)
    bias = steer.bias(state, base) if steer is not None and batch.any_steered else None
    acting = policy if bias is None else policy + (bias * batch.steered).to(policy.dtype)
    logprobs = (acting / batch.temperature).log_softmax(-1)
    unbiased = logprobs if acting is policy else (policy / batch.temperature).log_softmax(-1)
    at_base = unbiased if base is policy else (base / batch.temperature).log_softmax(-1)
    probabilities = logprobs.exp()
    tokens = _inverse_cdf(probabilities, batch.uniforms())
    columns = [tokens.double(), *(t.gather(1, tokens[:, None])[:, 0].double() for t in (logprobs, unbiased))]
    if at_base is not logprobs:
        nats = torch.where(probabilities == 0, 0.0, probabilities * (logprobs - at_base))  # what cannot be drawn costs nothing, also at -inf
        columns.append(nats.sum(1).double())
    ids, acted, plain, *kl = torch.stack(columns).tolist()  # the step's only wait for the device
    spent = kl[0] if kl else [0.0] * len(ids)
    return Step(batch.uids, [int(i) for i in ids], acted, plain, spent, state, base, policy, ended)


def _inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """(K, V), (K,) in [0, 1) -> (K,) the token at that point of the cumulated probabilities; float64, so that rare tokens keep their share."""
    if probabilities.device.type == "mps":  # no float64 there
        return _inverse_cdf(probabilities.cpu(), uniforms.cpu()).to(probabilities.device)
    cumulated = probabilities.cumsum(-1, dtype=torch.float64)
    points = (uniforms * cumulated[:, -1])[:, None]
    return torch.searchsorted(cumulated, points, right=True)[:, 0].clamp_max_(probabilities.shape[1] - 1)


class _Batch:
    """The live answers: K rows, then one row of the base for each of them that has a twin, all left-padded over one cache."""

    def __init__(self, tree: nn.Module, rows: Sequence[Row], sampling: Sampling, pad_id: int, twin: bool) -> None:
        self._tree, self._pad_id = tree, pad_id
        self._device = next(tree.parameters()).device
        self.temperature, self.max_new_tokens = sampling.temperature, sampling.max_new_tokens
        self._rows = list(rows)
        self.lengths = [len(row.prefix_ids) for row in rows]
        self._uniforms = [_uniforms(row, sampling.max_new_tokens) for row in rows]
        self._adapted = has_adapter(tree)
        self._twin = twin and self._adapted
        self._past: Any = None
        self._mask = torch.empty(0)
        self._next = torch.empty(0)
        self._arrange()

    def _arrange(self) -> None:
        """What follows from which rows live."""
        self.uids = tuple(row.uid for row in self._rows)
        self._uid_set = frozenset(self.uids)
        k = len(self._rows)
        twins = [i for i, row in enumerate(self._rows) if row.adapter] if self._twin else []
        self._source = [*range(k), *twins]  # batch row -> live row
        where = {row: k + i for i, row in enumerate(twins)}
        self._base_rows = torch.tensor([where.get(i, i) for i in range(k)], device=self._device)
        self._all_twinned = len(twins) == k
        with_adapter = [float(row.adapter) for row in self._rows] + [0.0] * len(twins)
        self._scaling = None if not self._adapted or all(with_adapter) else torch.tensor(with_adapter, device=self._device)
        self.any_steered = any(row.steer for row in self._rows)
        self.steered = torch.tensor([[float(row.steer)] for row in self._rows], device=self._device)

    # --- forwards ----------------------------------------------------------------------------------------------------

    def forward(self) -> tuple[Tensor, Tensor]:
        """Logits (K + twins, V) and states (K + twins, d) of the next token."""
        output = self._prefill() if self._past is None else self._step(self._next, self._mask, self._scaling)
        return output.logits[:, 0], output.hidden[:, 0]

    def _step(self, ids: Tensor, mask: Tensor, scaling: Tensor | None) -> Output:
        with row_scaling(self._tree, scaling):  # only while it runs: between steps the tree is anyone's on this thread
            return forward(self._tree, ids, mask, self._past, keep=1)

    def _prefill(self) -> Output:
        """Run each distinct (sequence, policy) once, then give every row its copy of the cache."""
        from transformers import DynamicCache

        self._past = DynamicCache(config=self._tree.config)
        k = len(self._rows)
        sequences = [(*row.prompt_ids, *row.prefix_ids) for row in self._rows]
        keys = [(sequences[s], i < k and self._rows[s].adapter and self._adapted) for i, s in enumerate(self._source)]
        distinct = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        ids, mask = self._padded([sequence for sequence, _ in distinct])
        scaling = torch.tensor([float(adapter) for _, adapter in distinct], device=self._device)
        output = self._step(ids, mask, scaling if self._scaling is not None else None)
        if len(distinct) == len(keys):
            self._mask = mask
            return output
        back = torch.tensor([distinct[key] for key in keys], device=self._device)
        self._past.reorder_cache(back)  # the one operation by rows that every kind of layer has
        self._mask = mask[back]
        return Output(output.logits[back], output.hidden[back], output.past)

    def _padded(self, sequences: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask, (n, T) each."""
        length = max(map(len, sequences))
        ids = [[self._pad_id] * (length - len(s)) + list(s) for s in sequences]
        mask = [[0] * (length - len(s)) + [1] * len(s) for s in sequences]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def split(self, logits: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of all batch rows: the policy's logits (K, V), the base's logits (K, V) and the base's states (K, d)."""
        k = len(self._rows)
        if len(self._source) == k:
            return logits, logits, hidden
        if self._all_twinned:
            return logits[:k], logits[k:], hidden[k:]
        return logits[:k], logits[self._base_rows], hidden[self._base_rows]

    # --- rows ----------------------------------------------------------------------------------------------------------

    def uniforms(self) -> Tensor:
        """(K,) float64: each row's own next number."""
        drawn = [u[n] for u, n in zip(self._uniforms, self.lengths, strict=True)]
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        return torch.tensor(drawn, dtype=dtype, device=self._device)

    def append(self, tokens: Sequence[int]) -> None:
        """Put the drawn tokens behind the answers."""
        self.lengths = [n + 1 for n in self.lengths]
        self._next = torch.tensor([[tokens[s]] for s in self._source], device=self._device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._source), 1)], 1)

    def drop(self, ended: dict[str, StopReason]) -> dict[str, StopReason]:
        """Take ended answers out of the batch, the cache included; gives `ended` back."""
        if not ended or not self._uid_set & ended.keys():
            return ended
        kept = [i for i, row in enumerate(self._rows) if row.uid not in ended]
        live = set(kept)
        batch_rows = torch.tensor([i for i, s in enumerate(self._source) if s in live], dtype=torch.long, device=self._device)
        self._rows = [self._rows[i] for i in kept]
        self.lengths = [self.lengths[i] for i in kept]
        self._uniforms = [self._uniforms[i] for i in kept]
        self._arrange()
        if self._past is not None and kept:
            self._past.reorder_cache(batch_rows)
            self._mask, self._next = self._mask[batch_rows], self._next[batch_rows]
        return ended


def _uniforms(row: Row, count: int) -> list[float]:
    """One number per answer token, the same for a resumed answer at the same position."""
    return torch.rand(count, generator=torch.Generator().manual_seed(row.seed), dtype=torch.float64).tolist()
