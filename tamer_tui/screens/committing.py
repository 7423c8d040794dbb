"""What enter does: what was typed about a set is written down, and the next one opens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tamer_tui.session import Session, SetView

if TYPE_CHECKING:
    from tamer_tui.screens.arena import ArenaScreen


class Committing:
    """Between the ballot of the Arena and the judgements of a session."""

    def __init__(self, session: Session, screen: ArenaScreen) -> None:
        self._session, self._screen = session, screen

    async def enter(self, view: SetView) -> None:
        """The key."""
        if view.purpose == "compare":
            await self._leave_comparison()
        elif view.committed or (view.purpose == "tap" and self._screen.ballot.empty):
            await self._screen.advance()
        elif self._screen.ballot.empty and not any(candidate.ratings for candidate in view.candidates):
            letters = "type letters best first, or " if len(view.candidates) > 1 else ""
            self._screen.say(f"Nothing judged yet: {letters}a score from 1 to 7; s skips.")
        elif await self._commit(view):
            await self._after_commit(view, f"✓ {self._screen.ballot.in_words() or 'scores'} on disk{_revealed(view)}")

    async def _leave_comparison(self) -> None:
        if await (self._screen.advance() if self._screen.tap_view else self._screen.attempt(self._session.sets.leave_comparison)):
            self._screen.reveal()

    async def _commit(self, view: SetView) -> bool:
        judging, ballot = self._session.judging, self._screen.ballot
        if ballot.all_bad:
            for candidate in view.candidates:
                if not await self._screen.attempt(lambda uid=candidate.uid: judging.rate(uid, 1, self._screen.criterion)):  # type: ignore[misc]
                    return False
            return True
        if ballot.empty:
            return True
        seconds = max(0.0, time.monotonic() - self._screen.ended)
        return await self._screen.attempt(lambda: judging.rank(ballot.ranks(view), ballot.keys(), seconds))

    async def _after_commit(self, view: SetView, said: str) -> None:
        view.committed = True  # scores are on disk already
        if self._screen.tinting.by:
            self._screen.say(said)
            self._screen.tinting.ask()
            self._screen.revision += 1
        else:
            on = await self._screen.advance()
            self._screen.say(said if on else f"{said} · {self._screen.said}")


def _revealed(view: SetView) -> str:
    base = next((c.letter for c in view.candidates if c.policy == "base"), None)
    return f" · {base} was the base" if base else ""
