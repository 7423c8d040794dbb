"""What rows are made of: texts, messages, answers, numbers, labels. Everything raises BadRow, in a few words, for what is not one.

Learners use the role and the text of a message. What else a message has (tool calls, content parts, names, reasoning) stays beside it as it was, in
the form of OpenAI's messages, and goes out again in the formats that have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from storage import kept, thoughts
from storage.exchange.items import Judged, Kept, Messages, Row
from storage.records import Message, Role

LONGEST_TEXT = 1_000_000
"""Characters of one message."""
MOST_ANSWERS = 9
TOOLS, PICTURES, CONVERSATION = "tool calls", "images or other parts that are not text", "answers of several turns"
REASONING, NAMES, FIELDS = "reasoning", "names", "other fields of messages"
NO_JSON = "bytes or values that JSON does not have"
"""Beside the texts."""
_ROLES: dict[str, tuple[Role, str]] = {  # ours, OpenAI's
    "system": ("system", "system"),
    "developer": ("system", "developer"),
    **dict.fromkeys(("user", "human", "prompter"), ("user", "user")),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatbot", "ai"), ("assistant", "assistant")),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "ipython"), ("user", "tool")),
    **dict.fromkeys(("function_call", "tool_call"), ("assistant", "function_call")),
}
_CALLS = ("tool_calls", "function_call", "tool_call_id")


class BadRow(ValueError):
    """Why a row is not what its shape says."""


class Turn(NamedTuple):
    """A message as learners see it, and what it was where that is more."""

    role: Role
    content: str
    raw: Row | None = None
    why: str = ""  # learners cannot use it
    besides: str = ""  # they use the text and leave something


class Reply(NamedTuple):
    """An answer as learners see it, and the messages that it was where that is more."""

    text: str
    raw: list[Row] | None = None
    why: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()


# --- texts -----------------------------------------------------------------------------------------------------------------


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


# --- messages --------------------------------------------------------------------------------------------------------------


def messages_of(value: object, what: str) -> tuple[Turn, ...]:
    """Of a list of messages in any of the usual forms, of a transcript, or of a single text, which is the user's."""
    if isinstance(value, str):
        return transcript(value) or (Turn("user", said(value, what)),)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise BadRow(f"{what} holds no messages")
    return tuple(_turn(one, what) for one in value)


def _turn(value: object, what: str) -> Turn:
    if not isinstance(value, dict):
        raise BadRow(f"{what} holds something that is no message")
    name, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if name is None:
        raise BadRow(f"{what} has a message without a role")
    if type(name) is not str or (known := _ROLES.get(name) or _ROLES.get(name.lower())) is None:
        raise BadRow(f"{what} has an unknown role {str(name)[:40]!r}")
    role, told = known
    if type(content) is str and told == role and len(value) == 2:
        return Turn(role, text_of(content, what))
    return _full_turn(value, role, told, content, what)


def _full_turn(value: Row, role: Role, told: str, content: object, what: str) -> Turn:
    """A message that has more than a role and a text."""
    more = {key: each for key, each in value.items() if key not in ("role", "from", "content", "value") and not empty(each)}
    if told == "function_call":  # ShareGPT's: the call is the text
        told, content, more = "assistant", None, more | {"tool_calls": _calls(content, what)}
    if content is None and not ("content" in value or "value" in value or more):
        raise BadRow(f"{what} is no text")
    text, pictures = _text_of_parts(content, what)
    calls = told == "tool" or any(key in more for key in _CALLS)
    if calls:
        text = "\n".join(filter(None, (text, *map(_call_in_words, more.get("tool_calls") or ()))))
    why = TOOLS if calls else PICTURES if pictures else ""
    besides = REASONING if any(key in more for key in thoughts.FIELDS) else NAMES if "name" in more else FIELDS if more else ""
    if told == role and not more and isinstance(content, str):
        return Turn(role, text)
    return Turn(role, text_of(text, what), {"role": told, "content": content, **more}, why, besides if not calls else "")


def _calls(content: object, what: str) -> list[Row]:
    try:
        call = msgspec.json.decode(text_of(content, what))
    except (msgspec.DecodeError, RecursionError):
        call = None
    calls = call if isinstance(call, list) else [call]
    if not all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in calls):
        return [{"type": "function", "function": {"name": "", "arguments": content}}]
    return [{"type": "function", "function": one} for one in calls]


