"""Two policies on the same prompts: blind and counted apart, or side by side to be read. Either is the acting one, the base, or a version's adapter
alone, which need not act."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.blind import NOTHING, BlindCount
from storage.records import Prompt, Ranking
from tamer_tui.session.sets import NO_PROMPT
from tamer_tui.session_store import SessionError
from tamer_tui.views import ACTING, BASE, Change, SetView, Side
from tamer_tui.wins import called

if TYPE_CHECKING:
    from tamer_tui.session.session import Session


class Duels:
    """One at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.current: SetView | None = None
        self.asked: SetView | None = None  # side by side, while it is drawn
        self.pair = (ACTING.name, BASE.name)

    # --- who -----------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Who can be compared."""
        return [ACTING.name, BASE.name, *(version.id for version in self._session.machine.versions() if version.published)]

    async def between(self, one: str, other: str) -> None:
        """From here on these two; what is open is left."""
        self._check(one, other)
        await self._end()
        self.current, self.pair = None, (one, other)
        self._session.tell(Change.DUEL)

    def counts(self) -> dict[tuple[str, str], BlindCount]:
        """Of all duels of the record, by pair; each both ways around."""
        return self._session.record.duels() if self._session.store is not None else {}

    @property
    def count(self) -> BlindCount:
        """How often the first of the two won."""
        return self.counts().get(self.pair, NOTHING)

    @property
    def together(self) -> bool:
        """Whether both answers are to be shown at once when they are complete: two adapters draw one after the other, and that would tell them
        apart. What an adapter and the base draw comes in one batch."""
        return BASE.name not in self.pair

    def _check(self, one: str, other: str) -> None:
        if one == other:
            raise SessionError("both would be the same model", "choose another one")
        unknown = next((name for name in (one, other) if name not in self.names()), "")
        if unknown:
            raise SessionError(f"{unknown} was refused and not kept", "choose another one")
        status = self._session.status
        if {one, other} == {ACTING.name, BASE.name} and not (status.adapted or (status.bias and status.followed)):
            raise SessionError("both would be the same model: nothing was taught yet", "judge some answers first")

    async def _sides(self, one: str, other: str) -> tuple[Side, Side]:
        """What the engine has to know of them, which it gets."""
        self._check(one, other)
        known = {version.id: Side(version.id, "adapter", version.sha256) for version in self._session.machine.versions()}
        known |= {side.name: side for side in (ACTING, BASE)}
        sides = known[one], known[other]
        await self._session.machine.lend([side.sha256 for side in sides if side.sha256 is not None])
        return sides

    # --- blind ---------------------------------------------------------------------------------------------------------

    async def open_next(self) -> None:
        """The next prompt, two answers."""
        session = self._session
        dealer = session.sets.ready_dealer()
        sides = await self._sides(*self.pair)
        prompt = dealer.next_prompt()
        if prompt is None:
            raise SessionError(*NO_PROMPT)
        await self._end()
        record, view = dealer.duel(prompt, session.uid, sides)
        session.opened.keep(record, session.say)
        session.sets.streams.ask(view.candidates, [prompt.messages] * 2)
        self.current = view
        session.tell(Change.DUEL)

    async def choose(self, slot: int | None) -> str:
        """The better answer, or None for neither. On disk; then it is known which was which, and that is what it says."""
        view = self.current
        if view is None or view.committed:
            raise SessionError("there is nothing to choose from", "enter opens the next two answers")
        if self.together and not view.ended:
            raise SessionError("both answers appear when both are complete", "wait for them, or enter for another prompt")
        await self._end()
        if any(candidate.refused for candidate in view.candidates):
            raise SessionError("one of them could not be drawn", "enter opens the next two answers")
        ranks = {candidate.uid: 1 if slot in (None, candidate.slot) else 2 for candidate in view.candidates}
        await self._session.judging.append(Ranking(view.uid, ranks))
        view.ranks, view.committed = ranks, True
        self._session.tell(Change.COMMITTED)
        verdict = "neither was better" if slot is None else f"you preferred {called(view.candidates[slot].side)}"
        return f"✓ {verdict}: " + ", ".join(f"{each.letter} was {called(each.side)}" for each in view.candidates)

    # --- side by side --------------------------------------------------------------------------------------------------

    async def sample(self, one: str, other: str, prompt: Prompt | None = None) -> SetView:
        """An answer of each to a prompt, or to the one that is open, from the same seed; never counted."""
        session = self._session
        dealer = session.sets.ready_dealer()
        sides = await self._sides(one, other)
        prompt = prompt or (session.current.prompt if session.current is not None else dealer.peek())
        if prompt is None:
            raise SessionError(*NO_PROMPT)
        record, view = dealer.comparison(prompt, session.uid, sides)
        session.opened.keep(record, session.say)
        uids = [candidate.uid for candidate in view.candidates]
        session.sets.streams.ask(view.candidates, [prompt.messages] * 2)
        self.asked = view
        try:
            await session.sets.streams.wait(uids)
        finally:
            self.asked = None
            session.sets.streams.stop(uids)
        for candidate in view.candidates:
            if candidate.refused:
                raise SessionError(f"{called(candidate.side)} could not answer: {candidate.refused}")
        return view

    async def _end(self) -> None:
        if self.current is not None:
            await self._session.sets.end(candidate.uid for candidate in self.current.candidates)
