"""The memory budget: how many answers go into one forward, and how many positions through the LM head at once.

An estimate from the model's shape, on the safe side for the families that were measured (benchmarks/training_memory.py). Free memory counts on a
GPU only: elsewhere the system pages, and what is free says little.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from learners.model.cuda_graph import empty_cache, kept_in_graphs

if TYPE_CHECKING:
    from learners.model.base import Backbone

T = TypeVar("T")
ALLOWANCE = 1e9
"""Bytes that one forward may take beside the weights, its backward included; on a GPU …"""
ALLOWED_SHARE = 1 / 16
"""… at least this share of its memory."""
FREE_SHARE = 1 / 4
"""… and of what is free of it: passes of a small model take as long as their launches, so a card of usual size is to need few of them too. What runs
out of memory halves it, as it does the allowance."""
SHARE = 0.5
"""Of a GPU's free memory, never more: what is drawn, fitted and shown meanwhile needs some too."""
SHARE_FOR_ONE = 0.25
"""Of the memory that is available on a CPU, for an answer that stands alone."""
LOGITS = 0.048
"""Of the allowance, float32 logits at once; a few tensors as large stand beside them."""
WORTH_SHARING = 2048
"""Tokens that sharing prompts must save on a GPU, where a second forward over few tokens costs as many launches as the first."""
RECOVERING_STEPS = 50
"""Of training, after which what was out of memory may have been somebody else's."""
COLUMNS_AT_ONCE = 2048
"""Tokens of each row that go through the layers together where no gradients are kept: of 7.6 billion parameters 2 GB for four rows."""
COPIES_IN_DRAWING = 10
"""Tensors as large as the logits of all rows at a step of decoding: bias, log-probabilities, probabilities, cumulated in float64 …"""


MAY_MEAN_MEMORY = (torch.OutOfMemoryError, MemoryError, RuntimeError)
"""What is raised where memory runs out; `out_of_memory` tells whether it did."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this is the device's memory, the host's, or that of a library on the device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory"))


def free_memory() -> None:
    """Let go of what nobody needs. Not inside an `except`: the error holds the tensors of what was given up."""
    gc.collect()
    if torch.cuda.is_available():
        empty_cache()


def within_memory(at_once: Callable[[], T], apart: Callable[[], T]) -> T:
    """`at_once()`, or, where memory does not hold it, `apart()`, which needs less."""
    try:
        return at_once()
    except MAY_MEAN_MEMORY as error:
        if not out_of_memory(error):
            raise
    free_memory()
    return apart()


def available_memory() -> float:
    """Bytes of memory that are free or could be at once; where the system does not say, a few gigabytes are taken for granted."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 4e9


def free_on_gpu(device: torch.device) -> int:
    """Bytes that this process may still take there, with those that torch holds and nothing uses."""
    free, total = torch.cuda.mem_get_info(device)
    free -= int(total * (1 - torch.cuda.get_per_process_memory_fraction(device)))
    return free + max(0, torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) - kept_in_graphs(device))


def positions_at_once(vocabulary: int, device: torch.device) -> int:
    """States whose logits are computed at once."""
    return max(8, int(LOGITS * _allowance(device) / (4 * vocabulary)))


def shares(prompts: Sequence[Sequence[int]], device: torch.device) -> bool:
    """Whether answers to the same of these prompts, one for each answer, should share its computation."""
    saved = sum(map(len, prompts)) - sum(map(len, set(map(tuple, prompts))))
    return saved > 0 and (device.type != "cuda" or saved >= WORTH_SHARING)