def _call_in_words(call: object) -> str:
    called = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(called, dict):
        return f"[{str(called)[:200]}]"
    arguments = called.get("arguments", "")
    return f"[{called.get('name') or 'call'}({arguments if isinstance(arguments, str) else kept.told(arguments).json})]"


def _text_of_parts(content: object, what: str) -> tuple[str, bool]:
    """The text of a content, and whether it has parts that are not text."""
    if content is None:
        return "", False
    if isinstance(content, dict):
        content = content.get("parts", [content])
    if not isinstance(content, list):
        return text_of(content, what), False
    texts, pictures = [], False
    for part in content:
        text = part.get("text", part.get("content")) if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text_of(text, what))
        else:
            pictures = True
            texts.append(f"[{str(part.get('type', 'part'))[:40] if isinstance(part, dict) else 'part'}]")
    return "\n".join(texts), pictures


_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def transcript(text: str) -> tuple[Turn, ...]:
    """The turns of 'Human: … Assistant: …', without an empty last one; nothing for any other text."""
    if not text.lstrip().startswith("Human:"):
        return ()
    _, *parts = _SPEAKER.split("\n\n" + text.lstrip())
    turns = [Turn("user" if who == "Human" else "assistant", said_.strip()) for who, said_ in zip(parts[::2], parts[1::2], strict=True)]
    if turns and turns[-1].role == "assistant" and not turns[-1].content:
        turns.pop()
    return tuple(turns) if all(turn.content for turn in turns) and len(parts) > 2 else ()


