"""Untrusted text, made safe to paint: model output, prompts, imported text. It is never markup and never reaches the terminal as control."""

from __future__ import annotations

import re

from rich.cells import cell_len
from textual.content import Content

TAB = "    "
# C0 except newline, DEL and C1, and the marks that would turn the direction of what follows on the line.
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Without control characters; tabs are spaces, newlines stay. An escape sequence loses its escape and shows as the letters it has."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", TAB)
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """Plain, on one line."""
    return " ".join(plain(text).split())


def content(text: str, style: str = "") -> Content:
    """For a widget: the text as it is, brackets and all."""
    return Content.styled(plain(text), style) if style else Content(plain(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces, which stay at the end of their line (and may stand out by one cell).

    Greedy, so that only the last line can change when more text comes.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines += _wrap_paragraph(paragraph, max(1, width))
    return lines


def _wrap_paragraph(paragraph: str, width: int) -> list[str]:
    lines, line, room = [], "", width
    for word in re.findall(r" *[^ ]+| +", paragraph):
        spaces = len(word) - len(word.lstrip(" "))
        body, cells = word[spaces:], cell_len(word)
        if cells <= room:
            line, room = line + word, room - cells
            continue
        if line:
            lines.append(line + word[:spaces])
            line, room = "", width
        else:
            body = word
        while len(body) > 1 and cell_len(body) > width:
            cut = _fitting(body, width)
            lines.append(body[:cut])
            body = body[cut:]
        line, room = body, width - cell_len(body)
    return [*lines, line]


def _fitting(word: str, width: int) -> int:
    """How many characters of a long word fit; at least one."""
    cells = 0
    for i, character in enumerate(word):
        cells += cell_len(character)
        if cells > width:
            return max(1, i)
    return len(word)
