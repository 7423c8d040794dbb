"""The acting policy against the base model, blind, on the same prompts that are taught: a measure of its own, counted apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.blind import BlindCount
from storage.records import Ranking
from tamer_tui.session.sets import NO_PROMPT
from tamer_tui.session_store import SessionError
from tamer_tui.views import Change, SetView

if TYPE_CHECKING:
    from tamer_tui.session.session import Session


class Duels:
    """One at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.current: SetView | None = None

    @property
    def count(self) -> BlindCount:
        """How often the acting policy won, of all duels of the record."""
        return self._session.record.duel_count()

    async def open_next(self) -> None:
        """The next prompt, two answers."""
        session = self._session
        dealer = session.sets.ready_dealer()
        if not (session.status.adapted or (session.status.bias and session.status.followed)):
            raise SessionError("both would be the same model: nothing was taught yet", "judge some answers first")
        prompt = dealer.next_prompt()
        if prompt is None:
            raise SessionError(*NO_PROMPT)
        await self._end()
        record, view = dealer.duel(prompt, session.uid)
        session.opened.keep(record, session.say)
        session.sets.streams.ask(view.candidates, [prompt.messages] * 2)
        self.current = view
        session.tell(Change.DUEL)

    async def choose(self, slot: int | None) -> str:
        """The better answer, or None for neither. On disk; then it is known which was which, and that is what it says."""
        view = self.current
        if view is None or view.committed:
            raise SessionError("there is nothing to choose from", "enter opens the next two answers")
        await self._end()
        ranks = {candidate.uid: 1 if slot in (None, candidate.slot) else 2 for candidate in view.candidates}
        await self._session.judging.append(Ranking(view.uid, ranks))
        view.ranks, view.committed = ranks, True
        self._session.tell(Change.COMMITTED)
        mine = next(candidate for candidate in view.candidates if candidate.policy != "base")
        verdict = "neither was better" if slot is None else "you preferred yours" if mine.slot == slot else "you preferred the untouched model"
        return f"✓ {verdict}: {mine.letter} was your model"

    async def _end(self) -> None:
        if self.current is not None:
            await self._session.sets.end(candidate.uid for candidate in self.current.candidates)
