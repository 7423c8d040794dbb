"""Repeats: now and then a set that was judged long ago comes again, looking like any other, to learn how far the operator agrees with themselves.

Its answers appear at the pace at which they were drawn. Nothing is said of it before or after the commit.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from storage.queries import Record
from storage.records import Response
from storage.statistics import Agreement
from tamer_tui.dealing import Dealer
from tamer_tui.views import CandidateView, Change, SetView

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

FRAME_SECONDS = 0.05


class Repeats:
    """Opens them, and lets their answers appear."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._appearing: list[tuple[CandidateView, Response]] = []
        self.agreement: Agreement | None = None  # as of the last repeat
        self._measured = False

    def due(self, dealer: Dealer) -> str | None:
        """The set that is to come again now, if one is. Not where a program judges."""
        if self._session.settings.metered:
            return None
        if not self._measured:
            self._measured = True
            self._session.spawn(self._measure(self._session.opened.path))
        if not dealer.repeat_due:
            return None
        return self._session.record.repeatable(dealer.repeat_place)

    def open(self, dealer: Dealer, set_uid: str) -> SetView:
        """Write it down as a set of its own, and let its answers appear."""
        session = self._session
        old = session.record.sample_set(set_uid)
        record, responses = dealer.repeat(old.prompt, session.record.responses(set_uid), session.uid)
        session.opened.keep(record, session.say)
        for response in responses:
            session.opened.keep(response, session.say)
        candidates = [CandidateView.of(response) for response in responses]
        for candidate in candidates:
            candidate.kept, candidate.ended, candidate.text, candidate.pieces = True, None, "", []
        self._appearing, self._measured = list(zip(candidates, responses, strict=True)), False
        session.spawn(self._appear())
        return SetView(record.uid, record.prompt, candidates, record.purpose)

    def finish(self) -> None:
        """All of what has not appeared yet, now."""
        for candidate, response in self._appearing:
            _end(candidate, response)
        if self._appearing:
            self._appearing = []
            self._session.tell(Change.ENDED)

    async def _measure(self, path: Path) -> None:
        """Seconds for a million events: in a thread."""
        self.agreement = await asyncio.to_thread(_agreement, path)

    async def _appear(self) -> None:
        loop = asyncio.get_running_loop()
        mine, begun = self._appearing, loop.time()
        words = {candidate.uid: re.findall(r"\s*\S+\s*$|\s*\S+", response.text) for candidate, response in mine}
        while mine is self._appearing and mine:
            await asyncio.sleep(FRAME_SECONDS)
            if mine is not self._appearing:
                return
            passed, change = loop.time() - begun, Change.TOKENS
            for candidate, response in tuple(mine):
                seconds = response.times[-1] if response.times else 0.0
                if passed >= seconds:
                    _end(candidate, response)
                    mine.remove((candidate, response))
                    change = Change.ENDED
                else:
                    of = words[candidate.uid]
                    candidate.pieces = of[: int(len(of) * passed / seconds)]
            self._session.tell(change)


def _agreement(path: Path) -> Agreement:
    with Record(path) as record:
        return record.agreement()


def _end(candidate: CandidateView, response: Response) -> None:
    candidate.pieces, candidate.text, candidate.ended = [response.text], response.text, response.stop or "eos"
