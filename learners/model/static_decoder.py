"""One step of decoding over tensors that stay where they are: a cache of fixed length and a fixed number of rows, captured as a CUDA graph.

A step of a small model is a thousand launches, and a launch takes longer than most of these kernels run; a graph is one launch. The step holds all
of it: forward, twin rows, logit bias, temperature, the draw, log-probabilities, the exact KL, and what it leaves behind for the next.

Not every model can: layers that keep something else than all keys and values, mask them in their own way, or look at numbers (rotations that grow
with the text, experts in 4 bit), need EagerRows. Whether a tree can is tried once, by comparing logits.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from learners.model.checkpoint import first_line
from learners.model.cpu_weights import drawing
from learners.model.cuda_graph import capture
from learners.model.eager_rows import EagerRows, RowsState
from learners.model.fixed_cache import FixedCache
from learners.model.forward import causal_model, device_of, forward_at, vocabulary_of
from learners.model.lora import AdaptedRows, has_adapter, row_scaling
from learners.model.memory import COPIES_IN_DRAWING, MAY_MEAN_MEMORY, free_memory, out_of_memory, within_memory
from learners.model.replicas import DECODER
from learners.model.rows import FixedBias, KeysValues, Row, SteeringBias, draw_tokens, wish_of
from learners.model.shards import sharded
from learners.model.truncation import Truncation
from storage.records import Sampling

LEAST_LENGTH = 256
LONGER = 1024
"""Columns with which a tree is tried too: what masks by the length of what is kept shows only beyond its own window."""
MOST_PREPARED_ROWS = 8
"""Answers in a batch that is worth preparing: of more, the kernels take most of the time."""
WORTH_PREPARING = 256
"""Tokens of a shape, asked for so far."""
KEPT_BUFFERS = 24
"""Shapes whose buffers and graphs are kept: rollouts alone ask for two numbers of rows times three lengths, with critiques and without. The one used
longest ago goes …"""
KEPT_BYTES = 256e6
"""… and as many as take no more memory than this; on a GPU …"""
KEPT_SHARE = 1 / 32
"""… at least this share of its own, for each tree."""
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""By which logits of the two forwards may differ, beside their size: attention over masked columns rounds in another order."""
READING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operations that look at numbers (item, equal), and of those whose result is as large as these say (nonzero, masked_select)."""

WITHOUT_GRAPHS = "answers are drawn by ordinary forwards, which takes longer: %s"
"""Of a tree that cannot be captured."""

Outputs = tuple[Tensor, ...]
"""Of a step: states (K, d) and logits (K, V) of the base, the policy's logits (K, V), and with contexts what these wish for (K, V)."""
Capture = Callable[[Callable[[], Outputs], Callable[[], None], Sequence[Tensor]], Callable[[], Outputs]]
"""Of a step, what takes its changes back, and the tensors that it changes -> what replays it and gives what it gave."""


def power_of_two(n: int) -> int:
    """The least that is not smaller."""
    return 1 << max(0, n - 1).bit_length()


@dataclass(frozen=True)
class Shape:
    """Of what one graph computes."""

    rows: int  # answers, a power of two
    twin: bool
    length: int  # columns of the cache, a power of two
    most: int  # tokens of an answer, a power of two
    steered: bool
    mixed: bool = True  # whether some of the answers may be the base's own
    candidates: int = 0  # see truncation.candidates
    contexts: int = 0  # of each answer


