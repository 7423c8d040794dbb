"""Several answers to one prompt: ranked, or scored as a whole or by aspect; and single answers scored by aspect."""

from __future__ import annotations

from collections.abc import Iterator

from storage.exchange.items import Judged, Row
from storage.exchange.shapes.pieces import (
    MOST_ANSWERS,
    BadRow,
    by_score,
    empty,
    judged,
    label_of,
    number_of,
    on_scale,
    ranked,
    reply_of,
    rest,
    said,
    score_of,
)
from storage.exchange.shapes.trainers import BAD, GOOD, answer_column, asked, question_of

ASPECTS = {
    "helpfulness": "useful", "usefulness": "useful", "instruction_following": "useful", "truthfulness": "truthful", "correctness": "truthful",
    "factuality": "truthful", "harmlessness": "harmless", "safety": "harmless", "toxicity": "",
}  # fmt: skip
"""Aspects of other people's scales, and ours. 'overall' comes from a score of its own."""


# --- ranked ----------------------------------------------------------------------------------------------------------------


def is_nectar(row: Row) -> bool:
    answers = row.get("answers")
    return isinstance(answers, list) and any(isinstance(one, dict) and "rank" in one for one in answers) and question_of(row) is not None


def nectar(row: Row) -> Iterator[Judged]:
    """Answers with ranks, best 1; also Axolotl's K answers."""
    answers = row["answers"]
    if not isinstance(answers, list) or not all(isinstance(one, dict) and _whole(one.get("rank")) for one in answers):
        raise BadRow("answers are not a list of answers with ranks")
    turns, used = asked(row)
    columns = rest(row, "answers", *used)
    if any(more := [rest(one, "answer", "rank") for one in answers]):
        columns["answers"] = more
    yield ranked(turns, [reply_of(one.get("answer"), "an answer") for one in answers], [int(one["rank"]) for one in answers], columns=columns)


