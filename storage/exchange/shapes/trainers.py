"""Rows as trainers read them: comparisons, labels, demonstrations, steps, by their keys: TRL, OpenRLHF, Axolotl, OpenAI and LLaMA-Factory are one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from storage.exchange.items import Judged, Row
from storage.exchange.shapes.pieces import (
    CONTEXT,
    BadRow,
    Reply,
    Turn,
    compared,
    empty,
    is_label,
    judged,
    label_of,
    messages_of,
    number_of,
    ranked,
    reply_of,
    reply_of_turns,
    rest,
    said,
    score_of,
    text_of,
    with_context,
)

GOOD, BAD = 6, 2
"""The ratings that a label becomes: with these, an export gives the label back."""
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "context")
QUESTIONS = ("prompt", "instruction", "question", "query", "input", "user", "history", "post", "user_input")
"""Columns that hold what was asked, the likeliest first."""
ANSWERS = ("completion", "response", "output", "answer", "assistant", "generation", "reply", "text", "model_output", "response_text")
"""Columns that hold one answer."""
LABELS = ("label", "kto_tag", "thumbs", "thumb", "thumbs_up", "feedback", "vote", "liked", "is_good")
SIDES = (
    ("chosen", "rejected"), ("preferred_output", "non_preferred_output"), ("preferred", "dispreferred"), ("accepted", "rejected"),
    ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"), ("preferred_response", "rejected_response"),
    ("better", "worse"), ("good_response", "bad_response"), ("winner_response", "loser_response"), ("pos", "neg"), ("win", "lose"),
)  # fmt: skip
SCORES = (
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"), ("chosen-rating", "rejected-rating"), ("chosen_reward", "rejected_reward"),
    ("reward_chosen", "reward_rejected"),
)  # fmt: skip


# --- what was asked --------------------------------------------------------------------------------------------------------


def question_of(row: Row) -> str | None:
    """The column that holds what was asked."""
    if not empty(row.get("prompt")):
        return "prompt"
    if isinstance(row.get("input"), dict) and "messages" in row["input"]:
        return "input"
    lists = (name for name in CONVERSATIONS if isinstance(row.get(name), list) and row[name])
    texts = (name for name in (*QUESTIONS, *CONVERSATIONS) if isinstance(row.get(name), str | list) and row[name])
    return next(lists, None) or next(texts, None)


def asked(row: Row, column: str | None = None) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """The conversation before the answers, and the columns that it is in."""
    name = column or question_of(row)
    if name is None:
        raise BadRow("it does not say what was asked")
    used = (name, *(each for each in CONTEXT if each != name))
    value = row[name]
    if name == "input" and isinstance(value, dict) and "messages" in value:
        return messages_of(value["messages"], "input.messages"), ("input",)
    more = _MORE.get(name, ())
    for each in more:
        if isinstance(row.get(each), str) and row[each]:
            value, used = f"{said(value, name)}\n{text_of(row[each], each)}", (*used, each)
    context = {key: each for key, each in row.items() if key != name} if name in CONTEXT else row
    return with_context(context, messages_of(value, "prompt" if name == "prompt" else "messages" if name in CONVERSATIONS else name)), used


_MORE = {"instruction": ("input", "context"), "question": ("context",)}
"""What an instruction is about, in a column of its own."""


# --- comparisons -----------------------------------------------------------------------------------------------------------


def is_preference(row: Row) -> bool:
    return sides_of(row) is not None


def sides_of(row: Row) -> tuple[str, str] | None:
    if "chosen" in row or "rejected" in row:
        first = row.get("chosen")
        return None if isinstance(first, int | float) and not isinstance(first, bool) and "rejected" not in row else ("chosen", "rejected")
    return next((pair for pair in SIDES if pair[0] in row and pair[1] in row), None)


def preference(row: Row) -> Iterator[Judged]:
    """One answer that beat another; the prompt beside them, or in front of both."""
    sides = sides_of(row)
    assert sides is not None
    chosen, rejected = (row.get(side) for side in sides)
    scores = next((pair for pair in SCORES if not empty(row.get(pair[0])) and not empty(row.get(pair[1]))), None)
    beside: dict[str, Any] = {
        "margin": None if empty(row.get("margin")) else number_of(row["margin"], "margin"),
        "scores": tuple(number_of(row[name], name) for name in scores) if scores else (),
    }
    used = [*sides, "margin", *(scores or ())]
    if isinstance(chosen, list) and isinstance(rejected, list) and _begins(chosen) and _begins(rejected):
        yield _whole_conversations(row, chosen, rejected, used, beside)
        return
    if question_of({key: value for key, value in row.items() if key not in sides}) is None:
        if not (isinstance(chosen, str) and isinstance(rejected, str)):
            raise BadRow("prompt holds no messages")
        yield _implicit(row, text_of(chosen, sides[0]), text_of(rejected, sides[1]), used, beside)
        return
    turns, columns = asked({key: value for key, value in row.items() if key not in sides})
    if _are_texts(chosen) and _are_texts(rejected):
        yield _several(turns, chosen, rejected, rest(row, *used, *columns), beside)
        return
    if isinstance(chosen, str) and isinstance(rejected, str) and isinstance(row.get("prompt"), str):
        chosen, rejected = _without(row["prompt"], chosen, rejected)
    yield compared(turns, reply_of(chosen, sides[0]), reply_of(rejected, sides[1]), columns=rest(row, *used, *columns), **beside)


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _several(turns: tuple[Turn, ...], chosen: list[str], rejected: list[str], columns: Row, beside: dict[str, Any]) -> Judged:
    """Each of the chosen texts beat each of the rejected ones."""
    if len(chosen) == len(rejected) == 1:
        return compared(turns, reply_of(chosen[0], "chosen"), reply_of(rejected[0], "rejected"), columns=columns, **beside)
    if set(chosen) & set(rejected):
        raise BadRow("chosen and rejected are the same")
    answers = [reply_of(one, "an answer") for one in (*chosen, *rejected)]
    return ranked(turns, answers, [1] * len(chosen) + [2] * len(rejected), columns=columns, **beside)


def _begins(messages: list[Any]) -> bool:
    """Whether it is a conversation from its start, and no answer."""
    first = messages[0] if messages else None
    name = first.get("role", first.get("from")) if isinstance(first, dict) else None
    return name is not None and str(name).lower() not in ("assistant", "gpt", "model", "bot", "chatbot", "ai", "function_call", "tool_call")


def _whole_conversations(row: Row, chosen: list[Any], rejected: list[Any], used: list[str], beside: dict[str, Any]) -> Judged:
    """Two conversations, the prompt in front of both: they part where the answers begin."""
    ours = messages_of(chosen, "chosen")
    common = 0
    while common < min(len(chosen), len(rejected)) - 1 and chosen[common] == rejected[common]:
        common += 1
    while common and ours[common - 1].role == "assistant":  # it answers what the user said last
        common -= 1
    turns = ours[:common]
    if not turns or turns[-1].role != "user":
        raise BadRow("chosen and rejected are answers to different conversations")
    told = row.get("prompt")
    shown = isinstance(told, str) and any(told.strip() == turn.content.strip() for turn in turns)
    known = isinstance(told, list) and told == chosen[: len(told)]
    same = [name for name in ("messages", "conversations") if row.get(name) == chosen]
    columns = rest(row, *used, *CONTEXT, *(("prompt",) if shown or known else ()), *same)
    better, worse = reply_of_turns(ours[common:], "chosen"), reply_of(rejected[common:], "rejected")
    return compared(with_context(row, turns), better, worse, columns=columns, **beside)


def _implicit(row: Row, chosen: str, rejected: str, used: list[str], beside: dict[str, Any]) -> Judged:
    """Two whole texts: what they have in common in front, up to the last whole word, is the prompt."""
    common = chosen[: next((i for i, (one, other) in enumerate(zip(chosen, rejected)) if one != other), min(len(chosen), len(rejected)))]
    if common in (chosen, rejected) or not common[-1:].isspace():
        common = common[: max(common.rfind(" "), common.rfind("\n")) + 1]
    if not common.strip():
        raise BadRow("chosen and rejected have no beginning in common, and there is no prompt")
    better, worse = (Reply(said(text[len(common) :].strip(), side)) for text, side in ((chosen, "chosen"), (rejected, "rejected")))
    return compared(messages_of(common.strip(), "prompt"), better, worse, columns=rest(row, *used), **beside)


LONG_PROMPT = 16
"""Characters; a shorter one may begin both answers by chance."""


def _without(prompt: str, chosen: str, rejected: str) -> tuple[str, str]:
    """The answers without the prompt, where both repeat it."""
    if len(prompt) < LONG_PROMPT or not (chosen.startswith(prompt) and rejected.startswith(prompt)):
        return chosen, rejected
    return chosen[len(prompt) :].lstrip(), rejected[len(prompt) :].lstrip()


# --- labels, demonstrations, steps -----------------------------------------------------------------------------------------


def label_column(row: Row) -> str | None:
    return next((name for name in LABELS if name in row and not empty(row[name])), None)


def answer_column(row: Row, but: Sequence[str] = ()) -> str | None:
    return next((name for name in ANSWERS if name not in but and not empty(row.get(name))), None)


def is_labelled(row: Row) -> bool:
    """With an unmistakable column, or with an answer beside what was asked."""
    if "kto_tag" in row or ("completion" in row and "label" in row):
        return True
    name, question = label_column(row), question_of(row)
    return name is not None and question is not None and is_label(row[name]) and answer_column(row, (question,)) is not None


def labelled(row: Row) -> Iterator[Judged]:
    """An answer that was found good, or bad."""
    name = "kto_tag" if "kto_tag" in row else label_column(row) or "label"
    good = label_of(row.get(name), name)
    turns, reply, used = _asked_and_answered(row, name)
    yield judged(turns, (reply,), ratings=((0, "overall", GOOD if good else BAD),), columns=rest(row, name, *used))


def _asked_and_answered(row: Row, *but: str) -> tuple[tuple[Turn, ...], Reply, tuple[str, ...]]:
    """The conversation, the answer, and their columns: beside each other, or one conversation that ends with the answer."""
    question = question_of(row)
    if question in CONVERSATIONS and _ends_answered(row[question]):
        return _last_answer(row, question)
    name = answer_column(row, (question or "", *_MORE.get(question or "", ()), *but))
    if name is None and (whole := _whole_conversation(row)) is not None:
        turns, reply, used = _last_answer(row, whole)
        shown = isinstance(row.get("prompt"), str) and any(row["prompt"].strip() == turn.content.strip() for turn in turns)
        return turns, reply, (*used, "prompt") if shown else used
    turns, used = asked(row)
    if name is None:
        raise BadRow("the last message is not the assistant's" if question in CONVERSATIONS else "it has no answer")
    return turns, reply_of(row[name], name), (name, *used)


def _whole_conversation(row: Row) -> str | None:
    return next((name for name in CONVERSATIONS if _ends_answered(row.get(name))), None)


def _ends_answered(messages: object) -> bool:
    return isinstance(messages, list) and bool(messages) and isinstance(messages[-1], dict) and not _begins(messages[-1:])


def _last_answer(row: Row, question: str) -> tuple[tuple[Turn, ...], Reply, tuple[str, ...]]:
    """A conversation whose last message is the answer."""
    value = row[question]
    if isinstance(value, list) and value and all(isinstance(one, dict) and {"input", "output"} <= one.keys() for one in value):  # Capybara's
        value = [{"role": role, "content": one[key]} for one in value for role, key in (("user", "input"), ("assistant", "output"))]
    turns = with_context({key: each for key, each in row.items() if key != question}, messages_of(value, "messages"))
    if turns[-1].role != "assistant":
        raise BadRow("the last message is not the assistant's")
    if (turns[-1].raw or {}).get("weight", 1) == 0:
        raise BadRow("its answer has the weight 0: it is not to be learned")
    return turns[:-1], reply_of_turns(turns[-1:], "the answer"), (question, *(name for name in CONTEXT if name != question))


def is_demonstration(row: Row) -> bool:
    question = question_of(row)
    if question is None:
        return False
    return question in CONVERSATIONS or _whole_conversation(row) is not None or answer_column(row, (question, *_MORE.get(question, ()))) is not None


def demonstration(row: Row) -> Iterator[Judged]:
    """An answer as somebody wants it."""
    if not empty(row.get("critique")):
        raise BadRow("it has a critique of the answer, which is none to imitate")
    turns, reply, used = _asked_and_answered(row)
    yield judged(turns, written=reply, columns=rest(row, *used))


def are_steps(row: Row) -> bool:
    return "completions" in row and "labels" in row


def steps(row: Row) -> Iterator[Judged]:
    """An answer in sentences, each fine or not."""
    sentences, labels = row["completions"], row.get("labels")
    if not isinstance(sentences, list) or not isinstance(labels, list) or len(sentences) != len(labels) or not sentences:
        raise BadRow("completions and labels are not two lists of the same length")
    turns, used = asked(row)
    texts = tuple(said(one, "a completion") for one in sentences)
    told = tuple(zip(texts, (label_of(one, "a label") for one in labels), strict=True))
    yield judged(turns, (Reply("".join(texts)),), steps=told, columns=rest(row, "completions", "labels", *used))


SCOPES = ("prompt", "all")


def are_critiques(row: Row) -> bool:
    """With an unmistakable column beside the words."""
    return isinstance(row.get("critique"), str) and row.get("scope") in SCOPES


def has_critique(row: Row) -> bool:
    """Of what would be a demonstration otherwise: somebody found fault with the answer, so it is none to imitate. A column that is null in this row
    says nothing."""
    return row.get("critique") is not None and question_of(row) is not None


def critique(row: Row) -> Iterator[Judged]:
    """What should be otherwise, in words; of one answer, or of all where there is none."""
    told = {name: value for name, value in row.items() if name not in ("critique", "scope", "strength")}
    text = said("" if row.get("critique") is None else row["critique"], "the critique")
    scope = "prompt" if empty(row.get("scope")) else row["scope"]
    if scope not in SCOPES:
        raise BadRow(f"the scope is neither {SCOPES[0]} nor {SCOPES[1]}")
    strength = 1.0 if empty(row.get("strength")) else score_of(row["strength"])
    if strength is None or not strength.is_integer() or not -3 <= strength <= 3:
        raise BadRow("the strength is no whole number from -3 to 3")
    if "response" not in row and is_demonstration(told):
        turns, reply, used = _asked_and_answered(told)
        answers: tuple[Reply, ...] = (reply,)
    else:
        (turns, used), answers = asked(told), () if empty(row.get("response")) else (reply_of(row["response"], "response"),)
    said_of = ((0 if answers else None, text, scope, int(strength)),)
    yield judged(turns, answers, critiques=said_of, columns=rest(told, "response", *used))


# --- single scores ---------------------------------------------------------------------------------------------------------

NUMBERS = ("score", "rating", "reward", "stars", "overall_score", "overall", "quality", "grade")


def number_column(row: Row) -> str | None:
    return next((name for name in NUMBERS if score_of(row.get(name)) is not None), None)


def is_rated(row: Row) -> bool:
    question = question_of(row)
    return question is not None and number_column(row) is not None and answer_column(row, (question,)) is not None


def rated(row: Row) -> Iterator[Judged]:
    """An answer with a number, on the scale that the file's numbers make."""
    name = number_column(row)
    assert name is not None
    turns, reply, used = _asked_and_answered(row, name)
    score = number_of(row[name], name)
    yield judged(turns, (reply,), scored=((0, "overall", score),), scores=(score,), columns=rest(row, name, *used))