@dataclass
class MemoryBudget:
    """Of one base model and the adapters on it. Sizes are numbers of elements to a token, summed over all layers."""

    device: torch.device
    itemsize: int  # bytes of an element of a state
    width: int  # d
    layers: int
    vocabulary: int
    linear_in: int  # inputs of all linear layers: a LoRA keeps each for its gradient
    linear_out: int
    keys_values: int
    scores: int  # attention heads, where their scores are kept: in models that do something to them before the softmax
    allowance: float = ALLOWANCE
    _whole: float | None = None  # what the allowance was before anything ran out of memory
    _patience: int = RECOVERING_STEPS
    _went_well: int = 0  # steps since it was changed last

    @staticmethod
    def of(backbone: Backbone) -> MemoryBudget:
        """Of a base that is loaded."""
        return MemoryBudget.of_tree(backbone.model)

    @staticmethod
    def of_tree(tree: nn.Module) -> MemoryBudget:
        """The same for whoever has only a tree of it."""
        linear = [sizes for name, module in tree.named_modules() if ".lora_" not in name and (sizes := _linear_sizes(module))]
        head: Any = tree.get_output_embeddings()  # type: ignore[operator]
        vocabulary, width = head.weight.shape
        config: Any = tree.config.get_text_config()  # type: ignore[union-attr, operator]
        heads = config.num_attention_heads
        key_width = (getattr(config, "num_key_value_heads", None) or heads) * (getattr(config, "head_dim", None) or width // heads)
        return MemoryBudget(
            allowance=_allowance(head.weight.device),
            device=head.weight.device,
            itemsize=head.weight.element_size(),
            width=width,
            layers=config.num_hidden_layers,
            vocabulary=vocabulary,
            linear_in=sum(inputs for inputs, _ in linear) - width,  # the LM head carries no LoRA
            linear_out=sum(outputs for _, outputs in linear) - vocabulary,
            keys_values=2 * config.num_hidden_layers * key_width,
            scores=config.num_hidden_layers * heads if config._attn_implementation == "eager" else 0,
        )

    @property
    def positions(self) -> int:
        """States that go through the LM head at once."""
        return positions_at_once(self.vocabulary, self.device)

    def halve(self) -> None:
        """Something ran out of memory: half as much in each forward from here on. See `went_well`."""
        if self._whole is None:
            self._whole = self.allowance
        else:
            self._patience *= 2
        self.allowance, self._went_well = self.allowance / 2, 0

    def went_well(self) -> bool:
        """A step of training did not run out of memory. After RECOVERING_STEPS of these, twice as many each time that it ran out again, there is
        twice as much, up to what there was; True when that comes about."""
        if self._whole is None or self.allowance >= self._whole:
            return False
        self._went_well += 1
        if self._went_well < self._patience:
            return False
        self.allowance, self._went_well = min(2 * self.allowance, self._whole), 0
        return True

    def fits(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], gradients: bool) -> bool:
        """Whether these answers can go into one forward, those to the same prompt sharing it."""
        return self._bytes(prompts, answers, gradients, self._room) <= self._room

    def recomputes(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> bool:
        """Whether an answer is too long to keep all that a forward makes of it: then layers are computed again in the backward pass."""
        return self._too_long(prompts, answers, self._room)

    def _room_for_one(self, room: float) -> float:
        """What one answer alone may take before its layers are computed again, which takes a third longer: off the GPU memory is rarely short."""
        return room if self.device.type == "cuda" else max(room, SHARE_FOR_ONE * available_memory() * self.allowance / ALLOWANCE)

    def parts(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], gradients: bool, most: int = 1 << 30) -> list[list[int]]:
        """Which answers go into each forward: at most `most`, at least one, those to the same prompt beside each other."""
        first: dict[tuple[int, ...], int] = {}
        for i, prompt in enumerate(prompts):
            first.setdefault(tuple(prompt), i)
        parts: list[list[int]] = []
        room = self._room
        for i in sorted(range(len(prompts)), key=lambda i: first[tuple(prompts[i])]):
            longer = [*parts[-1], i] if parts else []
            if not longer or len(longer) > most or self._bytes([prompts[j] for j in longer], [answers[j] for j in longer], gradients, room) > room:
                parts.append([i])
            else:
                parts[-1] = longer
        return parts

    def rows_to_draw(self, prompt_tokens: int, answer_tokens: int, most: int, twin: bool = False) -> int:
        """Answers in one batch of decoding: their keys and values, and what a step makes of their logits; twice with twin rows.

        On a GPU lengths and rows are powers of two (static_decoder.py).
        """
        tokens = prompt_tokens + answer_tokens
        tokens = 1 << (tokens - 1).bit_length() if self.device.type == "cuda" else tokens
        row = self.itemsize * self.keys_values * 2 * tokens + 4 * COPIES_IN_DRAWING * self.vocabulary
        rows = max(1, min(most, int(self._room / (row * (2 if twin else 1)))))
        return 1 << (rows.bit_length() - 1) if self.device.type == "cuda" and rows < most else rows

    @property
    def _room(self) -> float:
        if self.device.type != "cuda":
            return self.allowance
        free = free_on_gpu(self.device)
        of_free = FREE_SHARE * free * (self.allowance / (self._whole or self.allowance))
        return min(max(self.allowance, of_free), SHARE * free)

    def _bytes(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], gradients: bool, room: float = math.inf) -> float:
        """At most so much is needed beside the weights. room: beyond which an answer alone has its layers computed again."""
        rows = len(answers)
        distinct = len(set(map(tuple, prompts))) if shares(prompts, self.device) else rows
        prompt, answer = max(map(len, prompts)), max(1, *map(len, answers))
        tokens = distinct * prompt + rows * answer
        columns = rows * (prompt + answer)  # of the cache that the answers attend to
        if gradients:
            attended = 2 * self.keys_values + (2 * self.layers * self.width)  # selected, extended, and repeated for each query head
            scores = 4 * 4 * self.scores * (columns * answer + distinct * prompt * prompt)
            kept = tokens * self._kept + columns * self.itemsize * attended + scores
            if not self._too_long(prompts, answers, room):
                return kept
            inputs = tokens * self.layers * self.width * self.itemsize + columns * self.itemsize * 2 * self.keys_values
            return inputs + kept / self.layers  # all of one layer at a time
        passing = (self.linear_in + self.linear_out) / self.layers * (self.itemsize + 4)  # one layer at a time
        return tokens * passing + columns * self.itemsize * 2 * self.keys_values

    def _too_long(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], room: float) -> bool:
        prompt, answer = max(zip(prompts, answers, strict=True), key=lambda both: len(both[0]) + len(both[1]))
        if room == math.inf:
            return False
        alone = self._bytes([prompt], [answer], gradients=True)
        return alone > room and alone > self._room_for_one(room)

    @property
    def _kept(self) -> float:
        """Bytes that one token leaves behind for the backward pass, measured: an input is one tensor for all layers that read it."""
        return self.itemsize * (0.6 * self.linear_in + 1.5 * self.linear_out + 4 * self.layers * self.width)


def _allowance(device: torch.device) -> float:
    if device.type != "cuda":
        return ALLOWANCE
    _, total = torch.cuda.mem_get_info(device)
    return max(ALLOWANCE, ALLOWED_SHARE * total * torch.cuda.get_per_process_memory_fraction(device))


def _linear_sizes(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":  # GPT-2's
        return module.nx, module.nf  # type: ignore[return-value]
    return None