def _whole(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()


# --- scored ----------------------------------------------------------------------------------------------------------------

LISTS = ("responses", "completions", "generations", "answers", "candidates", "outputs", "samples", "all_responses")
SCORE_LISTS = ("scores", "ratings", "rating", "rewards", "ranks", "ranking", "rank", "all_rm_scores")


def is_ultrafeedback(row: Row) -> bool:
    found = row.get("completions")
    return isinstance(found, list) and bool(found) and all(isinstance(one, dict) and "annotations" in one and "response" in one for one in found)


def ultrafeedback(row: Row) -> Iterator[Judged]:
    """Four completions with an overall score and ratings by aspect."""
    turns, used = asked(row)
    found = row["completions"]
    answers = [reply_of(one["response"], "a response") for one in found]
    scores = [_overall(one) for one in found]
    ratings = [(slot, ours, value) for slot, one in enumerate(found) for ours, value in _by_aspect(one["annotations"])]
    columns = rest(row, "completions", *used) | {"completions": [rest(one, "response") for one in found]}
    if any(score is None for score in scores) or not 2 <= len(answers) <= MOST_ANSWERS:
        raise BadRow(
            "a completion has no overall score" if any(score is None for score in scores) else f"{len(answers)} answers: 2 to 9 can be ranked"
        )
    yield ranked(turns, answers, by_score([score or 0.0 for score in scores]), scores=scores, ratings=tuple(ratings), columns=columns)


def _overall(completion: Row) -> float | None:
    """The mean of the aspects where there are some: the overall scores of the first release have mistakes of a factor of ten."""
    values = [score_of(_rating_of(one)) for one in completion["annotations"].values()] if isinstance(completion["annotations"], dict) else []
    told = [value for value in values if value is not None]
    return sum(told) / len(told) if told else score_of(completion.get("overall_score"))


def _rating_of(annotation: object) -> object:
    while isinstance(annotation, list) and annotation:
        annotation = annotation[0]
    return annotation.get("Rating", annotation.get("rating")) if isinstance(annotation, dict) else annotation


def _by_aspect(annotations: object) -> Iterator[tuple[str, int]]:
    """1 to 5; of two aspects that are one of ours, the first."""
    found: dict[str, int] = {}
    for name, one in annotations.items() if isinstance(annotations, dict) else ():
        ours, value = ASPECTS.get(name), score_of(_rating_of(one))
        if ours and value is not None:
            found.setdefault(ours, on_scale(value, 1, 5))
    yield from found.items()


def scored_columns(row: Row) -> tuple[str, str] | None:
    """The list of answers and that of their scores, '' where the answers carry them."""
    for name in LISTS:
        answers = row.get(name)
        if not isinstance(answers, list) or len(answers) < 2:
            continue
        if all(isinstance(one, dict) and _score_in(one) is not None and answer_column(one) for one in answers):
            return name, ""
        for scores in SCORE_LISTS:
            told = row.get(scores)
            if isinstance(told, list) and len(told) == len(answers) and all(score_of(one) is not None for one in told):
                return name, scores
    return None


def _score_in(answer: Row) -> str | None:
    return next((name for name in ("score", "rating", "reward", "overall_score", "rank") if score_of(answer.get(name)) is not None), None)


def is_scored_list(row: Row) -> bool:
    return scored_columns(row) is not None and question_of(row) is not None


def scored_list(row: Row) -> Iterator[Judged]:
    """Answers with scores, the highest best; with ranks, the lowest."""
    found = scored_columns(row)
    assert found is not None
    turns, used = asked(row)
    if found[1]:
        texts, scores, by = row[found[0]], row[found[1]], found[1]
        columns = rest(row, *found, *used)
    else:
        by = str(_score_in(row[found[0]][0]))
        texts, scores = [one[str(answer_column(one))] for one in row[found[0]]], [one.get(by) for one in row[found[0]]]
        columns = rest(row, found[0], *used)
        if any(more := [rest(one, str(answer_column(one)), by) for one in row[found[0]]]):
            columns[found[0]] = more
    numbers = [number_of(one, "a score") for one in scores]
    low_is_best = by.startswith("rank")
    ranks = by_score([-number for number in numbers] if low_is_best else numbers)
    yield ranked(turns, [reply_of(one, "an answer") for one in texts], ranks, scores=() if low_is_best else numbers, columns=columns)


# --- single answers by aspect ----------------------------------------------------------------------------------------------

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def is_helpsteer(row: Row) -> bool:
    return all(name in row for name in HELPSTEER) and "response" in row and "prompt" in row


def helpsteer(row: Row) -> Iterator[Judged]:
    """HelpSteer's five aspects from 0 to 4, of one annotator or of several: helpfulness is overall and useful, correctness truthful; the others are
    kept."""
    turns, used = asked(row)
    helpful, correct = (on_scale(_mean(row[name], name), 0, 4) for name in HELPSTEER[:2])
    ratings = ((0, "overall", helpful), (0, "useful", helpful), (0, "truthful", correct))
    yield judged(turns, (reply_of(row["response"], "response"),), ratings=ratings, columns=rest(row, "response", *used))


def _mean(value: object, what: str) -> float:
    values = [number_of(one, what) for one in value] if isinstance(value, list) and value else [number_of(value, what)]
    return sum(values) / len(values)


def is_helpsteer3_edit(row: Row) -> bool:
    return "original_response" in row and "edited_response" in row and question_of(row) is not None


def helpsteer3_edit(row: Row) -> Iterator[Judged]:
    """An answer and how somebody rewrote it, after remarks on it."""
    turns, used = asked(row)
    edited = said(row["edited_response"], "edited_response")
    original = reply_of(row["original_response"], "original_response")
    if edited == original.text:
        raise BadRow("the edited response is the original one")
    columns = rest(row, "original_response", "edited_response", "feedback", *used)
    yield judged(turns, (original,), corrections=((0, edited),), comments=_remarks(row), columns=columns)


def is_helpsteer3_feedback(row: Row) -> bool:
    remarks = row.get("feedback")
    return isinstance(remarks, list) and bool(remarks) and all(isinstance(one, str) for one in remarks) and "response" in row and "context" in row


def helpsteer3_feedback(row: Row) -> Iterator[Judged]:
    """An answer and remarks on it, which may find it bad: it is nothing to imitate."""
    turns, used = asked(row)
    answers = (reply_of(row["response"], "response"),)
    yield judged(turns, answers, comments=_remarks(row), columns=rest(row, "response", "feedback", *used))


def _remarks(row: Row) -> tuple[tuple[int, str], ...]:
    remarks = row.get("feedback")
    return tuple((0, said(one, "feedback")) for one in (remarks if isinstance(remarks, list) else [remarks]) if not empty(one))


def is_beavertails(row: Row) -> bool:
    return "is_safe" in row and "prompt" in row and "response" in row


def beavertails(row: Row) -> Iterator[Judged]:
    """One answer, safe or not."""
    turns, used = asked(row)
    rating = GOOD if label_of(row["is_safe"], "is_safe") else BAD
    yield judged(turns, (reply_of(row["response"], "response"),), ratings=((0, "harmless", rating),), columns=rest(row, "response", "is_safe", *used))