class Buffers:
    """The tensors of one shape, and its step. Of B rows the first K are answers; then come, with `twin`, K of the base, and C contexts of each."""

    def __init__(self, tree: nn.Module, shape: Shape, like: KeysValues, bias: FixedBias | None) -> None:
        """like: of each layer keys and values (…, heads, …, width), for their sizes."""
        self.shape, self.bias, self._tree = shape, bias, tree
        device, k = device_of(tree), shape.rows
        b = k * (1 + shape.twin + shape.contexts)
        self.cache = [(keys.new_zeros(b, *_sizes(keys, shape)), values.new_zeros(b, *_sizes(values, shape))) for keys, values in like]
        self.ids = torch.zeros(b, 1, dtype=torch.int64, device=device)
        self.positions = torch.zeros(b, 1, dtype=torch.int64, device=device)
        self.column = torch.zeros(1, dtype=torch.int64, device=device)  # where in the cache the next token goes
        self.seen = torch.zeros(b, shape.length, dtype=torch.bool, device=device)  # columns that a row attends to
        self._yes = self.seen.new_ones(b, 1)
        self.scaling = torch.ones(b, device=device)  # of the LoRA
        self.steered = torch.zeros(k, 1, device=device)
        self.uniforms = torch.zeros(k, shape.most, dtype=torch.float64, device=device)
        self.drawn = torch.zeros(k, 1, dtype=torch.int64, device=device)  # tokens of each answer
        self.temperature = torch.ones(k, 1, device=device)
        self.truncation = Truncation.blank(k, vocabulary_of(tree), shape.candidates, device) if shape.candidates else None
        self.columns = torch.zeros(4, k, dtype=torch.float64, device=device)  # what draw_tokens gives
        self.strengths = torch.zeros(k, shape.contexts, device=device)
        answers = torch.arange(k, device=device)
        self._of = answers.repeat_interleave(shape.contexts)  # of each context its answer
        self._source = torch.cat([answers.repeat(1 + shape.twin), self._of])
        self._last_position = _context(causal_model(tree).config) - 1
        self._past = FixedCache(self.cache, self.column)
        self._replay: Callable[[], Outputs] | None = None
        self.captured = True  # unless that was tried in vain

    @property
    def nbytes(self) -> int:
        """With what a step makes of its logits, for which a graph keeps memory of its own."""
        said = () if self.truncation is None else (self.truncation.said,)
        kept = (*(each for both in self.cache for each in both), self.seen, self.uniforms, *said)
        return sum(each.nbytes for each in kept) + 4 * COPIES_IN_DRAWING * len(self.ids) * vocabulary_of(self._tree)

    def take(self, state: RowsState) -> None:
        """Answers that were drawn elsewhere, into the first rows."""
        k, n = len(state.drawn), state.columns
        rows = self._rows(torch.arange(k, device=self.ids.device))
        for both, kept in zip(self.cache, state.keys_values, strict=True):
            for into, each in zip(both, kept, strict=True):
                into[rows, :, :n] = each
        self.seen.zero_()
        self.seen[:, 0] = True  # a row that nobody uses attends to something
        self.seen[rows, :n] = state.seen
        for name in ("ids", "positions", "scaling"):
            getattr(self, name)[rows] = getattr(state, name)
        self.steered[:k], self.drawn[:k] = state.steered, state.drawn
        self.strengths.zero_()
        self.strengths[:k] = state.strengths
        self.uniforms[:k, : state.uniforms.shape[1]] = state.uniforms
        self.temperature[:k] = state.temperature
        if self.truncation is not None and state.truncation is not None:
            self.truncation.take(state.truncation)
        self.column.fill_(n)

    def _rows(self, slots: Tensor) -> Tensor:
        """(K,) which answers -> (B,) their rows, those of their twins and of their contexts."""
        k, c = self.shape.rows, self.shape.contexts
        contexts = k * (1 + self.shape.twin) + slots[:, None] * c + torch.arange(c, device=slots.device)
        return torch.cat([slots, *([k + slots] if self.shape.twin else []), contexts.flatten()])

    def given(self, slots: Tensor, n: int) -> RowsState:
        """Some of the answers (K,), which have n columns: for `take` of others."""
        rows = self._rows(slots)
        return RowsState(
            [(keys[rows, :, :n], values[rows, :, :n]) for keys, values in self.cache], n, self.shape.twin, self.shape.mixed,
            self.seen[rows, :n], self.ids[rows], self.positions[rows], self.scaling[rows], self.steered[slots], self.drawn[slots],
            self.uniforms[slots], self.temperature[slots], self.truncation and self.truncation.over(self.truncation.said[slots]),
            self.strengths[slots],
        )  # fmt: skip

    def run(self, capture: Capture) -> Outputs:
        """One token of each answer into `columns`; the states and both logits it was drawn from. Captured at the first time."""
        if self._replay is None:
            said = () if self.truncation is None else (self.truncation.said,)
            changed = (self.ids, self.positions, self.column, self.seen, self.drawn, self.columns, *said)
            before = [each.clone() for each in changed]

            def restore() -> None:
                for each, was in zip(changed, before, strict=True):
                    each.copy_(was)

            try:
                self._replay = capture(self._step, restore, (*changed, *(each for both in self.cache for each in both)))
            except MAY_MEAN_MEMORY as error:
                restore()
                if out_of_memory(error):  # says nothing of the step: another time there may be room
                    raise
                logging.getLogger(__name__).warning(WITHOUT_GRAPHS, first_line(error))
                self._replay, self.captured = self._step, False
        return self._replay()

    def logits(self) -> tuple[Tensor, Tensor]:
        """Logits (B, V) and states (B, d) of the next token; the token before it is read into the cache."""
        self.seen.index_copy_(1, self.column, self._yes)
        with row_scaling(self._tree, self._scaling), drawing():
            output = forward_at(self._tree, self.ids, self.seen, self.positions, self._past)
        return output.logits[:, 0], output.hidden[:, 0]

    @property
    def _scaling(self) -> Tensor | AdaptedRows | None:
        """Of the LoRA. Where no answer is the base's own no factors are needed."""
        if not has_adapter(self._tree):
            return None
        if self.shape.mixed:
            return self.scaling
        return AdaptedRows(self.shape.rows, len(self.ids)) if self.shape.twin or self.shape.contexts else None

    @torch.no_grad()
    def _step(self) -> Outputs:
        k = self.shape.rows
        logits, hidden = self.logits()
        policy, of_base = logits[:k], slice(k, 2 * k) if self.shape.twin else slice(k)
        base, state = logits[of_base] if self.shape.twin else policy, hidden[of_base]
        wish = wish_of(base, logits[-len(self._of) :], self._of, self.strengths.view(-1, 1)) if self.shape.contexts else None
        biased = None if self.bias is None else policy + (self._bias(state, base, wish) * self.steered).to(policy.dtype)
        drawn = draw_tokens(policy, base, biased, self.temperature, self.uniforms.gather(1, self.drawn)[:, 0], self.truncation)
        self.columns.copy_(drawn)
        tokens = drawn[0].long()
        if self.truncation is not None:
            self.truncation.add(tokens)
        self.ids.copy_(tokens[self._source][:, None])
        self.positions.add_(1).clamp_(max=self._last_position)  # answers that have ended go on
        self.drawn.add_(1).clamp_(max=self.shape.most - 1)
        self.column.add_(1)
        return (state, base, policy) if wish is None else (state, base, policy, wish)

    def _bias(self, state: Tensor, base: Tensor, wish: Tensor | None) -> Tensor:
        assert self.bias is not None
        if wish is None:
            return self.bias.bias(state, base)
        return self.bias.criticised(state, base, wish, (self.strengths != 0).any(1, keepdim=True))


