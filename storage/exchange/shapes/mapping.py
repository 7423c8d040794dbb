"""Rows of a shape that nobody knows: `--map prompt=question chosen=answers.0.text`, and what to try where nothing fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from storage.exchange.items import Judged, Kept, Row
from storage.exchange.shapes.pieces import BadRow, empty

TARGETS = ("prompt", "system", "history", "chosen", "rejected", "margin", "response", "label", "score", "responses", "scores", "answers")
"""What a column can be mapped to: names that the shapes know."""
DEEPEST = 4


def dig(row: Row, path: str) -> Any:
    """The value at a dotted path: names of columns and fields, numbers of list elements. Raises BadRow."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and re.fullmatch(r"-?\d{1,9}", part) and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            raise BadRow(f"it has no {path}")
    return value


def mapped(row: Row, mapping: Mapping[str, str]) -> Row:
    """The row under the names that shapes know. An optional part may be missing."""
    found: Row = {}
    for target, path in mapping.items():
        try:
            found[target] = dig(row, path)
        except BadRow:
            if target in ("prompt", "chosen", "rejected", "response", "responses", "answers"):
                raise
    return found


def with_rest(judged: Judged, row: Row, mapping: Mapping[str, str]) -> Judged:
    """With the columns that the map does not take from."""
    taken = {path if path in row else path.split(".")[0] for path in mapping.values()}
    more = {name: value for name, value in row.items() if name not in taken and not empty(value)}
    if not more:
        return judged
    kept = judged.kept or Kept()
    return judged._replace(kept=kept._replace(columns={**kept.columns, **more}))


# --- what to try -----------------------------------------------------------------------------------------------------------

_NAMES = (
    ("chosen", r"chosen|prefer|accept|winn|better|best|good|positive"),
    ("rejected", r"reject|dispref|los|worse|worst|bad|negative"),
    ("system", r"system"),
    ("prompt", r"prompt|question|instruct|query|input|ask|user|human|problem|source|post|title|context|frage|task"),
    ("score", r"score|rating|reward|stars|grade|quality|points"),
    ("label", r"label|thumb|vote|like|correct|verdict"),
    ("response", r"response|answer|completion|output|reply|assistant|generat|text|solution|target|summary|content|antwort"),
)  # fmt: skip


def proposal(row: Row) -> str:
    """The `--map` that the columns' names and values suggest; '' where they suggest none."""
    found: dict[str, str] = {}
    columns = list(_columns(row))
    for target, pattern in _NAMES:
        for path, value in columns:
            fits = (
                _is_number(value)
                if target == "score"
                else isinstance(value, bool | int | str)
                if target == "label"
                else isinstance(value, str | list)
            )
            if fits and path not in found.values() and re.search(pattern, path.split(".")[-1] if "." in path else path, re.IGNORECASE):
                found[target] = path
                break
    texts = [path for path, value in columns if isinstance(value, str) and path not in found.values()]
    for target in ("prompt", "response"):
        if target not in found and not (target == "response" and "chosen" in found) and texts:
            found[target] = texts.pop(0)
    wanted = ("prompt", "chosen", "rejected") if {"chosen", "rejected"} <= found.keys() else ("prompt", "response", "score", "label")
    if "score" in found and wanted[-1] == "label":
        found.pop("label", None)
    if not set(wanted[:2]) <= found.keys():
        return ""
    told = [f"{target}={found[target]}" for target in (*wanted, "system") if target in found]
    return " ".join(told if not any(" " in one for one in told) else [f"'{one}'" for one in told])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _columns(row: Row, before: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path, outer ones first."""
    inner = []
    for name, value in list(row.items())[:40]:
        path = f"{before}{name}"
        if isinstance(value, dict) and depth < DEEPEST:
            inner.append((path, value))
        elif isinstance(value, list) and value and isinstance(value[0], dict) and not {"role", "from"} & value[0].keys() and depth < DEEPEST:
            inner += [(f"{path}.{place}", one) for place, one in enumerate(value[:2]) if isinstance(one, dict)]
        else:
            yield path, value
    for path, value in inner:
        yield from _columns(value, f"{path}.", depth + 1)


def columns_in_words(row: Row) -> str:
    """Names and kinds, as far as a line goes."""
    told = [f"{path} ({_kind(value)})" for path, value in _columns(row)]
    return ", ".join(told[:12]) + (f" and {len(told) - 12} more" if len(told) > 12 else "")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {str: "text", bool: "yes or no", int: "number", float: "number", list: "list", dict: "object"}
    return next((name for kind, name in kinds.items() if type(value) is kind), type(value).__name__)
