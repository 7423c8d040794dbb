"""Rows of other people's files become items. Everything raises BadRow, in a few words, for what cannot be one.

A row says by its keys what it is, so one reader serves TRL, OpenRLHF, Axolotl, OpenAI and LLaMA-Factory; hh, oasst, prodigy and argilla have
their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from storage.exchange.items import Item, Labelled, Messages, PreferencePair, Ranked, Steps, Written
from storage.records import Message

Row = dict[str, Any]
LONGEST_TEXT = 1_000_000
"""Characters of one message."""
MOST_ANSWERS = 9
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user", "observation": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "function_call": "assistant",
}  # fmt: skip


class BadRow(ValueError):
    """Why a row is not what its format says."""


# --- pieces ----------------------------------------------------------------------------------------------------------------


def text_of(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{what} is no text")
    if len(value) > LONGEST_TEXT:
        raise BadRow(f"{what} has more than {LONGEST_TEXT:,} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{what} has characters that are not Unicode") from None
    return value


def said(value: object, what: str) -> str:
    """A text with some words in it."""
    if not (text := text_of(value, what)).strip():
        raise BadRow(f"{what} is empty")
    return text


def messages_of(value: object, what: str) -> Messages:
    """Of a list of messages in any of the usual forms, or of a single text, which is the user's."""
    if isinstance(value, str):
        return (Message("user", said(value, what)),)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{what} holds no messages")
    found = []
    for turn in value:
        if not isinstance(turn, dict):
            raise BadRow(f"{what} holds something that is no message")
        name = turn.get("role", turn.get("from"))
        if name not in _ROLES:
            raise BadRow(f"{what} has an unknown role {str(name)[:40]!r}")
        found.append(Message(_ROLES[name], text_of(turn.get("content", turn.get("value")), what)))  # type: ignore[arg-type]
    return tuple(found)


def prompt_of(messages: Messages, what: str = "the prompt") -> Messages:
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise BadRow(f"{what} does not end with something that the user says")
    return messages


