"""Untrusted text, made safe to paint: model output, prompts, imported text. It is never markup and never reaches the terminal as control."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells

if TYPE_CHECKING:
    from textual.content import Content

TAB = "    "
LONGEST_LINE = 2_000
"""Characters. What is told on one line may be a megabyte of somebody's, and each painting would pay for it."""
# C0 except newline, DEL and C1, and the marks that would turn the direction of what follows on the line.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Without control characters; tabs are spaces, newlines stay. An escape sequence loses its escape and shows as the letters it has."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", TAB)
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode("utf-8")


def visible(text: str) -> str:
    """Safe to print, with nothing lost: control characters as JSON writes them, so that a line of JSON says the same as before."""
    return _CONTROL.sub(lambda found: found[0] if found[0] == "\t" else f"\\u{ord(found[0]):04x}", text).encode("utf-8", "replace").decode("utf-8")


def editable(text: str) -> str:
    """Plain, for a text box: tabs stay, since what is saved should differ from the original only where it was rewritten."""
    return "\t".join(plain(part) for part in text.split("\t"))


def one_line(text: str) -> str:
    """Plain, on one line, as much as any line shows."""
    return " ".join(plain(text[:LONGEST_LINE]).split()) + "…" * (len(text) > LONGEST_LINE)


def size_of(count: float) -> str:
    """Bytes for people: '15.0 MB', '1.2 GB'."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """'4 s', '3 min', '2 h'."""
    if not math.isfinite(seconds):
        return "×"
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def content(text: str, style: str = "") -> Content:
    """For a widget: the text as it is, brackets and all."""
    from textual.content import Content  # reports are text too, and need no screen

    return Content.styled(plain(text), style) if style else Content(plain(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces, which stay at the end of their line (and may stand out from it).

    Greedy, so that only the last line can change when more text comes.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines += _wrap_paragraph(paragraph, max(1, width))
    return lines


def _wrap_paragraph(paragraph: str, width: int) -> list[str]:
    lines, line, room = [], "", width
    for word in re.findall(r" *[^ ]+| +$", paragraph):
        body, cells = word.lstrip(" "), cell_len(word)
        if cells <= room or not body:
            line, room = line + word, room - cells
            continue
        if line:
            lines.append(line + word[: -len(body)])
        else:
            body = word
        *full, line = _chopped(body, width)
        lines += full
        room = width - cell_len(line)
    return [*lines, line]


def _chopped(word: str, width: int) -> list[str]:
    """A long word in parts that fit, none empty; characters that are drawn as one stay together."""
    if cell_len(word) <= width:
        return [word]
    parts = [part for part in chop_cells(word, width) if part]
    rest = word[sum(map(len, parts)) :]  # marks without a width at the very end
    return [*parts[:-1], parts[-1] + rest]
