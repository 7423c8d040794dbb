"""TAMER: one answer appears at reading pace, and the operator praises and blames its words as they come.

The terminal's clock is the one that counts: when a token appeared and when a key was pressed are taken on it and written down raw. A tap is on disk
first; then Ĥ learns from it, and what was not on the screen yet is dropped and drawn anew. So the sentence that is criticised bends.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from storage.records import Arm, Calibration, Shown, Tap
from tamer_tui.calibration import connection
from tamer_tui.session.sets import NO_PROMPT
from tamer_tui.session_store import SessionError
from tamer_tui.views import CandidateView, Change, EngineState, SetView, SteeredSpan

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

SLEPT_SECONDS = 0.5
"""By which the two clocks may differ between a word and its tap; more, and the machine slept in between."""


@dataclass
class Reading:
    """How far the answer that is tapped was read."""

    uid: str
    drift: float | None = None  # wall clock less monotonic clock, when the last token appeared
    recorded: int = 0  # tokens whose appearance is on disk
    armed: float | None = None  # since when silence has counted

    def slept(self, drift: float) -> bool:
        return self.drift is not None and abs(drift - self.drift) > SLEPT_SECONDS


class Taps:
    """Answers that are tapped. Times are seconds on one monotonic clock that the caller reads."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.dropped = 0  # taps that could not be about what was on the screen
        self.silence = False  # counts: words that pass untapped are worth 0
        self._reading = Reading("")
        self._now = 0.0  # when the screen was looked at last

    @property
    def answer(self) -> CandidateView | None:
        """The answer that is there to be tapped."""
        view = self._session.current
        return view.candidates[0] if view is not None and view.purpose == "tap" else None

    @property
    def complete(self) -> bool:
        """Whether the whole answer is on the screen."""
        answer = self.answer
        return answer is not None and answer.ended is not None and not answer.redrawing and len(answer.shown) >= len(answer.pieces)

    def marks(self) -> list[tuple[int, float]]:
        """Of each live tap on the answer: how many of its tokens were on the screen, and its value."""
        answer = self.answer
        found = self._session.record.taps(answer.uid) if answer is not None else []
        return [(bisect_right(answer.shown, tap.seconds), tap.value) for _, tap in found] if answer is not None else []

    # --- one answer after another ----------------------------------------------------------------------------------------

    async def open_next(self) -> None:
        """Open the next prompt with one answer, to be tapped."""
        sets = self._session.sets
        prompt = sets.ready_dealer().next_prompt()
        if prompt is None:
            raise SessionError(*NO_PROMPT)
        await self._follow_connection()
        await sets.draw(*sets.ready_dealer().single(prompt, self._session.uid))

    async def finish(self) -> None:
        """Leave the answer as it stands on the screen, and write it down."""
        answer = self.answer
        if answer is None or answer.kept:
            return
        await self._session.sets.end([answer.uid])
        if len(answer.shown) < len(answer.pieces):  # nobody saw the rest
            answer.drop_unseen()
            answer.break_off()
        await self._keep_silence()
        await self._record_shown(answer)
        self._session.sets.keep(answer)

    def restore(self, view: SetView) -> None:
        """Of a set of the record: when its words appeared."""
        for answer in view.candidates:
            if (shown := self._session.record.shown(answer.uid)) is not None:
                answer.pieces, answer.shown = list(shown.texts), list(shown.seconds)
            answer.paced = answer.kept = True

    # --- words and taps ----------------------------------------------------------------------------------------------------

    def show(self, n: int, seconds: float, wall: float | None = None) -> None:
        """The first `n` tokens of the answer are on the screen now."""
        answer, self._now = self.answer, seconds
        if answer is None:
            return
        reading = self._reading_of(answer)
        if self.silence and reading.armed is None:
            reading.armed = seconds
        if n > len(answer.shown):
            answer.shown += [seconds] * (n - len(answer.shown))
            reading.drift = (time.time() if wall is None else wall) - seconds

    async def tap(
        self, value: float, key: str, seconds: float, repeat: int = 1, wall: float | None = None, of: str | None = None
    ) -> int | None:
        """Praise (above 0) or blame what is on the screen. Its seq; None for a tap that could be about nothing there, which is counted.

        of: uid of the answer that it was meant for; by itself the one that is there.
        """
        session, answer = self._session, self.answer
        wall = time.time() if wall is None else wall
        if answer is None or of not in (None, answer.uid) or not answer.shown or self._reading_of(answer).slept(wall - seconds):
            self.dropped += 1
            session.tell(Change.NOTICE)
            return None
        whole = self.complete and seconds > read_by(answer.shown) + self.window.high
        going_on = not self.complete
        if going_on:
            answer.drop_unseen()  # at once: nothing of the old rest may appear while the tap is written down
        await self._record_shown(answer)
        stamp = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
        seq = await session.judging.append(Tap(session.set.uid, answer.uid, value, key, seconds, stamp, repeat, whole))
        if going_on and session.engine_state is EngineState.READY:
            session.sets.streams.redraw(answer)
        session.tell(Change.COMMITTED)
        return seq

    async def _record_shown(self, answer: CandidateView) -> None:
        """What has appeared since the last time; it will not change any more."""
        reading = self._reading_of(answer)
        start, stop = reading.recorded, len(answer.shown)
        if start >= stop or answer.kept:
            return
        spans = [_span_at(answer, i) for i in range(start, stop)]
        part = slice(start, stop)
        reading.recorded = stop
        await self._session.opened.write_shown(Shown(
            self._session.set.uid, answer.uid, start, tuple(answer.token_ids[part]), tuple(answer.pieces[part]), tuple(answer.shown[part]),
            tuple(span.h_epoch for span in spans), tuple(span.beta for span in spans),
        ))  # fmt: skip

    def _reading_of(self, answer: CandidateView) -> Reading:
        if self._reading.uid != answer.uid:
            self._reading = Reading(answer.uid)
        return self._reading

    # --- silence -----------------------------------------------------------------------------------------------------------

    async def arm(self, on: bool) -> None:
        """Let silence count from here on, or no longer."""
        self.silence = on
        if not on:
            await self._keep_silence()
        self._session.tell(Change.MACHINE)

    async def _keep_silence(self) -> None:
        """Write down the stretch in which it counted, if anything was shown in it."""
        answer = self.answer
        if answer is None:
            return
        reading = self._reading_of(answer)
        since, reading.armed = reading.armed, None
        if since is None or answer.kept or not any(shown >= since for shown in answer.shown):
            return
        await self._record_shown(answer)
        await self._session.judging.append(Arm(self._session.set.uid, answer.uid, False, self._now, since))

    # --- how late they come ----------------------------------------------------------------------------------------------

    @property
    def window(self) -> Calibration:
        """How long after a word this operator's taps come."""
        known = self._session.record.calibrations()
        return known[-1] if known else Calibration()

    async def calibrate(self, found: Calibration) -> None:
        """Later taps are credited by this window."""
        await self._session.opened.append(found)

    async def _follow_connection(self) -> None:
        """The window that was measured over this connection; where there is none, the usual one, and a word about it."""
        here, known = connection(), self._session.record.calibrations()
        if known and known[-1].connection == here:
            return
        measured = next((window for window in reversed(known) if window.connection == here and window.delays), None)
        if measured is None:
            self._session.say(f"how late your taps come ({here}) is not measured: ctrl+p, calibrate taps")
        if known or here != Calibration().connection:
            await self.calibrate(measured or Calibration(connection=here))

    def count_unlearned(self) -> None:
        """What could not be learned from was a tap."""
        self.dropped += isinstance(self._session.last_commit, Tap)


def read_by(shown: Sequence[float]) -> float:
    """When the last word of an answer has had its turn: as long as is typical for the answer."""
    steps = [b - a for a, b in pairwise(shown)]
    return shown[-1] + (median(steps) if steps else 0.0)


def _span_at(answer: CandidateView, position: int) -> SteeredSpan:
    """What steered the token there."""
    return next((span for span in reversed(answer.spans) if span.start <= position), SteeredSpan(0, 0, 0.0))
