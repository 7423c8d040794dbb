"""How fast answers show: the reading pace, and the tap view, which has one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tamer_tui.session import Session
from tamer_tui.widgets.candidate_pane import INSTANT

if TYPE_CHECKING:
    from tamer_tui.screens.arena import ArenaScreen

PACES = (3.0, 6.0, 12.0, 24.0, 48.0, INSTANT)
"""Tokens a second."""
USUAL = PACES.index(12.0)
TAPPED = PACES.index(6.0)
"""About how fast people read, and slow enough that a delayed tap falls on few tokens."""


class Pacing:
    """The Arena's pace waits while the tap view is on."""

    def __init__(self, session: Session, screen: ArenaScreen) -> None:
        self._session, self._screen = session, screen
        self._arena_pace = USUAL

    async def turn(self) -> None:
        """One answer at reading pace, or the Arena again, with the next prompt."""
        screen = self._screen
        if self._session.current is None:
            return
        screen.tap_view = not screen.tap_view
        if not await screen.advance():
            screen.tap_view = not screen.tap_view
        elif screen.tap_view:
            self._arena_pace, screen.pace = screen.pace, TAPPED
        else:
            screen.pace = self._arena_pace

    def step(self, step: int) -> None:
        """Faster or slower."""
        screen = self._screen
        screen.pace = min(len(PACES) - 1, max(0, screen.pace + step))
        pace = PACES[screen.pace]
        screen.say("tokens show at once" if pace == INSTANT else f"reading pace: {pace:g} tokens a second")
