"""Two answers and a verdict, as collections of human feedback have them: each names its columns and how its verdict is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from storage.exchange.items import Judged, Row
from storage.exchange.shapes.pieces import (
    BadRow,
    Reply,
    Turn,
    empty,
    judged,
    label_of,
    messages_of,
    number_of,
    reply_of,
    reply_of_turns,
    rest,
    score_of,
)
from storage.exchange.shapes.trainers import BAD, GOOD, asked


class Winner(NamedTuple):
    """Which answer won: ranks of the two as they stand in the row, and what else was said."""

    ranks: tuple[int, int]
    strength: int | None = None
    bad: bool = False  # both are


FIRST, SECOND, TIE, BOTH_BAD = Winner((1, 2)), Winner((2, 1)), Winner((1, 1)), Winner((1, 1), bad=True)


def vote(turns: tuple[Turn, ...], answers: tuple[Reply, Reply], verdict: Winner, **beside: Any) -> Judged:
    """The answers stay in the places in which they were shown."""
    first, second = answers
    if verdict.ranks != (1, 1) and (first.text, first.raw) == (second.text, second.raw):
        raise BadRow("the two answers are the same, and one is said to be better")
    ratings = beside.pop("ratings", tuple((slot, "overall", BAD) for slot in (0, 1)) if verdict.bad else ())
    return judged(turns, answers, ranks=verdict.ranks, strength=verdict.strength, ratings=ratings, **beside)


# --- pairs of columns ------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Which columns hold two answers, and which the verdict."""

    name: str
    what: str
    answers: tuple[str, str]
    verdict: str
    read: Callable[[object], Winner]
    scores: tuple[str, str] | tuple[()] = ()
    used: tuple[str, ...] = ()
    more: Callable[[Row], dict[str, Any]] = lambda row: {}


def signed(value: object) -> Winner:
    """Below 0 the first is better, above it the second; 1 to 3 how much."""
    number = number_of(value, "the preference")
    return TIE if number == 0 else (FIRST if number < 0 else SECOND)._replace(strength=min(3, max(1, round(abs(number)))))


def numbered_from_0(value: object) -> Winner:
    """The number of the better one, 0 or 1; a negative one is a tie."""
    return _numbered(number_of(value, "the verdict"), 0)


def numbered_from_1(value: object) -> Winner:
    """1, 2, or between them how sure; 1.5 and 0 are ties."""
    return _numbered(number_of(value, "the verdict"), 1)


def _numbered(number: float, first: int) -> Winner:
    if number == first + 0.5 or number < first:
        return TIE
    if not first <= number <= first + 1:
        raise BadRow(f"a verdict of {number:g} names neither answer")
    return FIRST if number < first + 0.5 else SECOND


def first_if_true(value: object) -> Winner:
    return FIRST if label_of(value, "the verdict") else SECOND


_WORDS = {
    "a": FIRST, "b": SECOND, "model_a": FIRST, "model_b": SECOND, "response_a": FIRST, "response_b": SECOND, "left": FIRST, "right": SECOND,
    "1": FIRST, "2": SECOND, "model_1": FIRST, "model_2": SECOND, "response_1": FIRST, "response_2": SECOND, "first": FIRST, "second": SECOND,
    "assistant_a": FIRST, "assistant_b": SECOND, "answer_a": FIRST, "answer_b": SECOND, "response1": FIRST, "response2": SECOND,
    "tie": TIE, "equal": TIE, "same": TIE, "both": TIE, "draw": TIE, "both_good": TIE, "c": TIE,
    "tie_(bothbad)": BOTH_BAD, "bothbad": BOTH_BAD, "both_bad": BOTH_BAD, "neither": BOTH_BAD, "none": BOTH_BAD,
}  # fmt: skip


def in_words(value: object) -> Winner:
    if empty(value):  # nobody decided, which is not that neither was good
        raise BadRow("it has no verdict")
    found = _WORDS.get(str(value).strip().lower().replace(" ", "_"))
    if found is None:
        raise BadRow(f"a verdict of {str(value)[:40]!r} names neither answer nor a tie")
    return found


def in_letters(value: object) -> Winner:
    """The same where a number would not say which: 1 may be the first answer, or the second, counted from 0."""
    if score_of(value) is not None:
        raise BadRow(f"a verdict of {str(value)[:40]} may mean either answer: write a or b")
    return in_words(value)