def reply_of(value: object, what: str) -> str:
    """The one answer that is in a text, a message or a list with one message."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, str):
        return said(value, what)
    (*before, last) = messages_of(value, what)
    if before or last.role != "assistant":
        raise BadRow(f"{what} is not one message of the assistant")
    return said(last.content, what)


def number_of(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        raise BadRow(f"{what} is no number")
    return float(value)


def label_of(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise BadRow(f"{what} is neither true nor false")
    return value


def dense(ranks: Sequence[int], what: str = "the ranks") -> tuple[int, ...]:
    """As they are, if they are 1 to n with ties."""
    if sorted(set(ranks)) != list(range(1, len(set(ranks)) + 1)):
        raise BadRow(f"{what} have gaps: {sorted(set(ranks))}")
    return tuple(ranks)


def comparison(messages: Messages, chosen: str, rejected: str, margin: object = None) -> PreferencePair:
    if chosen == rejected:
        raise BadRow("chosen and rejected are the same")
    return PreferencePair(prompt_of(messages), chosen, rejected, 1.0 if margin is None else number_of(margin, "margin"))


def ranked(messages: Messages, answers: Sequence[tuple[str, int]]) -> Ranked:
    if not 2 <= len(answers) <= MOST_ANSWERS:
        raise BadRow(f"{len(answers)} answers: 2 to {MOST_ANSWERS} can be ranked")
    texts, ranks = zip(*answers, strict=True)
    return Ranked(prompt_of(messages), texts, dense(ranks))


# --- trainers' formats -----------------------------------------------------------------------------------------------------


def trainer_row(row: Row) -> Iterator[Item]:
    """TRL, OpenRLHF, Axolotl, OpenAI, LLaMA-Factory: by what is there."""
    if "preferred_output" in row:
        asked = row.get("input")
        messages = messages_of(asked.get("messages") if isinstance(asked, dict) else None, "input.messages")
        chosen, rejected = (reply_of(row.get(side), side) for side in ("preferred_output", "non_preferred_output"))
        yield comparison(messages, chosen, rejected)
    elif "chosen" in row or "rejected" in row:
        yield _preference(row)
    elif "completions" in row:
        yield _steps(row)
    elif "answers" in row:
        answers = row["answers"]
        if not isinstance(answers, list) or not all(isinstance(one, dict) and type(one.get("rank")) is int for one in answers):
            raise BadRow("answers are not a list of answers with ranks")
        yield ranked(messages_of(row.get("prompt"), "prompt"), [(said(one.get("answer"), "an answer"), one["rank"]) for one in answers])
    elif "kto_tag" in row:
        *prompt, last = _conversation(row)
        yield Labelled(prompt_of(tuple(prompt)), _answer(last), label_of(row["kto_tag"], "kto_tag"))
    elif "completion" in row:
        messages, completion = prompt_of(messages_of(row.get("prompt"), "prompt")), reply_of(row["completion"], "completion")
        yield Labelled(messages, completion, label_of(row["label"], "label")) if "label" in row else Written(messages, completion)
    elif "messages" in row or "conversations" in row:
        *prompt, last = _conversation(row)
        yield Written(prompt_of(tuple(prompt)), _answer(last))
    elif "instruction" in row and "output" in row:
        yield Written(_instruction(row), said(row["output"], "output"))
    else:
        raise BadRow(f"neither a comparison, a label nor an answer: it has {', '.join(sorted(map(str, row))[:5]) or 'nothing'}")


def _preference(row: Row) -> PreferencePair:
    margin = row.get("margin")
    if "prompt" in row:
        messages = messages_of(row["prompt"], "prompt")
    elif "messages" in row or "conversations" in row:
        messages = _conversation(row)
    elif "instruction" in row:
        messages = _instruction(row)
    else:
        return _implicit(messages_of(row.get("chosen"), "chosen"), messages_of(row.get("rejected"), "rejected"), margin)
    return comparison(messages, reply_of(row.get("chosen"), "chosen"), reply_of(row.get("rejected"), "rejected"), margin)


def _implicit(chosen: Messages, rejected: Messages, margin: object = None) -> PreferencePair:
    """Two conversations that part at their last message."""
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("chosen and rejected are answers to different conversations")
    return comparison(chosen[:-1], _answer(chosen[-1]), _answer(rejected[-1]), margin)


def _conversation(row: Row) -> Messages:
    messages = messages_of(row.get("messages", row.get("conversations")), "messages")
    system = row.get("system")
    return (Message("system", text_of(system, "system")), *messages) if system else messages


def _instruction(row: Row) -> Messages:
    more = text_of(row.get("input") or "", "input")
    return prompt_of((Message("user", said(row["instruction"], "instruction") + (f"\n{more}" if more else "")),))


def _answer(message: Message) -> str:
    if message.role != "assistant":
        raise BadRow("the last message is not the assistant's")
    return said(message.content, "the answer")


def _steps(row: Row) -> Steps:
    sentences, labels = row["completions"], row.get("labels")
    if not isinstance(sentences, list) or not isinstance(labels, list) or len(sentences) != len(labels) or not sentences:
        raise BadRow("completions and labels are not two lists of the same length")
    texts = tuple(said(one, "a completion") for one in sentences)
    return Steps(prompt_of(messages_of(row.get("prompt"), "prompt")), texts, tuple(label_of(one, "a label") for one in labels))


# --- collections of human feedback -----------------------------------------------------------------------------------------

_TURN = re.compile(r"\n\n(Human|Assistant):")


def hh_row(row: Row) -> Iterator[Item]:
    """Anthropic's transcripts: two that part at the last answer, which may be empty, or be the same twice (then neither is better)."""
    chosen, rejected = (_transcript(text_of(row.get(side), side), side) for side in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or "user" in (chosen[-1].role, rejected[-1].role):
        raise BadRow("chosen and rejected are answers to different conversations")
    answers = (chosen[-1].content, rejected[-1].content)
    yield Ranked(prompt_of(chosen[:-1]), answers, (1, 1 if answers[0] == answers[1] else 2))


def _transcript(text: str, what: str) -> Messages:
    before, *rest = _TURN.split(text)
    if before.strip() or not rest:
        raise BadRow(f"{what} is no transcript of Human and Assistant")
    turns: list[Message] = []
    for who, words in zip(rest[::2], rest[1::2], strict=True):
        role = "user" if who == "Human" else "assistant"
        if turns and turns[-1].role == role:  # two in a row are one
            words = f"{turns.pop().content}\n\n{words.strip()}"
        turns.append(Message(role, words.strip()))  # type: ignore[arg-type]
    return tuple(turns)


def oasst_row(row: Row) -> Iterator[Item]:
    """A message tree: a ranking for every question with at least two ranked answers. Ranks say the order alone."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise BadRow("a tree without a prompt")
    waiting: list[tuple[Row, Messages]] = [(root, ())]
    while waiting:
        node, before = waiting.pop(0)
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            raise BadRow("the replies of a message are no messages")
        if node.get("role") not in _ROLES:
            raise BadRow(f"an unknown role {str(node.get('role'))[:40]!r}")
        messages = (*before, Message(_ROLES[str(node["role"])], text_of(node.get("text"), "a message")))  # type: ignore[arg-type]
        found = [reply for reply in replies if reply.get("rank") is not None and _ROLES.get(str(reply.get("role"))) == "assistant"]
        if messages[-1].role == "user" and len(found) >= 2:
            places = {rank: place for place, rank in enumerate(sorted({number_of(reply["rank"], "rank") for reply in found}), 1)}
            yield ranked(messages, [(said(reply.get("text"), "an answer"), places[float(reply["rank"])]) for reply in found])
        waiting += [(reply, messages) for reply in replies]


def prodigy_row(row: Row) -> Iterator[Item]:
    """Choices (the accepted options beat the others), and answers that were accepted or rejected as a whole; what was ignored is passed over."""
    if row.get("answer", "accept") not in ("accept", "reject", "ignore"):
        raise BadRow(f"an unknown answer {str(row['answer'])[:40]!r}")
    if row.get("answer") == "ignore":
        return
    if isinstance(row.get("options"), list):
        accepted = row.get("accept") or []
        if not isinstance(accepted, list) or not all(isinstance(option, dict) for option in row["options"]):
            raise BadRow("options or accept are no lists")
        if row.get("answer") == "accept" and 0 < len(accepted) < len(row["options"]):
            options = [(said(option.get("text"), "an option"), 1 if option.get("id") in accepted else 2) for option in row["options"]]
            yield ranked(messages_of(row.get("text", row.get("prompt")), "text"), options)
        return
    messages = prompt_of(messages_of(row.get("prompt", row.get("text")), "prompt"))
    yield Labelled(messages, said(row.get("response", row.get("completion")), "response"), row.get("answer", "accept") == "accept")


def argilla_row(row: Row) -> Iterator[Item]:
    """A record with fields and submitted responses: rankings of fields, or ratings of a response."""
    fields, responses = row.get("fields"), row.get("responses")
    if not isinstance(fields, dict) or not isinstance(responses, list | dict):
        raise BadRow("no fields or no responses")
    if isinstance(responses, dict):  # by question, as newer versions write it
        responses = [one | {"question_name": name} for name, of in responses.items() if isinstance(of, list) for one in of if isinstance(one, dict)]
    asked = next((fields[name] for name in ("prompt", "instruction", "chat", "text") if name in fields), None)
    messages = prompt_of(messages_of(asked, "the prompt"))
    for response in responses:
        if not isinstance(response, dict) or response.get("status", "submitted") != "submitted":
            continue
        value = response.get("value")
        if isinstance(value, list) and value and all(isinstance(one, dict) and type(one.get("rank")) is int for one in value):
            yield ranked(messages, [(said(fields.get(one.get("value")), "a ranked field"), one["rank"]) for one in value])
        elif isinstance(value, str) and "response" in fields and value.lower() in ("yes", "no", "good", "bad", "accept", "reject"):
            yield Labelled(messages, said(fields["response"], "response"), value.lower() in ("yes", "good", "accept"))


PARSERS: dict[str, Callable[[Row], Iterator[Item]]] = {
    **dict.fromkeys(("trl-preference", "trl-kto", "trl-sft", "trl-stepwise", "llamafactory", "openrlhf", "axolotl"), trainer_row),
    **dict.fromkeys(("openai-dpo", "openai-sft", "parquet"), trainer_row),
    "hh": hh_row,
    "oasst": oasst_row,
    "prodigy": prodigy_row,
    "argilla": argilla_row,
}
