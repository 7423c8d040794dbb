"""Simulated operators: functions of a Python file that judge or rewrite answers, given as FILE.py:FUNC."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

Judge = Callable[[str, list[str]], list[float]]
Corrector = Callable[[str, str], str]
Critic = Callable[[str, list[str]], str | None]


class OperatorError(Exception):
    """What is wrong with an operator's function, in one line."""


def load_function(spec: str) -> Callable[..., Any]:
    """The function that FILE.py:FUNC names; the file may import its neighbours. Raises OperatorError."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise OperatorError(f"an operator is FILE.py:FUNC, not {spec}")
    if not path.is_file():
        raise OperatorError(f"there is no file {path}")
    function = getattr(_module(path), name, None)
    if not callable(function):
        raise OperatorError(f"{path} has no function {name}")
    return function


def _module(path: Path) -> ModuleType:
    """The file, run. Its folder stays importable: a function may import when it is called."""
    found = importlib.util.spec_from_file_location(f"operator_{path.stem}", path)
    if found is None or found.loader is None:
        raise OperatorError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last: a neighbour called json.py must not hide the library
    sys.modules[found.name] = module  # dataclasses look themselves up there
    try:
        with _quiet():
            found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise OperatorError(f"{path} cannot be imported: {_line(error)}") from error
    return module


def ask(judge: Judge, spec: str, prompt: str, responses: Sequence[str]) -> list[float]:
    """Scores of the responses, checked. Raises OperatorError."""
    try:
        with _quiet():
            scores = [float(score) for score in judge(prompt, list(responses))]
    except (Exception, SystemExit) as error:
        raise OperatorError(f"{spec} failed: {_line(error)}") from error
    if len(scores) != len(responses):
        raise OperatorError(f"{spec} gave {len(scores)} scores for {len(responses)} responses")
    if any(math.isnan(score) for score in scores):
        raise OperatorError(f"{spec} gave a score that is not a number")
    return scores


def rewrite(correct: Corrector, spec: str, prompt: str, response: str) -> str:
    """The response as the operator rewrites it. Raises OperatorError."""
    try:
        with _quiet():
            text = correct(prompt, response)
    except (Exception, SystemExit) as error:
        raise OperatorError(f"{spec} failed: {_line(error)}") from error
    if not isinstance(text, str):
        raise OperatorError(f"{spec} returned {type(text).__name__} instead of a text")
    return text


def say(critique: Critic, spec: str, prompt: str, responses: Sequence[str]) -> str | None:
    """What should be otherwise in the responses, or None where nothing is to be said. Raises OperatorError."""
    try:
        with _quiet():
            text = critique(prompt, list(responses))
    except (Exception, SystemExit) as error:
        raise OperatorError(f"{spec} failed: {_line(error)}") from error
    if text is not None and not isinstance(text, str):
        raise OperatorError(f"{spec} returned {type(text).__name__} instead of a text or None")
    return text


def ranks_of(scores: Sequence[float]) -> list[int]:
    """Dense ranks, the highest score first; equal scores tie."""
    order = sorted(set(scores), reverse=True)
    return [order.index(score) + 1 for score in scores]


class RunningQuantiles:
    """Maps scores to ratings from 1 to 7 by where they lie among all scores so far."""

    def __init__(self) -> None:
        self._scores: list[float] = []

    def ratings(self, scores: Sequence[float]) -> list[int]:
        """Take these scores in and rate them."""
        for score in scores:
            insort(self._scores, score)
        return [self._rating(score) for score in scores]

    def _rating(self, score: float) -> int:
        middle = (bisect_left(self._scores, score) + bisect_right(self._scores, score)) / 2
        return min(7, 1 + int(7 * middle / len(self._scores)))


def _quiet() -> contextlib.redirect_stdout[TextIO]:
    """What an operator's code prints goes to stderr: stdout carries the JSON."""
    return contextlib.redirect_stdout(sys.stderr)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
