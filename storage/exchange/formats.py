"""The files of each export format, and how an item becomes a row of them. A row of None cannot be told in a format, and is counted as left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from storage.exchange.items import Labelled, Messages, PreferencePair, Ranked, Steps, Written

Row = dict[str, Any]
Source = Literal["comparisons", "labelled", "written", "ranked", "steps"]


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


def chat(messages: Messages) -> list[Row]:
    return [{"role": message.role, "content": message.content} for message in messages]


def answer(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


# --- TRL, OpenRLHF --------------------------------------------------------------------------------------------------------


def trl_preference(item: PreferencePair) -> Row:
    return {"prompt": chat(item.messages), "chosen": answer(item.chosen), "rejected": answer(item.rejected), "margin": item.margin}


def trl_kto(item: Labelled) -> Row:
    return {"prompt": chat(item.messages), "completion": answer(item.answer), "label": item.good}


def trl_sft(item: Written) -> Row:
    """Prompt and completion apart, so that only what the operator wrote is learned."""
    return {"prompt": chat(item.messages), "completion": answer(item.text)}


def trl_stepwise(item: Steps) -> Row:
    """Strings: this format has no conversational form."""
    return {"prompt": transcript(item.messages), "completions": list(item.sentences), "labels": list(item.good)}


def transcript(messages: Messages) -> str:
    """A prompt of one turn as it is, a longer conversation with its roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


# --- OpenAI ----------------------------------------------------------------------------------------------------------------


def openai_dpo(item: PreferencePair) -> Row:
    asked = {"messages": chat(item.messages), "tools": [], "parallel_tool_calls": True}
    return {"input": asked, "preferred_output": answer(item.chosen), "non_preferred_output": answer(item.rejected)}


def openai_sft(item: Written) -> Row:
    return {"messages": chat(item.messages) + answer(item.text)}


# --- LLaMA-Factory ---------------------------------------------------------------------------------------------------------

_FROM = {"user": "human", "assistant": "gpt"}


def _sharegpt(messages: Messages) -> tuple[str, list[Row]] | None:
    """System message and turns; None where the turns do not alternate, beginning with the user's, as this form asks."""
    system, turns = ("", messages)
    if messages[0].role == "system":
        system, turns = messages[0].content, messages[1:]
    if not turns or any(message.role != ("assistant" if i % 2 else "user") for i, message in enumerate(turns)):
        return None
    return system, [{"from": _FROM[message.role], "value": message.content} for message in turns]


def factory_preference(item: PreferencePair) -> Row | None:
    if (found := _sharegpt(item.messages)) is None:
        return None
    sides = {"chosen": {"from": "gpt", "value": item.chosen}, "rejected": {"from": "gpt", "value": item.rejected}}
    return {"conversations": found[1], **sides, "system": found[0]}


def factory_kto(item: Labelled) -> Row | None:
    if (found := _sharegpt(item.messages)) is None:
        return None
    return {"conversations": [*found[1], {"from": "gpt", "value": item.answer}], "kto_tag": item.good, "system": found[0]}


def factory_sft(item: Written) -> Row | None:
    if (found := _sharegpt(item.messages)) is None:
        return None
    return {"conversations": [*found[1], {"from": "gpt", "value": item.text}], "system": found[0]}


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


def axolotl_dpo(item: PreferencePair) -> Row:
    return {"messages": chat(item.messages), "chosen": answer(item.chosen)[0], "rejected": answer(item.rejected)[0]}


def axolotl_kto(item: Labelled) -> Row:
    return {"prompt": transcript(item.messages), "completion": item.answer, "label": item.good}


def axolotl_ranked(item: Ranked) -> Row | None:
    """The nectar form; answers without a rank come last, together."""
    last = max((rank for rank in item.ranks if rank is not None), default=0) + 1
    answers = [{"answer": text, "rank": rank or last} for text, rank in zip(item.answers, item.ranks, strict=True) if text.strip()]
    return {"prompt": transcript(item.messages), "answers": answers} if len(answers) > 1 else None


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
