"""Prompt files: one prompt a line, or JSON lines with `prompt` or `messages`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from storage.records import Message, Prompt

LONGEST_PROMPT = 100_000
"""Characters."""


class PromptFileError(Exception):
    """What is wrong with a prompt file, in one line."""


class _Line(msgspec.Struct):
    prompt: str | None = None
    messages: list[Message] | None = None


def read_prompts(path: Path, system: str | None = None) -> tuple[Prompt, ...]:
    """The prompts of a file, in order, each once; empty lines are passed over. Raises PromptFileError."""
    lines = [(number, line.strip()) for number, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise PromptFileError(f"{path} has no prompts: write one a line")
    json_lines = path.suffix in (".jsonl", ".ndjson") or lines[0][1].startswith("{")
    prompts = [_of_json(line, f"{path}:{number}", system) if json_lines else Prompt.of(line, system) for number, line in lines]
    for (number, _), prompt in zip(lines, prompts, strict=True):
        if sum(len(message.content) for message in prompt.messages) > LONGEST_PROMPT:
            raise PromptFileError(f"{path}:{number}: a prompt of more than {LONGEST_PROMPT:,} characters")
    return tuple({prompt.uid: prompt for prompt in prompts}.values())


def starter_prompts(chat: bool, system: str | None = None) -> tuple[Prompt, ...]:
    """What ships with the program: questions for chat models, story openings for models that only continue a text."""
    return _shipped("questions.txt" if chat else "openings.txt", system)


def pocket_prompts(system: str | None = None) -> tuple[Prompt, ...]:
    """For the embedded model: what it was made to talk about."""
    return _shipped("pocket.txt", system)


def _shipped(name: str, system: str | None) -> tuple[Prompt, ...]:
    text = files("tamer_tui").joinpath("starter", name).read_text(encoding="utf-8")
    return tuple(Prompt.of(line.strip(), system) for line in text.splitlines() if line.strip())


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PromptFileError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PromptFileError(f"{path}:{line}: not UTF-8: save the file as UTF-8") from error


def _of_json(line: str, where: str, system: str | None) -> Prompt:
    try:
        found = msgspec.json.decode(line.encode(), type=_Line)
    except msgspec.DecodeError as error:
        raise PromptFileError(f"{where}: {error}") from error
    if found.prompt and found.prompt.strip():
        return Prompt.of(found.prompt, system)
    return Prompt(_conversation(found.messages or [], where, system))


def _conversation(messages: Sequence[Message], where: str, system: str | None) -> tuple[Message, ...]:
    if not messages:
        raise PromptFileError(f"{where}: neither `prompt` nor `messages`")
    if messages[-1].role != "user":
        raise PromptFileError(f"{where}: the last message must be the user's")
    if not messages[-1].content.strip():
        raise PromptFileError(f"{where}: the last message is empty")
    if system and messages[0].role != "system":
        return (Message("system", system), *messages)
    return tuple(messages)