def _safety(row: Row) -> dict[str, Any]:
    """PKU's second verdict: whether each answer is safe, and which is safer."""
    safe = [row.get(f"is_response_{i}_safe") for i in (0, 1)]
    if any(value is None for value in safe):
        return {}
    safer = number_of(row.get("safer_response_id", -1), "safer_response_id")
    ratings = [GOOD if label_of(value, "is_response_safe") else BAD for value in safe]
    return {"ratings": tuple((slot, "harmless", rating + (slot == safer)) for slot, rating in enumerate(ratings))}


def _both(*names: str) -> tuple[str, ...]:
    return names


KNOWN = (
    Pair("helpsteer3", "HelpSteer 3: a preference from -3 to 3", ("response1", "response2"), "overall_preference", signed),
    Pair("helpsteer2-preference", "HelpSteer 2: a preference from -3 to 3", ("response_1", "response_2"), "preference_strength", signed),
    Pair("pku-saferlhf", "PKU-SafeRLHF: the better answer, and the safer one", ("response_0", "response_1"), "better_response_id", numbered_from_0,
         used=_both("is_response_0_safe", "is_response_1_safe"), more=_safety),
    Pair("shp", "SHP: two comments, and which had more votes", ("human_ref_A", "human_ref_B"), "labels", first_if_true, ("score_A", "score_B")),
    Pair("alpaca-eval", "AlpacaEval: two outputs and a preference", ("output_1", "output_2"), "preference", numbered_from_1),
)  # fmt: skip
"""Collections."""
PAIRS = (
    *KNOWN,
    *(
        Pair("two-answers", "two answers and which is better", (first.format(*names), second.format(*names)), verdict,
             in_words if "1" in first and verdict != "label" else in_letters)
        for names in (("response",), ("answer",), ("completion",), ("output",))
        for first, second in (("{}_a", "{}_b"), ("{}_1", "{}_2"), ("{}1", "{}2"), ("{}A", "{}B"))
        for verdict in ("winner", "preference", "preferred", "chosen", "choice", "verdict", "label", "vote", "better")
    ),
    *(
        Pair("two-answers", "two answers and which is better", (f"{name}_0", f"{name}_1"), verdict, numbered_from_0)
        for name in ("response", "answer", "completion", "output")
        for verdict in ("better_response_id", "winner", "preference", "preferred", "chosen", "choice", "label", "better")
    ),
)  # fmt: skip


def pair_of(row: Row) -> Pair | None:
    return _pair_of(tuple(row))


@lru_cache(maxsize=256)
def _pair_of(columns: tuple[str, ...]) -> Pair | None:
    names = set(columns)
    return next((pair for pair in PAIRS if {pair.verdict, *pair.answers} <= names), None)


def two_answers(row: Row) -> Iterator[Judged]:
    pair = pair_of(row)
    assert pair is not None
    verdict = pair.read(row[pair.verdict])
    if pair.read is numbered_from_0 and verdict is TIE and pair.name == "pku-saferlhf":
        raise BadRow("it has no verdict")
    turns, columns = asked({key: value for key, value in row.items() if key not in pair.answers})
    answers = tuple(reply_of(row[name], name) for name in pair.answers)
    scores = tuple(number_of(row[name], name) for name in pair.scores) if all(not empty(row.get(name)) for name in pair.scores) else ()
    columns = (pair.verdict, *pair.answers, *pair.scores, *pair.used, *columns)
    yield vote(turns, (answers[0], answers[1]), verdict, scores=scores, columns=rest(row, *columns), **pair.more(row))


# --- WebGPT, summaries -----------------------------------------------------------------------------------------------------


def is_webgpt(row: Row) -> bool:
    return isinstance(row.get("question"), dict) and "answer_0" in row and "answer_1" in row and "score_0" in row


def webgpt(row: Row) -> Iterator[Judged]:
    """Two answers with scores from -1 to 1 that add up to 0."""
    scores = (number_of(row["score_0"], "score_0"), number_of(row["score_1"], "score_1"))
    verdict = TIE if scores[0] == scores[1] else FIRST if scores[0] > scores[1] else SECOND
    question = row["question"]
    answers = (reply_of(row["answer_0"], "answer_0"), reply_of(row["answer_1"], "answer_1"))
    columns = rest(row, "question", "answer_0", "answer_1", "score_0", "score_1")
    if more := rest(question, "full_text"):
        columns["question"] = more
    yield vote(messages_of(question.get("full_text"), "question.full_text"), answers, verdict, scores=scores, columns=columns)


