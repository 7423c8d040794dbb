"""Versions as a tree: each stands above the one that it came from, the newest highest, the model as it was loaded lowest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from storage.records import BASE_VERSION
from storage.rows import MarkedVersion


def drawn(versions: Sequence[MarkedVersion]) -> list[tuple[str, MarkedVersion | None]]:
    """Branches as text and the version at their end, top to bottom; None for the base. `versions` are newest first.

    A child without a branch of its own goes straight up, so that a line of versions stays a line however long it is.
    """
    children: dict[str, list[MarkedVersion]] = defaultdict(list)
    known = {version.id for version in versions}
    for version in reversed(versions):
        children[version.parent if version.parent in known else BASE_VERSION].append(version)
    rows: list[tuple[str, MarkedVersion | None]] = [("", None)]
    waiting = [(child, "") for child in reversed(children[BASE_VERSION])]
    while waiting:
        version, indent = waiting.pop()
        siblings = children[version.parent if version.parent in known else BASE_VERSION]
        trunk = version is siblings[-1]  # the newest goes straight up
        rows.append((indent + ("" if trunk else "├─"), version))
        inner = indent if trunk else indent + "│ "
        waiting += [(child, inner) for child in reversed(children[version.id])]
    return rows[::-1]
