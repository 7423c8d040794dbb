"""The files of each export format, and how an item becomes a row of them. A row of None cannot be told in a format, and is counted as left out.

What an imported item has beside its texts goes out where a format has a place for it: tool calls, content parts and names in lists of messages,
tools, margins and scores. Its other columns are added by the export, where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from storage.exchange.items import Criticised, DerivedPair, Item, Labelled, Messages, PreferencePair, Ranked, Row, Steps, Written
from storage.thoughts import Parts, split_thought

Source = Literal["comparisons", "derived", "labelled", "written", "ranked", "steps", "criticised", "hindsight"]


class File(NamedTuple):
    """One file: its name in a folder of several, what it holds, and its rows."""

    name: str
    source: Source
    row: Callable[[Any], Row | None]


class Format(NamedTuple):
    """`folder`: PATH becomes a folder, with `extra` files of fixed content."""

    what: str
    files: tuple[File, ...]
    folder: bool = False
    extra: dict[str, Any] = {}


Chatted = PreferencePair | DerivedPair | Labelled | Written | Ranked | Criticised


def chat(item: Chatted) -> list[Row]:
    return [item.beside.turn(place) or turn(message.role, message.content) for place, message in enumerate(item.messages)]


def answer(item: Chatted, text: str, place: int = 0) -> list[Row]:
    return item.beside.answer(place) or [turn("assistant", text)]


def turn(role: str, text: str) -> Row:
    """A message; what was thought before an answer is apart from it, by the name that templates have for it."""
    thought, said = split_thought(text) if role == "assistant" else Parts("", text)
    return {"role": role, "content": said} | ({"reasoning_content": thought} if thought else {})


def tools(item: Chatted) -> Row:
    """The column of what could be called, where there is one."""
    found = item.beside.columns.get("tools")
    return {"tools": found} if isinstance(found, list) else {}


def is_plain(item: Item) -> bool:
    """Whether the texts alone say it."""
    return isinstance(item, Steps) or item.beside.plain


# --- TRL, OpenRLHF --------------------------------------------------------------------------------------------------------


def trl_preference(item: PreferencePair) -> Row:
    sides = {"chosen": answer(item, item.chosen), "rejected": answer(item, item.rejected, 1)}
    scores = dict(zip(("score_chosen", "score_rejected"), item.beside.scores, strict=False))
    return {"prompt": chat(item), **sides, "margin": item.margin, **scores, **tools(item)}


def trl_derived(item: DerivedPair) -> Row:
    return {"prompt": chat(item), "chosen": answer(item, item.chosen), "rejected": answer(item, item.rejected, 1), "derived": item.why, **tools(item)}


def trl_kto(item: Labelled) -> Row:
    return {"prompt": chat(item), "completion": answer(item, item.answer), "label": item.good, **tools(item)}


def trl_sft(item: Written) -> Row:
    """Prompt and completion apart, so that only what the operator wrote is learned."""
    return {"prompt": chat(item), "completion": answer(item, item.text), **tools(item)}


def trl_stepwise(item: Steps) -> Row:
    """Strings: this format has no conversational form."""
    return {"prompt": transcript(item.messages), "completions": list(item.sentences), "labels": list(item.good)}


def transcript(messages: Messages) -> str:
    """A prompt of one turn as it is, a longer conversation with its roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


# --- OpenAI ----------------------------------------------------------------------------------------------------------------


def openai_dpo(item: PreferencePair) -> Row | None:
    """One message on each side, or none can be told."""
    asked = {"messages": chat(item), "tools": tools(item).get("tools", []), "parallel_tool_calls": True}
    sides = answer(item, item.chosen), answer(item, item.rejected, 1)
    if any(len(side) > 1 for side in sides):
        return None
    return {"input": asked, "preferred_output": sides[0], "non_preferred_output": sides[1]}


def openai_sft(item: Written) -> Row:
    return {"messages": chat(item) + answer(item, item.text), **tools(item)}


# --- LLaMA-Factory ---------------------------------------------------------------------------------------------------------

_FROM = {"user": "human", "assistant": "gpt", "tool": "observation"}


def _sharegpt(item: Chatted, *answers: list[Row]) -> tuple[str, list[Row]] | None:
    """System message and turns; None where the turns do not alternate, beginning with the user's, as this form asks, or are not text."""
    system, turns = "", chat(item) + [message for messages in answers for message in messages]
    if turns[0]["role"] == "system":
        system, turns = turns[0]["content"], turns[1:]
    told = [_sharegpt_turn(turn) for turn in turns]
    if (
        not told
        or not isinstance(system, str)
        or any(turn is None or (turn["from"] in ("gpt", "function_call")) != bool(i % 2) for i, turn in enumerate(told))
    ):
        return None
    return system, [turn for turn in told if turn is not None]


def _sharegpt_turn(message: Row) -> Row | None:
    calls = message.get("tool_calls")
    if isinstance(calls, list) and len(calls) == 1 and not message.get("content"):
        called = calls[0].get("function") if isinstance(calls[0], dict) else None
        return {"from": "function_call", "value": msgspec.json.encode(called).decode()} if called else None
    if calls or not isinstance(message.get("content"), str) or message["role"] not in _FROM:
        return None
    return {"from": _FROM[message["role"]], "value": message["content"]}


