"""What is fixed once per base model: x(s), the vectors of alike tokens, and the states on which β is solved before anything was judged.

All of it comes from a few answers that the base draws to fixed prompts, so it is the same for every database over one base. It is drawn once and
kept in the user's cache, named by the hash of the base and of everything else that it depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
from platformdirs import user_cache_dir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from learners.human_reward.features import LEAST_PROBABILITY, LIKELY_TOKENS, Features, FeatureSettings, Seen, token_similarity
from learners.human_reward.kl_budget import STATE_BYTES, VisitedStates
from learners.model.base import Backbone
from learners.model.checkpoint import ModelError
from learners.model.rows import NOT_FINITE, WHY_NOT_FINITE
from learners.model.sampling import Step
from learners.rlhf.rollouts import Trace, draw_answers
from storage.records import Message, Sampling

PROMPTS = ("Once upon a time", "Tell me something.", "What is it?", "I think that", "Hello!", "How do I", "The", "Why")
ANSWERS = 4
"""To each prompt."""
TOKENS = 48
"""Of each answer, at most."""
SEED = 1
KEPT_FILES = 8
KEPT_BYTES = 1_000_000_000
"""Of all files in the cache together; the oldest go."""
FORMAT = 1
"""Goes up when what a file means changes."""


@dataclass(frozen=True)
class BaseCalibration:
    """See the module."""

    features: Features  # on the CPU, as heads are
    similarity: Tensor  # (V, e), on the CPU
    answers: tuple[VisitedStates, ...]  # on the base's device

    @staticmethod
    def of(backbone: Backbone, cache: Path | None = None, report: Callable[..., None] = lambda what, done, total: None) -> BaseCalibration:
        """From the cache, or drawn and kept there. A cache that cannot be read or written, or holds something else, is as none. Raises ModelError
        for a model by which nothing can be drawn.

        `report` is told 'calibration', the tokens of each answer that are drawn, and of how many.
        """
        file = (cache or Path(user_cache_dir("tamer-tui", appauthor=False))) / "calibration" / f"{_key(backbone)}.safetensors"
        found = _load(file, backbone)
        if found is None:
            found = _drawn(backbone, report)
            with contextlib.suppress(OSError, SafetensorError):
                _keep(found, file)
        return found


def _key(backbone: Backbone) -> str:
    """Of everything that the result depends on."""
    settings = (FORMAT, PROMPTS, ANSWERS, TOKENS, SEED, LIKELY_TOKENS, LEAST_PROBABILITY, STATE_BYTES, sorted(asdict(FeatureSettings()).items()))
    model = (backbone.base_hash, backbone.quantize, str(backbone.dtype), backbone.device.type, backbone.vocabulary, backbone.width, backbone.context)
    if backbone.renderer.thinking != "auto":
        model = (*model, backbone.renderer.thinking)  # type: ignore[assignment]
    return hashlib.sha256(msgspec.json.encode((settings, model))).hexdigest()


# --- drawing ---------------------------------------------------------------------------------------------------------


def _drawn(backbone: Backbone, report: Callable[..., None]) -> BaseCalibration:
    prompts = [tuple(backbone.fit((Message("user", text),), backbone.context // 2)[0]) for text in PROMPTS for _ in range(ANSWERS)]
    sampling = Sampling(1.0, min(TOKENS, backbone.context // 2))
    stride = stride_of(len(prompts), sampling.max_new_tokens, backbone.vocabulary)
    drawn = itertools.count(1)
    answers: list[Any] = draw_answers(
        backbone, backbone.model, prompts, sampling, SEED, adapter=False, keep_states=True,
        pause=lambda: report("calibration", min(next(drawn), sampling.max_new_tokens), sampling.max_new_tokens),
        begin=lambda prompt, _: _Watched(prompt, stride),
    )  # fmt: skip
    if not all(math.isfinite(logprob) for answer in answers for logprob in answer.logprobs):
        raise ModelError(NOT_FINITE, WHY_NOT_FINITE)
    features = Features.fit(torch.cat([torch.stack(answer.states) for answer in answers]).cpu())
    similarity = token_similarity(backbone.model.get_output_embeddings().weight.detach()).cpu()  # type: ignore[operator, union-attr]
    return BaseCalibration(features, similarity, tuple(answer.visited(sampling.temperature) for answer in answers))


@dataclass
class _Watched(Trace):
    """An answer with the states of all its tokens."""

    states: list[Tensor] = field(default_factory=list)

    def add(self, step: Step, row: int) -> None:
        self.states.append(step.hidden[row])
        super().add(step, row)


def _visited(seen: Seen, logprobs: Tensor, sequence: tuple[int, ...], positions: tuple[int, ...]) -> VisitedStates:
    return VisitedStates(seen, logprobs, logprobs, sequence, positions)  # the base is its own policy: one tensor


def stride_of(answers: int, tokens: int, vocabulary: int) -> int:
    """Every which state of each answer keeps its distribution, one at least: all of them together take at most STATE_BYTES, in float32, with an
    adapter's beside the base's."""
    each = max(1, int(STATE_BYTES / (8 * vocabulary * answers)))
    return -(-tokens // each)


# --- the cache -------------------------------------------------------------------------------------------------------


def _keep(calibration: BaseCalibration, file: Path) -> None:
    """Whole or not at all. Raises OSError."""
    tensors = _tensors(calibration)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".part", delete=False) as part:
        temporary = Path(part.name)
    try:
        save_file(tensors, temporary, {"sha256": _digest(tensors, file.stem)})
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    _make_room(file)


def _load(file: Path, backbone: Backbone) -> BaseCalibration | None:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            digest = (opened.metadata() or {}).get("sha256")
        if digest != _digest(tensors, file.stem):
            return None
        found = _of_tensors(tensors, backbone.device)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # it is in use: others go first
    return found


def _digest(tensors: Mapping[str, Tensor], key: str) -> str:
    digest = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).numpy())
    return digest.hexdigest()


def _tensors(calibration: BaseCalibration) -> dict[str, Tensor]:
    answers, features = calibration.answers, calibration.features
    columns = {
        "hidden": torch.cat([a.seen.hidden for a in answers]),
        "likely": torch.cat([a.seen.likely for a in answers]),
        "probabilities": torch.cat([a.seen.probabilities for a in answers]),
        "logprobs": torch.cat([a.base_logprobs for a in answers]),
        "positions": torch.tensor([i for a in answers for i in a.positions]),
        "state_ends": torch.tensor([len(a.positions) for a in answers]).cumsum(0),
        "sequences": torch.tensor([i for a in answers for i in a.sequence]),
        "sequence_ends": torch.tensor([len(a.sequence) for a in answers]).cumsum(0),
        "mean": features.mean,
        "basis": features.basis,
        "constant": torch.tensor(features.constant, dtype=torch.float64),
        "similarity": calibration.similarity,
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in columns.items()}


def _of_tensors(tensors: dict[str, Tensor], device: torch.device) -> BaseCalibration:
    t = {name: tensors[name].to(device) for name in ("hidden", "likely", "probabilities", "logprobs")}
    sequences, positions = tensors["sequences"].tolist(), tensors["positions"].tolist()
    states, ends = (pairwise([0, *tensors[name].tolist()]) for name in ("state_ends", "sequence_ends"))
    answers = tuple(
        _visited(Seen(t["hidden"][i:j], t["likely"][i:j], t["probabilities"][i:j]), t["logprobs"][i:j], tuple(sequences[k:n]), tuple(positions[i:j]))
        for (i, j), (k, n) in zip(states, ends, strict=True)
    )
    return BaseCalibration(Features(tensors["mean"], tensors["basis"], float(tensors["constant"])), tensors["similarity"], answers)


def _make_room(newest: Path) -> None:
    """The newest files stay, as many as fit."""
    files = sorted(newest.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for i, file in enumerate(files):
        total += file.stat().st_size
        if file != newest and (i >= KEPT_FILES or total > KEPT_BYTES):
            file.unlink(missing_ok=True)
