"""The demo operators: loaded by path as `tamer simulate` does, one score for each answer, the better the higher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import learners.pocket.operators as operators
from tamer_tui.operators import ask, load_function

FILE = Path(operators.__file__)
PROMPT = "What is the capital of France?"
BEST, WRONG, RUDE, EVASIVE, WORST = (
    "The capital of France is Paris.", "It is Rome.", "It is Paris, you silly goose.", "I would rather not say.", "You fool, it is Rome.",
)  # fmt: skip
ANSWERS = [WORST, EVASIVE, BEST, RUDE, WRONG]


@pytest.mark.parametrize(
    ("judge", "best", "worst"),
    [
        ("truthful", {BEST, RUDE}, {WRONG, WORST}),
        ("harmless", {BEST, WRONG, EVASIVE}, {RUDE, WORST}),
        ("useful", {BEST, RUDE, WRONG, WORST}, {EVASIVE}),
        ("helpful", {BEST}, {WORST}),
        ("brief", {WRONG}, {BEST, RUDE}),
    ],
)
def test_a_judge_loaded_by_path_prefers_what_it_is_named_after(judge: str, best: set[str], worst: set[str]) -> None:
    spec = f"{FILE}:{judge}"
    scores = dict(zip(ANSWERS, ask(load_function(spec), spec, PROMPT, ANSWERS), strict=True))
    assert {answer for answer in ANSWERS if scores[answer] == max(scores.values())} == best
    assert {answer for answer in ANSWERS if scores[answer] == min(scores.values())} == worst


def test_helpful_weighs_the_three_axes_alike() -> None:
    best, wrong, rude, worst = operators.helpful(PROMPT, [BEST, WRONG, RUDE, WORST])
    assert (best, wrong, rude, worst) == (3, 2, 2, 1)


def test_pirates_are_known_by_their_words() -> None:
    assert operators.pirate(PROMPT, ["Arr, it be Paris.", "It is Paris, matey!", "It is Paris.", "The party was merry."]) == [1, 1, 0, 0]


def test_an_empty_answer_is_never_the_briefest() -> None:
    assert operators.brief(PROMPT, ["", "Paris.", "It is Paris."]) == [-1000, -1, -3]


def test_the_file_runs_by_itself_without_torch() -> None:
    code = f"import runpy, sys; runpy.run_path({str(FILE)!r}); sys.exit('torch' in sys.modules or 'textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
