"""What Pocket does, measured: perplexity of the corpus's own answers, and ground truth on answers that the model draws.

Prompts, seeds and batches are always the same, so that a second measurement draws the same answers, up to rounding on another machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import torch
from torch.nn import functional

from learners.model.base import Backbone
from learners.model.forward import forward
from learners.model.loading import load_backbone
from learners.model.sampling import Row, decode
from learners.pocket.corpus import held_out_asks, held_out_prompts, reply
from learners.pocket.labels import Labels, label
from learners.pocket.model import ANSWER_TOKENS
from learners.pocket.recogniser import Recogniser
from storage.records import Message, Sampling

PROMPTS, K, SEED = 250, 4, 1
REPLIES = 1000
"""Answers from the corpus, for the perplexity."""
PROMPTS_AT_ONCE = 16


@dataclass(frozen=True)
class Figures:
    """Shares are among the answers for which the axis is decided; answers are drawn at temperature 1 for held-out prompts, in sets of four."""

    answers: int
    perplexity: float  # per token of the corpus's own answers to held-out prompts
    well_formed: float  # ended within 80 tokens, and in the corpus's language
    untrue: float
    harmful: float
    evasive: float
    sets_that_differ: float  # in being truthful, harmless or useful


@dataclass(frozen=True)
class Drawn:
    """A set of answers to one prompt."""

    prompt: str
    answers: tuple[str, ...]
    ended: tuple[bool, ...]  # by the model, not by the limit


def measure(directory: Path, prompts: int = PROMPTS) -> tuple[Figures, list[Drawn]]:
    """Figures of the model in `directory`, and the sets of answers that they are taken from. Raises ModelError."""
    backbone = load_backbone(str(directory), "none", "cpu")
    sets = draw(backbone, held_out_prompts(prompts, SEED))
    return figures(sets, perplexity(backbone)), sets


def figures(sets: Sequence[Drawn], per_token: float) -> Figures:
    labels = [[label(drawn.prompt, answer) for answer in drawn.answers] for drawn in sets]
    found = [one for some in labels for one in some]
    good = [ended and _recogniser().well_formed(a) for drawn in sets for a, ended in zip(drawn.answers, drawn.ended, strict=True)]
    return Figures(
        answers=len(found),
        perplexity=round(per_token, 3),
        well_formed=_share(good),
        untrue=_share(one.truthful is False for one in found if one.truthful is not None),
        harmful=_share(one.harmless is False for one in found if one.harmless is not None),
        evasive=_share(one.useful is False for one in found if one.useful is not None),
        sets_that_differ=_share(any(differ(a, b) for a, b in combinations(some, 2)) for some in labels),
    )


def differ(one: Labels, other: Labels) -> bool:
    """In an axis that is decided for both."""
    pairs = ((one.truthful, other.truthful), (one.harmless, other.harmless), (one.useful, other.useful))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _share(values: Iterable[bool]) -> float:
    some = list(values)
    return round(sum(some) / len(some), 4) if some else math.nan


@cache
def _recogniser() -> Recogniser:
    return Recogniser(seed=0)


def draw(backbone: Backbone, prompts: Sequence[str]) -> list[Drawn]:
    """K answers to each prompt at temperature 1; the seed of an answer follows from its place."""
    return [drawn for first in range(0, len(prompts), PROMPTS_AT_ONCE) for drawn in _draw_some(backbone, prompts, first)]


def _draw_some(backbone: Backbone, prompts: Sequence[str], first: int) -> list[Drawn]:
    places = range(first, min(first + PROMPTS_AT_ONCE, len(prompts)))
    rows = [Row(f"{i}.{j}", _prompt_ids(backbone, prompts[i]), SEED + i * K + j) for i in places for j in range(K)]
    ids: dict[str, list[int]] = {row.uid: [] for row in rows}
    for step in decode(backbone.model, rows, Sampling(1.0, ANSWER_TOKENS), backbone.eos_ids, backbone.pad_id):
        for uid, token in zip(step.uids, step.ids, strict=True):
            ids[uid].append(token)
    sets = [[ids[f"{i}.{j}"] for j in range(K)] for i in places]
    return [
        Drawn(prompts[i], tuple(map(backbone.decode, some)), tuple(one[-1] in backbone.eos_ids for one in some))
        for i, some in zip(places, sets, strict=True)
    ]


def _prompt_ids(backbone: Backbone, prompt: str) -> tuple[int, ...]:
    return tuple(backbone.encode((Message("user", prompt),))[-(backbone.context - ANSWER_TOKENS) :])


def perplexity(backbone: Backbone, count: int = REPLIES) -> float:
    """Of a token of the corpus's own answers to prompts that the model never saw, the end token included."""
    rng = random.Random("pocket perplexity")
    total, tokens = 0.0, 0
    for ask in held_out_asks(count, SEED):
        prompt, answer = _prompt_ids(backbone, ask.prompt), backbone.encode_completion(reply(rng, ask).text)
        with torch.no_grad():
            logits = forward(backbone.model, torch.tensor([[*prompt, *answer]]), keep=len(answer) + 1).logits[0, :-1]
        total += float(functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        tokens += len(answer)
    return math.exp(total / tokens)
