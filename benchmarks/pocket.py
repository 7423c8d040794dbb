"""Measure the embedded model again: how fast it loads, and whether its card tells the truth. One JSON line.

    python benchmarks/pocket.py             the card's own 1,000 answers
    python benchmarks/pocket.py --check     the same, and exit 1 where a figure is not the card's
    python benchmarks/pocket.py --prompts 500

The same answers are drawn each time, but on another processor rounding makes some of them others: `--check` allows for three standard errors of
the difference of two independent measurements.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path

import transformers  # noqa: F401  what is imported before the clock starts

from learners.model.checkpoint import POCKET
from learners.model.loading import load_backbone
from learners.pocket.card import read_card
from learners.pocket.corpus import corpus_hash
from learners.pocket.measuring import PROMPTS, Figures, measure

PERPLEXITY_SLACK = 0.005
"""Of itself: the same answers, in another arithmetic."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--prompts", type=int, default=PROMPTS, metavar="N")
    parser.add_argument("--model", type=Path, default=POCKET, metavar="DIR")
    chosen = parser.parse_args()
    began = time.monotonic()
    load_backbone(str(chosen.model), "none", "cpu")
    load_seconds = round(time.monotonic() - began, 2)
    training, card = read_card(chosen.model)
    found = measure(chosen.model, chosen.prompts)[0]
    differing = [name for name in asdict(found) if name != "answers" and not _agree(name, found, card)]
    if training.corpus_hash != corpus_hash():
        differing.append("corpus_hash")
    print(json.dumps({"load_seconds": load_seconds, "found": asdict(found), "card": asdict(card), "differing": differing}))
    return int(chosen.check and bool(differing))


def _agree(name: str, found: Figures, card: Figures) -> bool:
    ours, theirs = getattr(found, name), getattr(card, name)
    if name == "perplexity":
        return math.isclose(ours, theirs, rel_tol=PERPLEXITY_SLACK)
    # A set of four counts as one answer here, and answers to one prompt resemble each other: sets, not answers, are what is independent.
    variance = theirs * (1 - theirs) * 4 * (1 / found.answers + 1 / card.answers)
    return abs(ours - theirs) <= 3 * math.sqrt(variance) + 1e-9


if __name__ == "__main__":
    sys.exit(main())
