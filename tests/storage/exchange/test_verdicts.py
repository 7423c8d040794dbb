"""What a row says of which answer, where it could be misread: no verdict, numbers, buckets, sides, several questions that are one of ours."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.database import JournalError
from storage.exchange.importing import import_file
from storage.exchange.shapes import SHAPES, BadRow, shape_of
from storage.journal import Journal
from storage.queries import Record
from storage.records import Rating
from storage.verification import problems

from .test_shapes import written

AB = {"prompt": "Hi", "response_a": "one", "response_b": "two"}
NUMBERED = {"prompt": "Hi", "response_1": "one", "response_2": "two"}
ASKED, ONE, TWO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}
ARENA = {"conversation_a": [ASKED, ONE], "conversation_b": [ASKED, TWO]}
TABLE = {"prompt": ["Hi"], "response_a": ["one"], "response_b": ["two"]}
SUMMARIES = {"info": {"post": "Hi"}, "summaries": [{"text": "one"}, {"text": "two"}]}


def ones(first: Any, second: Any, tie: Any) -> dict[str, Any]:
    return {"winner_model_a": first, "winner_model_b": second, "winner_tie": tie}


def read(row: dict[str, Any]) -> list[Any]:
    shape = shape_of(row, SHAPES)
    assert shape is not None
    return list(shape.read(row))


@pytest.mark.parametrize(
    "row",
    [
        *({**AB, column: value} for column in ("winner", "preference", "vote", "label", "better") for value in (None, "", [])),
        *({**NUMBERED, "winner": value} for value in (None, "")), {**ARENA, "winner": None}, {**ARENA, "winner": ""},
        {**ARENA, **ones(0, 0, 0)}, {**TABLE, **ones(0, 0, 0)}, {**TABLE, **ones(1, 1, 0)}, {**TABLE, **ones(None, None, None)},
        {**SUMMARIES, "choice": None}, {"prompt": "Hi", "response_0": "one", "response_1": "two", "better_response_id": None},
        {"prompt": "Hi", "response1": "one", "response2": "two", "overall_preference": None},
        {"instruction": "Hi", "output_1": "one", "output_2": "two", "preference": None},
        {"history": "Hi", "human_ref_A": "one", "human_ref_B": "two", "labels": None},
        {"prompt": "Hi", "completion": "one", "label": None}, {"prompt": "Hi", "response": "one", "is_safe": None},
        {"prompt": "Hi", "completions": ["one"], "labels": [None]},
    ],
    ids=str,
)  # fmt: skip
def test_where_nobody_decided_nothing_is_said(row: dict[str, Any]) -> None:
    with pytest.raises(BadRow):
        read(row)


@pytest.mark.parametrize(
    ("row", "ranks", "bad"),
    [
        ({**AB, "winner": "a"}, (1, 2), 0), ({**AB, "winner": "response_b"}, (2, 1), 0), ({**AB, "winner": "none"}, (1, 1), 2),
        ({**NUMBERED, "winner": 1}, (1, 2), 0), ({**NUMBERED, "choice": "2"}, (2, 1), 0), ({**AB, "winner": "tie"}, (1, 1), 0),
        ({**ARENA, **ones(1, 0, 0)}, (1, 2), 0), ({**ARENA, **ones(0, 1, 0)}, (2, 1), 0), ({**ARENA, **ones(0, 0, 1)}, (1, 1), 0),
        ({**ARENA, "winner": None, **ones(0, 1, 0)}, (2, 1), 0), ({**TABLE, **ones(0, 1, 0)}, (2, 1), 0), ({**TABLE, **ones(0, 0, 1)}, (1, 1), 0),
        ({**ARENA, "winner": "model_a", **ones(0, 1, 0)}, (1, 2), 0),
    ],
    ids=str,
)  # fmt: skip
def test_a_verdict_is_of_the_answer_that_it_names(row: dict[str, Any], ranks: tuple[int, int], bad: int) -> None:
    (judged,) = read(row)
    assert judged.ranks == ranks and judged.answers == ("one", "two") and [value for *_, value in judged.ratings] == [2] * bad
    assert not (judged.kept and {"winner_tie", "winner"} & judged.kept.columns.keys() and "winner" not in row)


@pytest.mark.parametrize("row", [AB | {"label": 1}, AB | {"label": "0"}, AB | {"winner": 1.0}, AB | {"choice": 2}, NUMBERED | {"label": 1}], ids=str)
def test_a_number_that_may_mean_either_is_no_verdict(row: dict[str, Any]) -> None:
    with pytest.raises(BadRow, match="may mean either answer"):
        read(row)


# --- labelling tools ---------------------------------------------------------------------------------------------------------


def label_studio(data: dict[str, Any], *results: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"prompt": "Hi", **data}, "annotations": [{"completed_by": 1, "result": list(results)}]}


def ranker(**buckets: list[str]) -> dict[str, Any]:
    items = {"items": [{"id": name, "body": name} for name in "xyz"]}
    return label_studio(items, {"from_name": "rank", "to_name": "list", "value": {"ranker": buckets}})


@pytest.mark.parametrize(
    ("row", "ranked"),
    [
        (ranker(rank=["z", "x", "y"]), {"z": 1, "x": 2, "y": 3}), (ranker(rank=["z", "x"], _=["y"]), {"z": 1, "x": 2}),
        (ranker(good=["x", "y"], bad=["z"]), {"x": 1, "y": 1, "z": 2}), (ranker(bad=["z"], good=["x", "y"]), {"x": 1, "y": 1, "z": 2}),
        (ranker(bad=["x", "z"], good=[], _=["y"]), {"x": 1, "z": 1}), (ranker(accepted=["y"], rejected=["z", "x"]), {"y": 1, "x": 2, "z": 2}),
    ],
    ids=str,
)  # fmt: skip
def test_items_of_one_bucket_tie(row: dict[str, Any], ranked: dict[str, int]) -> None:
    (judged,) = read(row)
    assert dict(zip(judged.answers, judged.ranks, strict=True)) == ranked


@pytest.mark.parametrize("row", [ranker(first=["x"], second=["y"]), ranker(A=["x", "y"], B=[])], ids=str)
def test_buckets_that_do_not_say_what_is_good_are_told(row: dict[str, Any]) -> None:
    with pytest.raises(BadRow, match="do not say whether what is in them is good or bad"):
        read(row)


def pairwise(to: str, **data: str) -> dict[str, Any]:
    return label_studio(data, {"from_name": "pw", "to_name": to, "value": {"selected": "left"}})


@pytest.mark.parametrize(
    ("row", "better"),
    [
        (pairwise("answer1,answer2", answer2="worse", answer1="better"), "better"),
        (pairwise("txt-1,txt-2", answer2="worse", answer1="better"), "better"),
        (pairwise("one_b,one_a", text_a="worse", text_b="better"), "better"), (pairwise("x,y", right="worse", left="better"), "better"),
        (pairwise("first,second", answer2="?", answer1="?"), None), (pairwise("", chosen="?", other="?"), None),
        (pairwise("t-1,t-2", a="?", b="?"), None),
    ],
    ids=str,
)  # fmt: skip
def test_left_and_right_are_named_and_never_by_the_order_of_the_data(row: dict[str, Any], better: str | None) -> None:
    if better is None:
        with pytest.raises(BadRow, match="does not say which fields were compared"):
            read(row)
    else:
        (judged,) = read(row)
        assert judged.answers[judged.ranks.index(1)] == better and len(judged.answers) == 2


def argilla(**answers: Any) -> dict[str, Any]:
    said = [{"question_name": name, "value": value, "user_id": "kim", "status": "submitted"} for name, value in answers.items()]
    return {"fields": {"prompt": f"Hi {sorted(answers)}", "response": "one"}, "responses": said}


@pytest.mark.parametrize(
    ("row", "live", "left"),
    [
        (argilla(fluency=5, style=1), {("overall", 7)}, {"style": 1}), (argilla(fluency="yes", style="no"), {("overall", 6)}, {"style": "no"}),
        (argilla(good="yes", style=1), {("overall", 6)}, {"style": 1}), (argilla(harm="no", toxicity="yes"), {("harmless", 2)}, {"toxicity": "yes"}),
        (argilla(corrected="new", improved="newer"), {("corrected", "new")}, {"improved": "newer"}),
    ],
    ids=str,
)  # fmt: skip
def test_of_questions_that_are_one_of_ours_the_first_counts_and_the_others_are_kept(
    fresh: Journal, tmp_path: Any, row: dict[str, Any], live: set[tuple[str, Any]], left: dict[str, Any]
) -> None:
    low = argilla(fluency=1)
    import_file(fresh, written(tmp_path, [row, low]))
    with Record(fresh.path) as record:
        (first, *_) = record.lessons()
        said = [each.judgement for each in record.live(first.sample_set.uid)]
        assert {(each.criterion, each.value) if isinstance(each, Rating) else ("corrected", each.text) for each in said} == live  # type: ignore[union-attr]
        kept = record.kept(first.sample_set.uid)
    assert kept is not None and kept["columns"]["responses"] == left
    assert list(problems(fresh.path)) == []


def test_no_set_has_more_answers_than_letters() -> None:
    names = [f"r{i}" for i in range(10)]
    said = [{"question_name": f"quality {name}", "value": 3, "status": "submitted"} for name in names]
    with pytest.raises(BadRow, match="10 answers: a set has 9 at most"):
        read({"fields": {"prompt": "Hi"} | {name: f"answer {name}" for name in names}, "responses": said})


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([{"messages": [ASKED, ONE | {"weight": 0}]}], "answers to imitate, and nothing in it can be used: line 1: its answer has the weight 0"),
        ([{"messages": [ASKED, ONE | {"content": None}]}], "answers to imitate, and nothing in it can be used: line 1: the answer is empty"),
        ([{"text": "Hi", "options": [{"id": 1, "text": "one"}], "accept": [], "answer": "ignore"}], "nothing in it was judged"),
        ([{"prompt": "Hi", "chosen": ["one"], "rejected": ["two", "one"]}], "line 1: chosen and rejected are the same"),
        ([{"context": [ASKED], "original_response": "one", "edited_response": "one"}], "the edited response is the original one"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_a_file_of_a_known_shape_with_nothing_to_use_says_what_it_is_and_why(rows: list[Any], why: str, empty_database: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(empty_database, tmp_path / "a.db"))
    with Journal.open(path) as journal, pytest.raises(JournalError, match=re.escape(why)):
        import_file(journal, written(tmp_path, rows), skip_bad=True)


def test_of_an_answer_that_is_not_to_be_learned_the_others_are() -> None:
    (told,) = read({"messages": [ASKED, ONE | {"weight": 0}, ASKED, TWO | {"weight": 1}]})
    assert (told.written, [message.content for message in told.messages]) == ("two", ["Hi", "one", "Hi"])
