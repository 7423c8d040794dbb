"""A training run of Pocket: AdamW over answers that follow from the step's number, on a rate that rises, stays, and descends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learners.pocket.batches import Batches, Rows
from learners.pocket.corpus import chats, corpus_hash
from learners.pocket.model import SHAPE, Shape, make_model
from learners.pocket.saving import Saved, load_run, save_run
from learners.pocket.tokens import VOCABULARY, train_tokenizer

TOKENIZER_CHATS = 30_000


@dataclass(frozen=True)
class Recipe:
    """What decides the weights. Tokens and minutes may be changed while a run is under way, the rest may not."""

    seed: int = 0
    batch_tokens: int = 4096  # of one step
    rate: float = 2.5e-3  # highest learning rate
    shape: Shape = SHAPE
    vocabulary: int = VOCABULARY
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of matrices
    max_grad_norm: float = 1.0
    tokens: int = 30_000_000
    minutes: float | None = None  # of training; None: `tokens` alone decides

    def identity(self) -> dict[str, Any]:
        """What a run that goes on has to agree with, the text that it reads included."""
        fixed = {name: value for name, value in asdict(self).items() if name not in ("tokens", "minutes")}
        return {**fixed, "corpus": corpus_hash()}

    def progress(self, tokens: int, seconds: float) -> float:
        """0 at the start, 1 and more when it is done."""
        return max(tokens / self.tokens, seconds / (60 * self.minutes) if self.minutes else 0.0)


def rate_share(progress: float) -> float:
    """Of the highest learning rate: a short rise, a plateau, and a straight descent over the last two fifths.

    Unlike a cosine, the plateau does not depend on how long the run will be: a run that is stretched before it descends loses nothing.
    """
    return max(0.01, min(1.0, progress / 0.02, (1 - progress) / 0.4))


class PocketRun:
    """A model in training, and everything that a checkpoint of it holds."""

    def __init__(self, recipe: Recipe, device: torch.device, tokenizer: Any, compiled: bool = False) -> None:
        self.recipe, self.tokenizer = recipe, tokenizer
        self.model = make_model(recipe.shape, tokenizer, recipe.seed).to(device)
        self.steps, self.tokens, self.seconds = 0, 0, 0.0
        self._device = device
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, recipe.rate, recipe.betas, fused=True)
        self._batches = Batches(tokenizer, recipe.seed, recipe.batch_tokens, rows_tokens=2048 if device.type == "cpu" else 16384)
        self._loss: Callable[[Tensor, Tensor], Tensor] = torch.compile(self._weighted_loss, dynamic=True) if compiled else self._weighted_loss

    @property
    def progress(self) -> float:
        return self.recipe.progress(self.tokens, self.seconds)

    def step(self) -> float:
        """One step of the optimizer. The mean loss of its tokens in nats, weighted."""
        began = time.monotonic()
        parts = self._batches.step(self.steps)
        loss = self._gather(parts)
        self.tokens += sum(int((rows.weights > 0).sum()) for rows in parts)
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.rate * rate_share(self.progress)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.steps += 1
        self.seconds += time.monotonic() - began
        return loss

    def _gather(self, parts: list[Rows]) -> float:
        """Gradients of the mean loss over all rows."""
        total, loss = sum(float(rows.weights[:, 1:].sum()) for rows in parts), 0.0
        for rows in parts:
            part = self._loss(rows.ids.to(self._device), rows.weights.to(self._device)) / total
            part.backward()
            loss += part.item()
        return loss

    def _weighted_loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        """(B, T), (B, T) -> the weighted sum of the tokens' negative log-likelihoods."""
        with self._autocast():
            logits = self.model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (losses * weights[:, 1:].flatten()).sum()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, torch.bfloat16) if _multiplies_bfloat16(self._device) else nullcontext()

    # --- checkpoints -------------------------------------------------------------------------------------------------------

    def save(self, work: Path) -> None:
        state = Saved(self.recipe.identity(), self.model.state_dict(), self._optimizer.state_dict(), self.steps, self.tokens, self.seconds)
        save_run(work, state, self.tokenizer)

    def restore(self, state: Saved) -> None:
        self.model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        self.steps, self.tokens, self.seconds = state.steps, state.tokens, state.seconds


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there; a processor without instructions for it takes thirty times as long."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type != "mps"


def open_run(recipe: Recipe, work: Path, device: torch.device, compiled: bool = False) -> PocketRun:
    """The run of this work directory where there is one, else a new one. Raises TrainingError when the one there is another."""
    found = load_run(work, recipe.identity())
    if found is None:
        return PocketRun(recipe, device, train_tokenizer(islice(chats(recipe.seed), TOKENIZER_CHATS), recipe.vocabulary), compiled)
    state, tokenizer = found
    run = PocketRun(recipe, device, tokenizer, compiled)
    run.restore(state)
    return run