def is_summary_pair(row: Row) -> bool:
    return isinstance(row.get("summaries"), list) and "choice" in row and isinstance(row.get("info"), dict)


def summary_pair(row: Row) -> Iterator[Judged]:
    """OpenAI's comparisons of two summaries of a post or an article."""
    summaries, info = row["summaries"], row["info"]
    if len(summaries) != 2 or not all(isinstance(one, dict) for one in summaries):
        raise BadRow("summaries are not two")
    text = info.get("post") or info.get("article")
    answers = tuple(reply_of(one.get("text"), "a summary") for one in summaries)
    columns = rest(row, "summaries", "choice", "info") | {
        "info": rest(info, "post", "article"),
        "summaries": [rest(one, "text") for one in summaries],
    }
    yield vote(messages_of(text, "info.post"), (answers[0], answers[1]), numbered_from_0(row["choice"]), columns=rest(columns))


# --- arenas ----------------------------------------------------------------------------------------------------------------


def is_arena(row: Row) -> bool:
    return "conversation_a" in row and "conversation_b" in row and ("winner" in row or "winner_model_a" in row)


def arena(row: Row) -> Iterator[Judged]:
    """Two conversations of one user with two models, and a winner, a tie, or neither."""
    ours, theirs = messages_of(row["conversation_a"], "conversation_a"), messages_of(row["conversation_b"], "conversation_b")
    common = 0
    while common < min(len(ours), len(theirs)) and ours[common].role != "assistant" and ours[common] == theirs[common]:
        common += 1
    if not common or common == len(ours) or common == len(theirs):
        raise BadRow("the conversations begin with different questions, or have no answer")
    answers = (_from(ours[common:], "conversation_a"), _from(theirs[common:], "conversation_b"))
    verdict, used = (_ones_and_zeros(row), ONES) if empty(row.get("winner")) and ONES[0] in row else (in_words(row.get("winner")), ("winner",))
    columns = rest(row, "conversation_a", "conversation_b", "full_conversation", *used)
    yield vote(ours[:common], answers, verdict, columns=columns)


ONES = ("winner_model_a", "winner_model_b", "winner_tie")


def _ones_and_zeros(row: Row) -> Winner:
    """Of three columns, the last of which may be missing."""
    first, second, tie = (number_of(row.get(name, 0), name) for name in ONES)
    if first == second and not tie and (ONES[2] in row or ONES[1] not in row):
        raise BadRow("it has no verdict")
    return FIRST if first > second else SECOND if second > first else TIE


def _from(turns: tuple[Turn, ...], what: str) -> Reply:
    """All that one model said; what the user asked last and was not answered is left out."""
    while turns and turns[-1].role != "assistant":
        turns = turns[:-1]
    if not turns:
        raise BadRow(f"{what} has no answer")
    return reply_of_turns(turns, what)


def is_arena_table(row: Row) -> bool:
    return "winner_model_a" in row and "winner_model_b" in row and "response_a" in row


def arena_table(row: Row) -> Iterator[Judged]:
    """The same as columns: turns as lists, the winner as ones and zeros."""
    verdict = _ones_and_zeros(row)
    asked_, *said_ = (_texts(row.get(name)) for name in ("prompt", "response_a", "response_b"))
    columns = rest(row, "prompt", "response_a", "response_b", *ONES)
    if not asked_ or any(len(texts) != len(asked_) for texts in said_):
        raise BadRow("as many answers as questions are not there")
    answers = tuple(_from(_woven(asked_[1:], texts), "a response") for texts in said_)
    yield vote(messages_of(asked_[0], "prompt"), (answers[0], answers[1]), verdict, columns=columns)


def _texts(value: object) -> list[Any]:
    """A list of turns, also as JSON in a text; of another text, the one turn."""
    if isinstance(value, str) and value[:1] == "[":
        try:
            found = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return [value]
        return found if isinstance(found, list) and found and all(isinstance(one, str | None) for one in found) else [value]
    return value if isinstance(value, list) else [value]


def _woven(questions: list[Any], answers: list[Any]) -> tuple[Turn, ...]:
    turns = [*messages_of([{"role": "assistant", "content": answers[0] or ""}], "a response")]
    for question, answer in zip(questions, answers[1:], strict=True):
        turns += messages_of([{"role": "user", "content": question or ""}, {"role": "assistant", "content": answer or ""}], "a response")
    return tuple(turns)
