"""Batched streaming sampler: one forward and one token of every live answer at a step.

Sampling from the acting policy, softmax((policy logits + bias) / T), plain or truncated. The departures from a usual `generate`: every answer has
its own generator, so that a seed means the same answer whatever is drawn beside it (up to rounding); answers that share a prompt share its prefill;
an answer that ends leaves the batch; and with twin rows the base runs over the same tokens in the same forward, which gives its state and the exact
KL(acting || base) at every visited state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from learners.model.eager_rows import EagerRows
from learners.model.lora_forward import refresh
from learners.model.rows import Context, Row, SteeringBias
from learners.model.static_decoder import StaticDecoder, static_decoder
from learners.model.static_rows import StaticRows
from storage.records import Sampling, StopReason

if TYPE_CHECKING:
    from learners.model.caches import PromptCache

__all__ = ["Context", "Row", "SteeringBias", "Step", "decode"]


@dataclass(frozen=True)
class Step:
    """One token of each of K live answers. Log-probabilities and KL have the temperature applied; the logits have not. See rows.draw_tokens."""

    uids: tuple[str, ...]
    ids: list[int]  # an end token is the last id of its answer
    logprobs: list[float]  # under the distribution it was drawn from
    unbiased_logprobs: list[float]  # under the same policy without the bias, and not truncated
    kl: list[float]  # nats of the acting distribution against the base, exact at this state, not truncated
    hidden: Tensor  # (K, d) state of the base, float32; without twin rows the policy's own
    base_logits: Tensor  # (K, V)
    policy_logits: Tensor  # (K, V) without the bias; the same object as `base_logits` without twin rows
    wish: Tensor | None = None  # (K, V) what contexts add to the base's logits, each by its strength; None where no row has any
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
    force: Callable[[], Mapping[str, Sequence[int]]] = dict,
    prompts: PromptCache | None = None,
    decoder: StaticDecoder | None = None,
    ahead: int = 1,
) -> Iterator[Step]:
    """Draw all answers in one batch, a step for each token, until all have ended.

    twin: on a tree with an adapter, rows with `adapter` get a row of the base beside them. want_stop: uids to end as 'stopped', asked before each
    step; they get no further token. force: tokens to put behind answers, asked after that: all go on as if these had been drawn, but nobody did, and
    they are in no step. prompts: what is known of prompts read earlier, by a tree that computed the same. decoder: by which to draw after
    the first tokens; by itself the tree's own where it has one, on a GPU. ahead: where that is used, so many tokens may be drawn before any is given;
    more than one leaves out states and logits, so it is for when nobody waits and only tokens count. Raises ValueError unless temperatures are
    positive. Texts that end an answer are for the caller. The tree may be used for other forwards between steps.
    """
    if min([sampling.temperature, *(row.temperature for row in rows if row.temperature is not None)]) <= 0:
        raise ValueError("temperatures must be positive")
    live = {row.uid: row for row in rows}
    said: dict[str, list[int]] = {row.uid: [] for row in rows}  # since the batch was begun

    def begin() -> tuple[EagerRows | StaticRows, dict[str, StopReason]]:
        over = {row.uid: reason for row in live.values() if (reason := _ended_already(row, sampling, eos_ids))}
        return _batch(tree, [row for row in live.values() if row.uid not in over], sampling, pad_id, twin, steer, prompts, decoder, ahead), over

    batch, ended = begin()
    while True:
        stopped: dict[str, StopReason] = {uid: "stopped" for uid in want_stop() if uid in batch.uids}
        batch.drop(stopped)
        ended |= stopped
        if forced := force():
            live = {uid: replace(live[uid], prefix_ids=(*live[uid].prefix_ids, *said.pop(uid), *forced.get(uid, ()))) for uid in batch.uids}
            said = {uid: [] for uid in live}
            del batch  # with its cache
            batch, over = begin()
            ended |= over
        if not batch.uids:
            break
        uids, drawn = batch.uids, batch.draw()
        batch.append(drawn.ids)
        for uid, token in zip(uids, drawn.ids, strict=True):
            said[uid].append(token)
        last = {uid: r for uid, n, i in zip(uids, batch.lengths, drawn.ids, strict=True) if (r := _reason(i, n, sampling, eos_ids))}
        yield Step(uids, *drawn, ended=ended | last)
        ended = {}
        batch.drop(last)
    if ended:
        nothing = torch.empty(0, 0)
        yield Step((), [], [], [], [], nothing, nothing, nothing, ended=ended)


def _batch(
    tree: nn.Module, rows: Sequence[Row], sampling: Sampling, pad_id: int, twin: bool, steer: SteeringBias | None, prompts: PromptCache | None,
    decoder: StaticDecoder | None, ahead: int,
) -> EagerRows | StaticRows:  # fmt: skip
    steer = steer if any(row.steer for row in rows) else None
    refresh(tree)  # what trains has changed its weights
    eager = EagerRows(tree, rows, sampling, pad_id, twin, steer, prompts)
    decoder = decoder or static_decoder(tree)
    if decoder is None or not decoder.usable or (steer is not None and not hasattr(steer, "fixed")):
        return eager
    return StaticRows(decoder, eager, sampling, steer, ahead)


def _ended_already(row: Row, sampling: Sampling, eos_ids: Collection[int]) -> StopReason | None:
    if row.prefix_ids and row.prefix_ids[-1] in eos_ids:
        return "eos"
    return "length" if len(row.prefix_ids) >= sampling.max_new_tokens else None


def _reason(token: int, length: int, sampling: Sampling, eos_ids: Collection[int]) -> StopReason | None:
    if token in eos_ids:
        return "eos"
    return "length" if length >= sampling.max_new_tokens else None
