"""What imported sets have beside their texts (see exchange.items.Kept), as JSON, and back.

Files bring everything: bytes that are no text, objects of other programs, depths that end a reader. What cannot be told in JSON becomes what comes
closest to it, since a row that is kept can never be taken out again and must be read whenever anything is exported.
"""

from __future__ import annotations

import ast
import json
from typing import Any, NamedTuple

import msgspec

from storage.records import unicode

DEEPEST = 100
"""Lists and objects in each other; what is below is kept as text. Whoever walks through a value takes some stack at each."""
LONGEST = 1_000
"""Characters of what can only be described."""
_encode = msgspec.json.Encoder().encode
NOTHING: dict[str, Any] = {"prompt": (), "answers": (), "scores": (), "margin": None, "columns": {}, "why": (), "besides": ()}


class Told(NamedTuple):
    """A value as JSON."""

    json: str
    changed: bool  # it is not the same value: something in it is no JSON


def told(value: object) -> Told:
    try:
        text = _encode(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        pass
    else:
        if not _is_deep(value, text):
            return Told(text, False)
    return Told(_encode(_plain(value)).decode(), True)


def read(content: str) -> dict[str, Any]:
    """What is kept of a set. Earlier versions wrote some rows as Python writes them; what cannot be read at all is nothing."""
    try:
        found = json.loads(content)
    except RecursionError:
        return NOTHING
    except ValueError:
        try:
            found = _plain(ast.literal_eval(content))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return NOTHING
    if not isinstance(found, dict) or not NOTHING.keys() - {"besides"} <= found.keys():
        return NOTHING
    return _plain(found) if _is_deep(found, content) else found  # type: ignore[no-any-return]


def sound(content: str) -> str:
    """The same where it is JSON that can be read anywhere."""
    found = read(content)
    try:
        return content if json.loads(content) == found else told(found).json
    except (ValueError, RecursionError):
        return told(found).json


def _is_deep(value: object, text: str) -> bool:
    """Of a value and its JSON; most have few brackets in all."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    level = [value]
    for _ in range(DEEPEST):
        inner = (one for each in level for one in (each.values() if isinstance(each, dict) else each))  # type: ignore[attr-defined]
        level = [one for one in inner if isinstance(one, dict | list | tuple)]
    return bool(level)


def _plain(value: Any, deep: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return unicode(value)
    if isinstance(value, dict | list | tuple | set | frozenset):
        if deep == DEEPEST:
            return f"[{type(value).__name__}]"
        if isinstance(value, dict):
            return {unicode(str(name)): _plain(each, deep + 1) for name, each in value.items()}
        return [_plain(each, deep + 1) for each in value]
    try:  # dates, bytes and what else has a usual form
        return msgspec.json.decode(_encode(value))
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return unicode(str(value)[:LONGEST])
