"""How far a long piece of work is, and whether it should go on."""

from __future__ import annotations

from collections.abc import Callable

Step = Callable[[int, int], None]
"""Told how much is done, and of how much. Raises CancelledError to end the work, which then leaves nothing behind."""


class CancelledError(Exception):
    """Nobody wants it any more."""


def unwatched(done: int, of: int) -> None:
    """A step that nobody looks at."""