def factory_preference(item: PreferencePair) -> Row | None:
    found = _sharegpt(item)
    sides = [answer(item, item.chosen), answer(item, item.rejected, 1)]
    if found is None or any(len(side) > 1 or _sharegpt_turn(side[0]) is None for side in sides):
        return None
    chosen, rejected = (_sharegpt_turn(side[0]) for side in sides)
    return {"conversations": found[1], "chosen": chosen, "rejected": rejected, "system": found[0]}


def factory_kto(item: Labelled) -> Row | None:
    if (found := _sharegpt(item, answer(item, item.answer))) is None:
        return None
    return {"conversations": found[1], "kto_tag": item.good, "system": found[0]}


def factory_sft(item: Written) -> Row | None:
    if (found := _sharegpt(item, answer(item, item.text))) is None:
        return None
    return {"conversations": found[1], "system": found[0]}


_COLUMNS = {"messages": "conversations", "system": "system"}
_DATASET_INFO = {
    "tamer_preference": {
        "file_name": "preference.jsonl", "formatting": "sharegpt", "ranking": True,
        "columns": _COLUMNS | {"chosen": "chosen", "rejected": "rejected"},
    },
    "tamer_kto": {"file_name": "kto.jsonl", "formatting": "sharegpt", "columns": _COLUMNS | {"kto_tag": "kto_tag"}},
    "tamer_sft": {"file_name": "sft.jsonl", "formatting": "sharegpt", "columns": _COLUMNS},
}  # fmt: skip


# --- Axolotl ---------------------------------------------------------------------------------------------------------------


def axolotl_dpo(item: PreferencePair) -> Row | None:
    chosen, rejected = answer(item, item.chosen), answer(item, item.rejected, 1)
    return {"messages": chat(item), "chosen": chosen[0], "rejected": rejected[0]} if len(chosen) == len(rejected) == 1 else None


def axolotl_kto(item: Labelled) -> Row | None:
    return {"prompt": transcript(item.messages), "completion": split_thought(item.answer).answer, "label": item.good} if is_plain(item) else None


def axolotl_ranked(item: Ranked) -> Row | None:
    """The nectar form; answers without a rank come last, together."""
    last = max((rank for rank in item.ranks if rank is not None), default=0) + 1
    said = [split_thought(text).answer for text in item.answers]
    answers = [{"answer": text, "rank": rank or last} for text, rank in zip(said, item.ranks, strict=True) if text.strip()]
    return {"prompt": transcript(item.messages), "answers": answers} if len(answers) > 1 and is_plain(item) else None


# --- words -----------------------------------------------------------------------------------------------------------------


def critiques(item: Criticised) -> Row:
    """Prompt, answer and what was said of it; the answer is None where the words were about all answers."""
    reply = None if item.answer is None else answer(item, item.answer)
    return {"prompt": chat(item), "response": reply, "critique": item.critique, "scope": item.scope, "strength": item.strength, **tools(item)}


# --- all of them -----------------------------------------------------------------------------------------------------------


def _one(source: Source, row: Callable[[Any], Row | None], what: str) -> Format:
    return Format(what, (File("", source, row),))


def _several(what: str, files: Sequence[tuple[str, Source, Callable[[Any], Row | None]]], **extra: Any) -> Format:
    return Format(what, tuple(File(*file) for file in files), folder=True, extra=extra)


FORMATS: dict[str, Format] = {
    "trl-preference": _one("comparisons", trl_preference, "TRL's reward and DPO trainers, with a margin"),
    "trl-kto": _one("labelled", trl_kto, "TRL's KTO trainer"),
    "trl-sft": _one("written", trl_sft, "TRL's SFT trainer"),
    "trl-stepwise": _one("steps", trl_stepwise, "TRL's stepwise supervision, from taps and spans"),
    "trl-derived": _one("derived", trl_derived, "TRL's reward and DPO trainers, pairs that follow from critiques and from what was written"),
    "hindsight": _one("hindsight", trl_sft, "TRL's SFT trainer, a critique in the prompt and the answer that followed it"),
    "critiques": _one("criticised", critiques, "what should be otherwise, in words"),
    "llamafactory": _several(
        "LLaMA-Factory: a folder with dataset_info.json",
        [("preference.jsonl", "comparisons", factory_preference), ("kto.jsonl", "labelled", factory_kto), ("sft.jsonl", "written", factory_sft)],
        **{"dataset_info.json": _DATASET_INFO},
    ),
    "openrlhf": _one("comparisons", trl_preference, "OpenRLHF: --data.prompt_key prompt, chosen, rejected, margin"),
    "axolotl": _several(
        "Axolotl: a folder",
        [
            ("dpo.jsonl", "comparisons", axolotl_dpo), ("kto.jsonl", "labelled", axolotl_kto),
            ("ranked.jsonl", "ranked", axolotl_ranked), ("sft.jsonl", "written", openai_sft),
        ],
    ),
    "openai-dpo": _one("comparisons", openai_dpo, "OpenAI's preference fine-tuning"),
    "openai-sft": _one("written", openai_sft, "OpenAI's supervised fine-tuning"),
    "parquet": _several(
        "a Hugging Face dataset folder with a card",
        [("preference", "comparisons", trl_preference), ("kto", "labelled", trl_kto), ("sft", "written", trl_sft)],
    ),
}  # fmt: skip
WHOLE = {"tamer": "JSON lines, everything: import gives the same database", "sqlite": "a clean copy of the database"}
"""Formats of the whole database, which take no options that leave anything out."""
