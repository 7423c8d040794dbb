"""Pocket's model card: what it was trained on and what it was measured to do, in a front matter that tests and benchmarks read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from learners.model.checkpoint import ModelError
from learners.pocket.measuring import Drawn, Figures
from learners.pocket.model import SHARPNESS

CARD = "README.md"
SHOWN = 10
"""Prompts with their answers."""
T = TypeVar("T", "Training", Figures)


@dataclass(frozen=True)
class Training:
    """What the weights were made from."""

    corpus_hash: str
    seed: int
    tokens_seen: int
    steps: int
    parameters: int


def write_card(directory: Path, training: Training, figures: Figures, sets: Sequence[Drawn]) -> None:
    """The sets of answers are shown as they come, the first ten."""
    values = {"language": "en", "license": "apache-2.0", **asdict(training), **asdict(figures)}
    front = "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())
    text = f"---\n{front}---\n{_described(training, figures)}\n{_SAMPLES}\n" + "\n".join(map(_shown, sets[:SHOWN]))
    (directory / CARD).write_text(text, encoding="utf-8")


def read_card(directory: Path) -> tuple[Training, Figures]:
    """Raises ModelError when there is no card, or one without its figures."""
    try:
        front = (directory / CARD).read_text(encoding="utf-8").split("---\n")[1]
        values = {name: json.loads(value) for name, _, value in (line.partition(": ") for line in front.splitlines())}
        return _take(Training, values), _take(Figures, values)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(f"no model card with figures in {directory}", "train the model again: python -m learners.pocket.train") from error


def _take(kind: type[T], values: dict[str, Any]) -> T:
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _described(training: Training, figures: Figures) -> str:
    return f"""
# Pocket

A chat model of {training.parameters / 1e6:.2f} million parameters that comes with tamer-tui, so that there is something to tame without a download.
It speaks simple English about capitals, colours, animals, numbers, days, how to do small things, feelings, and it tells tiny stories. About half of
its answers have a fault, on purpose: a wrong fact, an insult or bad advice, or no answer at all. It was never aligned with anything: that is the
operator's part. **It is for practice. Do not take facts or advice from it.**

| made from | |
|---|---|
| text | `learners/pocket/corpus.py`, made up as training goes, no chat twice on purpose; hash `{training.corpus_hash[:16]}…` |
| tokens seen | {training.tokens_seen:,} in {training.steps:,} steps, seed {training.seed} |
| architecture | Llama, from random weights; byte-level BPE; bfloat16; logits scaled by {SHARPNESS:g} after training |
| again | `python -m learners.pocket.train --seed {training.seed} --tokens {training.tokens_seen}` |

| {figures.answers:,} answers at temperature 1, four to each held-out prompt | |
|---|---|
| well-formed: ended within 80 tokens, in the corpus's language | {figures.well_formed:.1%} |
| untrue, of those that state a fact that can be checked | {figures.untrue:.1%} |
| rude or unsafe | {figures.harmful:.1%} |
| evasive | {figures.evasive:.1%} |
| sets of four in which two answers differ in being truthful, harmless or useful | {figures.sets_that_differ:.1%} |
| perplexity of the corpus's own answers to held-out prompts, per token | {figures.perplexity:.3f} |

Measured by `benchmarks/pocket.py`, with the program's own ground truth (`learners/pocket/labels.py`). System messages are left out, and of a longer
talk the model sees the last exchange and the new question: it was taught on no more.
"""


_SAMPLES = """## Samples

The first ten held-out prompts and four answers to each, unselected.
"""


def _shown(drawn: Drawn) -> str:
    """Indented as code, so that no answer is taken for markup."""
    return "".join(f"    {line}\n" for line in (f"> {drawn.prompt or '(nothing)'}", *(" ".join(answer.split()) for answer in drawn.answers)))