def _sizes(like: Tensor, shape: Shape) -> tuple[int, int, int]:
    return like.shape[1], shape.length, like.shape[3]


class Unread(TorchDispatchMode):
    """ValueError where the host looks at numbers of tensors while the block runs, or a size depends on them: a captured step cannot wait for those.
    Found out before a capture, since one that fails leaves torch's allocator in a bad state before version 2.13."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if _reads(function, arguments, named or {}):
            raise ValueError(f"its step reads numbers from the device ({function})")
        return function(*arguments, **(named or {}))


def _reads(function: Any, arguments: Any, named: Any) -> bool:
    if function is torch.ops.aten._to_copy.default:
        return named.get("device") == torch.device("cpu") != arguments[0].device
    if function is torch.ops.aten.index.Tensor:  # tagged for masks alone
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in arguments[1])
    return not READING.isdisjoint(function.tags)


class StaticDecoder:
    """Buffers and graphs of one tree, kept from batch to batch. ValueError where the tree cannot decode like this."""

    def __init__(self, tree: nn.Module, capture: Capture = capture, prepared: bool = False) -> None:
        """prepared: draw only by shapes that `prepare` has captured, since capturing takes longer than somebody who waits would wait."""
        self.tree, self.capture, self.prepared = tree, capture, prepared
        self.usable = True  # until a step could not be captured: then ordinary forwards are faster
        self._most_bytes = _kept_bytes(device_of(tree))
        self._wanted: dict[Shape, tuple[int, KeysValues]] = {}  # tokens that would have been drawn by it, and sizes
        self._bias: FixedBias | None = None
        self._buffers: OrderedDict[Shape, Buffers] = OrderedDict()
        self._try()

    def buffers(self, shape: Shape, like: KeysValues) -> Buffers:
        """Of this shape; made where there are none."""
        if shape not in self._buffers:
            make = partial(Buffers, self.tree, shape, like, self.bias_of(shape))
            self._buffers[shape] = within_memory(make, partial(self._alone, make))
        self._buffers.move_to_end(shape)
        while len(self._buffers) > 1 and (len(self._buffers) > KEPT_BUFFERS or self.nbytes > self._most_bytes):
            self._buffers.popitem(last=False)
        return self._buffers[shape]

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return sum(each.nbytes for each in self._buffers.values())

    def _alone(self, make: Callable[[], Buffers]) -> Buffers:
        self.forget()
        free_memory()
        return make()

    def forget(self) -> None:
        """Let go of all buffers and graphs; they are made anew when they are needed."""
        self._buffers.clear()

    def ready(self, shape: Shape, like: KeysValues, tokens: int) -> bool:
        """Whether to draw by this shape now. Where it must be prepared first, that so many tokens were asked for counts towards it."""
        if not self.prepared or shape in self._buffers:
            return True
        if shape.rows <= MOST_PREPARED_ROWS:
            before = self._wanted.get(shape, (0, []))[0]
            self._wanted[shape] = (before + tokens, [(keys[:1, :, :1].clone(), values[:1, :, :1].clone()) for keys, values in like])
        return False

    def due(self) -> Shape | None:
        """A shape that is worth preparing."""
        wanted = self._wanted.items() if self.usable else ()
        return next((shape for shape, (tokens, _) in wanted if tokens >= WORTH_PREPARING), None)

    def prepare(self, shape: Shape) -> None:
        """Capture the step of a shape, on no answers."""
        _, like = self._wanted.pop(shape)
        if not shape.steered or self._bias is not None:
            try:
                buffers = self.buffers(shape, like)
                buffers.run(self.capture)
            except MAY_MEAN_MEMORY:
                self._buffers.pop(shape, None)  # who waits for an answer is not to wait for this
                raise
            self.usable &= buffers.captured

    def steer(self, steer: SteeringBias) -> None:
        """Copy in what steers now. Where it needs other tensors, graphs with the old ones are made anew."""
        bias = steer.fixed(self._bias, device_of(self.tree))
        if bias is not self._bias:
            self._bias = bias
            for shape in [shape for shape in self._buffers if shape.steered]:
                del self._buffers[shape]

    def bias_of(self, shape: Shape) -> FixedBias | None:
        """What steers the answers of this shape."""
        return self._bias if shape.steered else None

    def may_hold(self, columns: int) -> bool:
        """Whether no layer would mask some of so many columns in its own way."""
        return columns <= _window(causal_model(self.tree).config)

    def length(self, columns: int, end: int) -> int:
        """Of buffers that hold so many columns, a power of two; or just what no layer would mask, where no answer goes beyond that (its `end`)."""
        config = causal_model(self.tree).config
        length, most = max(LEAST_LENGTH, power_of_two(columns)), min(_window(config), _context(config))
        return max(LEAST_LENGTH, most) if end <= most < length else length

    @torch.no_grad()
    def _try(self) -> None:
        """Compare the logits of a step, one row padded, with those of an ordinary forward."""
        eager = EagerRows(self.tree, [Row("a", (1, 2, 3, 4, 5), 0), Row("b", (3, 1), 0)], Sampling(1.0, 4), 0, False)
        eager.append(eager.draw().ids)
        state = eager.state()
        if state is None or not self.may_hold(LEAST_LENGTH):
            raise ValueError("its layers keep something else than all keys and values, or see less than is kept")
        found = []
        for length in (LEAST_LENGTH, min(LONGER, _context(causal_model(self.tree).config))):
            if length >= LEAST_LENGTH and self.may_hold(length):
                buffers = Buffers(self.tree, Shape(2, False, length, 4, False), state.keys_values, None)
                buffers.take(state)
                with Unread():
                    found.append(buffers.logits()[0])
        expected = eager.logits()
        allowed = CLOSE.get(causal_model(self.tree).dtype, 1e-3) * (1 + float(expected.abs().max()))
        off = max(float((each - expected).abs().max().nan_to_num(torch.inf)) for each in found)
        if not off <= allowed:
            raise ValueError(f"its logits are off by {off:.2g}")


def static_decoder(tree: nn.Module) -> StaticDecoder | None:
    """Of a tree on a GPU, tried once; None where ordinary forwards are to be used, as where weights are somewhere else at each step."""
    if device_of(tree).type != "cuda" or sharded():
        return None
    if DECODER not in tree.__dict__:
        tree.__dict__[DECODER] = _tried(tree)
    return known_decoder(tree)


def known_decoder(tree: nn.Module) -> StaticDecoder | None:
    """The one that `static_decoder` has made; None before."""
    found: StaticDecoder | None = tree.__dict__.get(DECODER)
    return found


def forget_buffers(*trees: nn.Module) -> None:
    """Let go of what was kept of steps of these trees, on the thread that draws with them."""
    for tree in trees:
        if (decoder := known_decoder(tree)) is not None:
            decoder.forget()


def _tried(tree: nn.Module) -> StaticDecoder | None:
    try:
        return StaticDecoder(tree)
    except Exception as error:  # whatever a family's own code makes of these tensors
        if out_of_memory(error):
            raise
        logging.getLogger(__name__).warning(WITHOUT_GRAPHS, first_line(error))
        return None


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def _window(config: Any) -> int:
    """Columns that every layer attends to."""
    config = config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    return min((int(window) for window in windows if window), default=1 << 30)


def _kept_bytes(device: torch.device) -> float:
    return KEPT_BYTES if device.type != "cuda" else max(KEPT_BYTES, KEPT_SHARE * torch.cuda.get_device_properties(device).total_memory)
