"""Screens that a session tells of changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from textual._context import NoActiveAppError  # private; the version of textual is pinned
from textual.css.query import NoMatches
from textual.screen import Screen

from tamer_tui.session import Change, Session


def observe(session: Session, screen: Screen[Any], told: Callable[[Change], None]) -> None:
    """Until the screen goes. When the program ends its widgets go first, and the engine may still speak then."""

    def tell(change: Change) -> None:
        if screen.is_attached:
            with suppress(NoMatches, NoActiveAppError):
                told(change)

    session.observe(tell)
