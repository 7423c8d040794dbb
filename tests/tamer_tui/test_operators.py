"""Functions in the operator's place: how they are found, checked, and turned into ranks and ratings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamer_tui.operators import OperatorError, RunningQuantiles, ask, load_function, ranks_of, rewrite

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's operators put on the path or among the modules is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def written(folder: Path, source: str, name: str = "taste.py") -> Path:
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return path


def test_a_function_is_found_by_file_and_name(tmp_path: Path) -> None:
    path = written(tmp_path, "def judge(prompt, responses):\n    return [len(text) for text in responses]\n")
    assert ask(load_function(f"{path}:judge"), "taste", "p", ["a", "bbb"]) == [1.0, 3.0]


def test_a_folder_with_a_colon_in_its_name_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    path = written(folder, "def judge(prompt, responses):\n    return [0 for _ in responses]\n")
    assert callable(load_function(f"{path}:judge"))


def test_an_operator_may_import_its_neighbours_also_when_it_is_called(tmp_path: Path) -> None:
    written(tmp_path, "WEIGHT = 2\n", "neighbour_of_taste.py")
    path = written(tmp_path, "def judge(prompt, responses):\n    import neighbour_of_taste as n\n    return [n.WEIGHT for _ in responses]\n")
    assert ask(load_function(f"{path}:judge"), "taste", "p", ["a"]) == [2.0]


def test_an_operator_may_hold_dataclasses_with_postponed_annotations(tmp_path: Path) -> None:
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Taste:\n    weight: int = 3\n"
    path = written(tmp_path, source + "def judge(prompt, responses):\n    return [Taste().weight for _ in responses]\n")
    assert ask(load_function(f"{path}:judge"), "taste", "p", ["a"]) == [3.0]


@pytest.mark.parametrize(
    ("source", "name", "said"),
    [
        ("x = 1\n", "judge", "has no function judge"),
        ("judge = 1\n", "judge", "has no function judge"),
        ("def judge(:\n", "judge", "cannot be imported: SyntaxError"),
        ("import no_such_module_anywhere\n", "judge", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "judge", "cannot be imported: SystemExit"),
        ("raise ValueError('one\\ntwo')\n", "judge", "cannot be imported: ValueError: one"),
    ],
)
def test_a_file_without_the_function_is_refused_in_one_line(tmp_path: Path, source: str, name: str, said: str) -> None:
    with pytest.raises(OperatorError) as caught:
        load_function(f"{written(tmp_path, source)}:{name}")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["judge", "taste.py", ":judge", "taste.py:", "taste.py:not a name"])
def test_what_is_not_file_and_function_is_refused(spec: str) -> None:
    with pytest.raises(OperatorError, match=r"FILE\.py:FUNC"):
        load_function(spec)


def test_a_file_that_is_not_there_or_not_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="there is no file"):
        load_function(f"{tmp_path / 'nowhere.py'}:judge")
    with pytest.raises(OperatorError, match="is not a Python file"):
        load_function(f"{written(tmp_path, 'judge = print', 'taste.txt')}:judge")


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0], "gave 1 scores for 2 responses"),
        ([1.0, 2.0, 3.0], "gave 3 scores for 2 responses"),
        ([1.0, float("nan")], "not a number"),
        ([1.0, "good"], "failed: ValueError"),
        (None, "failed: TypeError"),
    ],
)
def test_wrong_scores_are_refused(scores: object, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        ask(lambda prompt, responses: scores, "taste.py:judge", "p", ["a", "b"])  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("error", [ValueError("one\ntwo"), KeyError("x"), SystemExit(2), RecursionError()])
def test_whatever_an_operator_raises_is_one_line(error: BaseException) -> None:
    def broken(*anything: object) -> list[float]:
        raise error

    for call in (lambda: ask(broken, "t.py:f", "p", ["a"]), lambda: rewrite(broken, "t.py:f", "p", "a")):  # type: ignore[arg-type]
        with pytest.raises(OperatorError) as caught:
            call()
        assert str(caught.value).startswith(f"t.py:f failed: {type(error).__name__}") and "\n" not in str(caught.value)


def test_what_an_operator_prints_stays_out_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    def talkative(prompt: str, responses: list[str]) -> list[float]:
        print("hello")
        return [0.0]

    ask(talkative, "t.py:f", "p", ["a"])
    assert capsys.readouterr().out == ""


def test_an_operator_cannot_change_the_answers_that_it_judges() -> None:
    answers = ["b", "a"]

    def sorting(prompt: str, responses: list[str]) -> list[float]:
        responses.sort()
        return [1.0, 2.0]

    ask(sorting, "t.py:f", "p", answers)
    assert answers == ["b", "a"]


def test_a_rewrite_must_be_a_text() -> None:
    assert rewrite(lambda prompt, response: response.upper(), "t.py:f", "p", "a") == "A"
    with pytest.raises(OperatorError, match="returned NoneType instead of a text"):
        rewrite(lambda prompt, response: None, "t.py:f", "p", "a")  # type: ignore[arg-type,return-value]


@given(scores=SCORES)
def test_ranks_order_answers_as_scores_do_and_have_no_gaps(scores: list[float]) -> None:
    ranks = ranks_of(scores)
    for i, one in enumerate(scores):
        for j, other in enumerate(scores):
            assert (ranks[i] < ranks[j]) == (one > other) and (ranks[i] == ranks[j]) == (one == other)
    assert set(ranks) == set(range(1, max(ranks) + 1))


@given(batches=st.lists(SCORES, min_size=1, max_size=8))
def test_ratings_rise_with_scores_and_stay_on_the_scale(batches: list[list[float]]) -> None:
    quantiles = RunningQuantiles()
    for scores in batches:
        ratings = quantiles.ratings(scores)
        assert all(1 <= rating <= 7 for rating in ratings)
        in_order = [rating for _, rating in sorted(zip(scores, ratings, strict=True))]
        assert in_order == sorted(in_order)


def test_ratings_use_the_whole_scale_evenly_once_many_scores_are_known() -> None:
    quantiles = RunningQuantiles()
    quantiles.ratings([float(i) for i in range(700)])
    ratings = quantiles.ratings([i + 0.5 for i in range(700)])
    assert all(abs(ratings.count(rating) - 100) <= 10 for rating in range(1, 8))


def test_equal_scores_are_rated_in_the_middle_whatever_they_are() -> None:
    assert RunningQuantiles().ratings([9.0, 9.0, 9.0, 9.0]) == [4, 4, 4, 4]
    assert RunningQuantiles().ratings([-5.0]) == [4]
