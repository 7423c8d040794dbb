"""Decoding by ordinary forwards over a cache that grows; an answer that ends leaves the batch. Right for every model and device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from learners.model.cpu_weights import drawing
from learners.model.forward import Output, causal_model, device_of, forward, vocabulary_of
from learners.model.lora import has_adapter, row_scaling
from learners.model.rows import Drawn, KeysValues, Layout, Row, SteeringBias, draw_tokens, temperatures, uniforms_of
from learners.model.truncation import Truncation
from storage.records import Sampling

if TYPE_CHECKING:
    from learners.model.caches import Known, PromptCache


class RowsState(NamedTuple):
    """All that a batch is, between two tokens: of B rows, K answers, with `twin` a row of the base for each, and C contexts of each answer."""

    keys_values: KeysValues  # (B, heads, n, width) of each layer
    columns: int  # n
    twin: bool
    mixed: bool  # whether some of the answers are the base's own, on a tree with an adapter
    seen: Tensor  # (B, n) bool: which are no padding
    ids: Tensor  # (B, 1) the tokens to read next
    positions: Tensor  # (B, 1) their places in the text
    scaling: Tensor  # (B,) of the LoRA
    steered: Tensor  # (K, 1)
    drawn: Tensor  # (K, 1) tokens of each answer
    uniforms: Tensor  # (K, T)
    temperature: Tensor  # (K, 1)
    truncation: Truncation | None
    strengths: Tensor  # (K, C) of contexts, 0 where there is none


class EagerRows:
    """The live answers and, where asked for, their twins in the base, over one cache."""

    def __init__(self, tree: nn.Module, rows: Sequence[Row], sampling: Sampling, pad_id: int, twin: bool, steer: SteeringBias | None = None,
                 prompts: PromptCache | None = None) -> None:  # fmt: skip
        self._tree, self._pad_id, self._device = tree, pad_id, device_of(tree)
        self._twin, self._steer, self._prompts = twin, steer, prompts
        self._temperature = temperatures(rows, sampling.temperature, self._device)
        self._truncation = Truncation.of(sampling, [row.begun for row in rows], vocabulary_of(tree), self._device)
        self._adapted, self._most = has_adapter(tree), sampling.max_new_tokens
        self._rows = list(rows)
        self.lengths = [len(row.prefix_ids) for row in rows]
        self._uniforms = uniforms_of(rows, sampling.max_new_tokens, self._device) if rows else torch.empty(0)
        self._at = torch.tensor(self.lengths, device=self._device)  # how long each answer is
        self._past: Any = None
        self._mask: Tensor | None = None  # (batch rows, columns); None where no row is padded
        self._next = torch.empty(0)
        self._arrange()

    def _arrange(self) -> None:
        self.uids = tuple(row.uid for row in self._rows)
        self._layout = Layout(self._rows, self._adapted, self._twin, self._device)

    def draw(self) -> Drawn:
        """The forward of one step and a token for each row."""
        output = self._prefill() if self._past is None else self._forward(self._next, self._mask, self._layout.scaling)
        policy, base, state = self._layout.split(output.logits[:, 0], output.hidden[:, 0])
        wish = self._layout.wish(output.logits[:, 0], base)
        bias = self._bias(state, base, wish) if self._steer is not None and self._layout.any_steered else None
        biased = None if bias is None else policy + (bias * self._layout.steered).to(policy.dtype)
        uniforms = self._uniforms.gather(1, self._at[:, None])[:, 0]
        drawn = draw_tokens(policy, base, biased, self._temperature, uniforms, self._truncation)
        if self._truncation is not None:
            self._truncation.add(drawn[0].long())
        ids, acted, plain, kl = drawn.tolist()  # the step's only wait for the device
        return Drawn([int(i) for i in ids], acted, plain, kl, state, base, policy, wish)

    def _bias(self, state: Tensor, base: Tensor, wish: Tensor | None) -> Tensor | None:
        assert self._steer is not None
        return self._steer.bias(state, base) if wish is None else self._steer.criticised(state, base, wish, self._layout.criticised)

    def append(self, tokens: Sequence[int]) -> None:
        """Put the drawn tokens behind the answers."""
        self.lengths = [n + 1 for n in self.lengths]
        self._at = self._at + 1
        self._next = torch.tensor([[tokens[s]] for s in self._layout.source], device=self._device)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)

    def drop(self, ended: Collection[str]) -> None:
        """Take ended answers out of the batch, the cache included."""
        kept = [i for i, row in enumerate(self._rows) if row.uid not in ended]
        if len(kept) == len(self._rows):
            return
        live = set(kept)
        batch_rows = torch.tensor([i for i, s in enumerate(self._layout.source) if s in live], dtype=torch.long, device=self._device)
        self._rows, self.lengths = [self._rows[i] for i in kept], [self.lengths[i] for i in kept]
        self._arrange()
        if not kept:
            return
        self._uniforms, self._at, self._temperature = self._uniforms[kept], self._at[kept], self._temperature[kept]
        self._truncation = self._truncation.over(self._truncation.said[kept]) if self._truncation is not None else None
        if self._past is not None:
            self._past.reorder_cache(batch_rows)
            self._mask = None if self._mask is None else self._mask[batch_rows]
            self._next = self._next[batch_rows]

    @property
    def begun(self) -> bool:
        """Whether the first tokens were drawn."""
        return self._past is not None

    def state(self) -> RowsState | None:
        """To go on elsewhere, after the first token; None where layers keep something else than all keys and values."""
        from learners.model.caches import keeps_all

        if not keeps_all(self._past):
            return None
        layout, k = self._layout, len(self._rows)
        twin = layout.twinned
        answers = torch.arange(k, device=self._device)
        contexts, strengths = layout.contexts()
        rows = torch.cat([answers, *([layout.base_rows] if twin else []), contexts])  # a row that draws from the base is its own twin
        columns, mixed = self._past.get_seq_length(), self._adapted and not all(layout.adapter[:k])
        seen = self._next.new_ones(len(rows), columns, dtype=torch.bool) if self._mask is None else self._mask[rows, :columns].bool()
        scaling = torch.tensor([1.0 if each else 0.0 for each in layout.adapter], device=self._device)[rows]
        return RowsState(
            [(layer.keys[rows], layer.values[rows]) for layer in self._past.layers], columns, twin, mixed, seen, self._next[rows],
            seen.sum(1, keepdim=True), scaling, layout.steered, self._at[:, None], self._uniforms, self._temperature, self._truncation, strengths,
        )  # fmt: skip

    def logits(self) -> Tensor:
        """(B, V) of the next tokens."""
        return self._forward(self._next, self._mask, self._layout.scaling).logits[:, 0]

    def forget(self) -> None:
        """The rows went on elsewhere."""
        self._past = None

    # --- forwards ----------------------------------------------------------------------------------------------------

    def _forward(self, ids: Tensor, mask: Tensor | None, scaling: Tensor | None) -> Output:
        with row_scaling(self._tree, scaling), drawing():  # only while it runs: between steps the tree is anyone's on this thread
            return forward(self._tree, ids, mask, self._past, keep=1)

    def _prefill(self) -> Output:
        """Run each distinct (sequence, policy) once, then give every row its copy of the cache."""
        layout = self._layout
        self._past = self._empty_cache()
        keys = list(zip(layout.begun, layout.adapter, strict=True))
        distinct = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        output = self._read(list(distinct))
        if len(distinct) == len(keys):
            return output
        back = torch.tensor([distinct[key] for key in keys], device=self._device)
        self._past.reorder_cache(back)
        self._mask = None if self._mask is None else self._mask[back]
        return Output(output.logits[back], output.hidden[back], output.past)

    def _empty_cache(self) -> Any:
        from learners.model.caches import new_cache

        columns = max(map(len, self._layout.begun)) + self._most - min(self.lengths)
        return new_cache(causal_model(self._tree).config, columns)

    def _read(self, distinct: Sequence[tuple[tuple[int, ...], bool]]) -> Output:
        """What stands behind distinct sequences, each with the adapter or without, and their cache. Those that are known are not computed again."""
        from learners.model.caches import Known, fill, taken

        prompts = self._prompts_if_usable()
        known = [Known() if prompts is None else prompts.begin(*key) for key in distinct]
        new = [i for i, each in enumerate(known) if each.last is None]
        if len(new) == len(distinct):
            return self._compute(distinct, known)
        masks = [torch.ones(each.tokens, dtype=torch.long, device=self._device) for each in known]
        if new:
            output = self._compute([distinct[i] for i in new], [known[i] for i in new])
            columns = self._past.get_seq_length()
            for row, i in enumerate(new):
                known[i] = Known(columns, taken(self._past, row, 0, 0), (output.logits[row, None], output.hidden[row, None]))
                masks[i] = masks[i].new_ones(columns) if self._mask is None else self._mask[row]
        columns = max(each.tokens for each in known)
        padded = self._mask is not None or any(each.tokens < columns for each in known)
        self._past = self._empty_cache()
        fill(self._past, [each.keys_values for each in known], columns)
        self._mask = torch.stack([nn.functional.pad(each, (columns - len(each), 0)) for each in masks]) if padded else None
        logits, hidden = (torch.cat(each) for each in zip(*(each.last for each in known if each.last is not None), strict=True))
        return Output(logits, hidden, self._past)

    def _compute(self, distinct: Sequence[tuple[tuple[int, ...], bool]], known: Sequence[Known]) -> Output:
        """The forward over sequences, from the last token on that all of them are known up to."""
        from learners.model.caches import fill, taken

        begun = min(each.tokens for each in known)
        if begun:
            fill(self._past, [each.keys_values for each in known], begun)
        prompts = self._prompts_if_usable()
        rest = [sequence[begun:] for sequence, _ in distinct]
        ids, self._mask = self._padded(rest, begun)
        scaling = torch.tensor([float(adapter) for _, adapter in distinct], device=self._device)
        output = self._forward(ids, self._mask, scaling if self._layout.scaling is not None else None)
        if prompts is not None and not any(row.contexts for row in self._rows):  # those round otherwise
            for i, key in enumerate(distinct):
                kept = taken(self._past, i, begun, ids.shape[1] - len(rest[i]))
                prompts.keep(*key, kept, output.logits[i, None], output.hidden[i, None])
        return output

    def _prompts_if_usable(self) -> PromptCache | None:
        from learners.model.caches import keeps_all

        return self._prompts if self._prompts is not None and keeps_all(self._past) else None

    def _padded(self, sequences: Sequence[tuple[int, ...]], begun: int) -> tuple[Tensor, Tensor | None]:
        """Left-padded ids (n, T), and mask (n, begun + T) behind `begun` columns that all have; None where nothing is padded."""
        length = max(map(len, sequences))
        ids = torch.tensor([[self._pad_id] * (length - len(s)) + list(s) for s in sequences], device=self._device)
        if all(len(s) == length for s in sequences):
            return ids, None
        mask = [[1] * begun + [0] * (length - len(s)) + [1] * len(s) for s in sequences]
        return ids, torch.tensor(mask, device=self._device)
