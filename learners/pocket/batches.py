"""What each training step reads: chats that follow from the seed and the step's number alone, so that a resumed run needs no replay.

Every chat is a row of its own that starts at position 0, as it does when the model is used; none sees another. Rows of like length go through the
model together, which leaves little padding, and the gradients of one step's rows are added up, so that the sorting biases nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from learners.pocket.corpus import Chat, chats
from learners.pocket.tokens import ASSISTANT, CONTEXT, END, PAD, chat_text

PROMPT_WEIGHT = 0.1
"""Of a prompt's token in the loss, an answer's being 1. The model is never asked to write a question; a little of it still teaches the words that
few answers hold."""
STEPS_PER_SEED = 1_000_000_000
_CHATS_AT_ONCE = 64


@dataclass(frozen=True)
class Rows:
    """Right-padded chats; with causal attention no row sees its padding."""

    ids: Tensor  # (B, T) int64
    weights: Tensor  # (B, T) float32, of each id in the loss; 0 on padding


class Batches:
    """Steps of about `tokens` tokens. `seed` is the run's."""

    def __init__(self, tokenizer: Any, seed: int, tokens: int, rows_tokens: int) -> None:
        self._tokenizer, self._seed, self._tokens, self._rows_tokens = tokenizer, seed, tokens, rows_tokens
        self._special = [tokenizer.convert_tokens_to_ids(token) for token in (PAD, ASSISTANT, END)]

    def step(self, number: int) -> list[Rows]:
        """The rows of one step, shortest chats first."""
        stream = chats(self._seed * STEPS_PER_SEED + number + 1)  # seed 0 itself is what the corpus hash is taken of
        sequences: list[list[int]] = []
        while sum(map(len, sequences)) < self._tokens:
            sequences += self.encode(islice(stream, _CHATS_AT_ONCE))
        return list(self.rows(sequences))

    def encode(self, some: Iterable[Chat]) -> list[list[int]]:
        """Ids of each chat, as the chat template and the answers' encoding give them."""
        texts = [chat_text(chat) for chat in some]
        return [ids[:CONTEXT] for ids in self._tokenizer(texts, add_special_tokens=False).input_ids]

    def rows(self, sequences: Sequence[list[int]]) -> Iterator[Rows]:
        """All of them, sorted by length and cut into rows of at most `rows_tokens` tokens with the padding."""
        ordered = sorted(sequences, key=len)
        first = 0
        for end in range(1, len(ordered) + 1):
            if end == len(ordered) or (end + 1 - first) * len(ordered[end]) > self._rows_tokens:
                yield self._padded(ordered[first:end])
                first = end

    def _padded(self, sequences: Sequence[list[int]]) -> Rows:
        length = max(map(len, sequences))
        ids = [sequence + [self._special[0]] * (length - len(sequence)) for sequence in sequences]
        weights = [self._weights(sequence) + [0.0] * (length - len(sequence)) for sequence in sequences]
        return Rows(torch.tensor(ids), torch.tensor(weights))

    def _weights(self, sequence: Sequence[int]) -> list[float]:
        """1 from behind the assistant's token to the end token."""
        _, opens, closes = self._special
        weights, answer = [], False
        for token in sequence:
            weights.append(1.0 if answer else PROMPT_WEIGHT)
            answer = token == opens or (answer and token != closes)
        return weights