def with_context(row: Row, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """A conversation after the row's system message and history, where it has them in columns of their own."""
    before: list[Turn] = []
    history = row.get("history")
    if isinstance(history, list) and history:
        for one in history:
            if isinstance(one, list | tuple) and len(one) == 2:
                before += [Turn("user", text_of(one[0], "history")), Turn("assistant", text_of(one[1], "history"))]
            else:
                before.append(_turn(one, "history"))
    system = row.get("system") or row.get("system_prompt")
    if isinstance(system, str) and system.strip() and not any(turn.role == "system" for turn in (*before, *turns)):
        before.insert(0, Turn("system", text_of(system, "system")))
    return (*before, *turns)


CONTEXT = ("system", "system_prompt", "history")
"""Columns that `with_context` uses."""


# --- answers ---------------------------------------------------------------------------------------------------------------


def reply_of(value: object, what: str) -> Reply:
    """The answer in a text, a message, or the messages of an exchange that the assistant begins and ends."""
    if isinstance(value, str):
        return Reply(said(value, what))
    turns = messages_of(value, what)
    return reply_of_turns(turns, what)


def reply_of_turns(turns: Sequence[Turn], what: str) -> Reply:
    first, last = turns[0], turns[-1]
    if first.role != "assistant" or last.role != "assistant" or (len(turns) > 1 and not any(turn.role == "user" for turn in turns)):
        raise BadRow(f"{what} is not one message of the assistant")
    if len(turns) == 1:
        return Reply(
            said(last.content, what), [last.raw] if last.raw else None, (last.why,) if last.why else (), (last.besides,) if last.besides else ()
        )
    text = "\n\n".join(f"{turn.role}: {turn.content}" if place else turn.content for place, turn in enumerate(turns))
    why = {turn.why for turn in turns if turn.why} or {CONVERSATION}
    return Reply(
        said(text, what), [raw_of(turn) for turn in turns], tuple(sorted(why)), tuple(sorted({turn.besides for turn in turns if turn.besides}))
    )


def raw_of(turn: Turn) -> Row:
    return turn.raw or {"role": turn.role, "content": turn.content}


# --- numbers and labels ----------------------------------------------------------------------------------------------------


def number_of(value: object, what: str) -> float:
    """A finite number, also as text."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        raise BadRow(f"{what} is no number") from None
    if not math.isfinite(number):
        raise BadRow(f"{what} is no number")
    return number


def score_of(value: object) -> float | None:
    """The same; None for what is none."""
    try:
        return number_of(value, "")
    except BadRow:
        return None


_GOOD = frozenset("true yes good up 1 positive like liked thumbsup accept accepted desirable correct safe 👍 +1".split())
_BAD = frozenset("false no bad down 0 -1 negative dislike disliked thumbsdown reject rejected undesirable incorrect unsafe 👎".split())


def label_of(value: object, what: str) -> bool:
    """Good or bad, as a boolean, 0 and 1, 1 and -1, or a word for it."""
    word = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()
    word = word.replace("_", "").replace("-", "" if not word[1:].isdecimal() else "-").replace(" ", "")
    if word in _GOOD or word in _BAD:
        return word in _GOOD
    raise BadRow(f"{what} is neither true nor false")


def is_label(value: object) -> bool:
    try:
        label_of(value, "")
    except BadRow:
        return False
    return True


def on_scale(value: float, low: float, high: float) -> int:
    """1 to 7, halves up; outside the scale the nearest end."""
    return max(1, min(7, int(1 + 6 * (value - low) / (high - low) + 0.5)))


def dense(ranks: Sequence[int], what: str = "the ranks") -> tuple[int, ...]:
    """As they are, if they are 1 to n with ties."""
    if sorted(set(ranks)) != list(range(1, len(set(ranks)) + 1)):
        raise BadRow(f"{what} have gaps: {sorted(set(ranks))}")
    return tuple(ranks)


def by_score(scores: Sequence[float]) -> tuple[int, ...]:
    """Ranks, the highest score first; equal scores tie."""
    order = sorted(set(scores), reverse=True)
    return tuple(order.index(score) + 1 for score in scores)


# --- together --------------------------------------------------------------------------------------------------------------


def empty(value: object) -> bool:
    return value is None or value == "" or value == [] or value == {}


def rest(row: Row, *used: str) -> Row:
    """The columns that say something and are not used."""
    return {key: value for key, value in row.items() if key not in used and not empty(value)}


def prompt_of(turns: Sequence[Turn], what: str = "the prompt") -> Messages:
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise BadRow(f"{what} does not end with something that the user says")
    return tuple(Message(turn.role, turn.content) for turn in turns)


def judged(
    turns: Sequence[Turn], answers: Sequence[Reply] = (), *, columns: Row | None = None, written: Reply | None = None,
    margin: float | None = None, scores: Sequence[float | None] = (), **said: Any,
) -> Judged:  # fmt: skip
    """A set with all that is kept beside it. Raises BadRow where the prompt is none, or there are more answers than a set has letters."""
    if len(answers) > MOST_ANSWERS:
        raise BadRow(f"{len(answers)} answers: a set has {MOST_ANSWERS} at most")
    messages, of = prompt_of(turns), (*answers, *(() if written is None else (written,)))
    if not columns and margin is None and not scores and not any(turn.raw for turn in turns) and not any(reply.raw or reply.why for reply in of):
        return Judged(messages, tuple([reply.text for reply in answers]), written=None if written is None else written.text, **said)
    told = tuple(turn.raw for turn in turns)
    raws = tuple(reply.raw for reply in of)
    why = _distinct([turn.why for turn in turns], *(reply.why for reply in of))
    beside = Kept(
        told if any(told) else (),
        raws if any(raws) else (),
        tuple(scores) if any(score is not None for score in scores) else (),
        margin,
        columns or {},
        why,
        _distinct([turn.besides for turn in turns], *(reply.besides for reply in of)),
    )
    text = written.text if written is not None else None
    return Judged(messages, tuple(reply.text for reply in answers), written=text, kept=beside if any(beside) or margin == 0 else None, **said)


def _distinct(*groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for group in groups for one in group if one))


def compared(turns: Sequence[Turn], better: Reply, worse: Reply, *, order: tuple[int, int] = (1, 2), **beside: Any) -> Judged:
    """Two answers; `order` their ranks. Raises BadRow where a better one is not different."""
    if order != (1, 1) and better.text == worse.text and better.raw == worse.raw:
        raise BadRow("chosen and rejected are the same")
    return judged(turns, (better, worse), ranks=order, **beside)


def ranked(turns: Sequence[Turn], answers: Sequence[Reply], ranks: Sequence[int], **beside: Any) -> Judged:
    if not 2 <= len(answers) <= MOST_ANSWERS:
        raise BadRow(f"{len(answers)} answers: 2 to {MOST_ANSWERS} can be ranked")
    return judged(turns, answers, ranks=dense(ranks), **beside)
