"""What letters and digits do: the ballot of the set that is open, and scores, which are on disk at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.records import CRITERIA
from tamer_tui.ballot import Ballot
from tamer_tui.session import Session

if TYPE_CHECKING:
    from tamer_tui.screens.arena import ArenaScreen


class Marking:
    """Between the keys of the Arena, its ballot, and the scores of a session. Of two answers one key is a choice, and one takes it back."""

    def __init__(self, session: Session, screen: ArenaScreen) -> None:
        self._session, self._screen = session, screen

    def letter(self, slot: int) -> None:
        """The next best answer."""
        screen, view = self._screen, self._screen.to_judge
        if view is None or slot >= len(view.candidates) or len(view.candidates) < 2:
            return
        screen.reveal()
        screen.ballot = (Ballot() if len(view.candidates) == 2 else screen.ballot).add(slot)

    def tie(self) -> None:
        """Of two: they are equal; of more: the next letter is as good as the last one."""
        screen, view = self._screen, self._screen.to_judge
        if view is not None and len(view.candidates) == 2:
            screen.reveal()
            screen.ballot = screen.ballot.call_equal()
        elif view is not None:
            screen.ballot = screen.ballot.tie()

    def all_bad(self) -> None:
        """None is any good."""
        screen = self._screen
        if screen.to_judge is not None and not screen.in_grace:
            screen.reveal()
            screen.ballot = screen.ballot.condemn()

    def take_back(self) -> None:
        """What was typed last."""
        screen, view = self._screen, self._screen.to_judge
        if view is not None:
            screen.ballot = Ballot() if len(view.candidates) == 2 else screen.ballot.take_back()

    async def score(self, value: int) -> None:
        """Of the focused answer on the criterion; 0 takes it back."""
        screen, candidate, judging = self._screen, self._screen.focused_answer, self._session.judging
        if screen.to_judge is None or candidate is None:
            return
        screen.reveal()
        if value == 0:
            await screen.attempt(lambda: judging.clear_rating(candidate.uid, screen.criterion))
        else:
            done = f"✓ {candidate.letter} scored {value} of 7, {screen.criterion}"
            await screen.attempt(lambda: judging.rate(candidate.uid, value, screen.criterion), done)

    def next_criterion(self) -> None:
        """What scores are for."""
        screen = self._screen
        screen.criterion = CRITERIA[(CRITERIA.index(screen.criterion) + 1) % len(CRITERIA)]
        screen.say(f"scores are for: {screen.criterion}")
