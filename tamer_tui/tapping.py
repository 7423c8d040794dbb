"""TAMER: one answer appears at reading pace, and the operator praises and blames its words as they come.

The terminal's clock is the one that counts: when a token appeared and when a key was pressed are taken on it and written down raw. A tap is on disk
first; then Ĥ learns from it, and what was not on the screen yet is dropped and drawn anew. So the sentence that is criticised bends.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median

from learners import protocol
from storage.records import Arm, Calibration, Shown, Tap
from tamer_tui.calibration import connection
from tamer_tui.session import Session, SessionError
from tamer_tui.views import CandidateView, Change, EngineState, SetView, SteeredSpan

DEBOUNCE_SECONDS = 0.08
"""Presses closer than this are one: a key that is held."""
SLEPT_SECONDS = 0.5
"""By which the two clocks may differ between a word and its tap; more, and the machine slept in between."""


@dataclass
class Press:
    """One tap in the making."""

    value: float
    key: str
    seconds: float  # of the first press
    last: float
    repeat: int = 1


class Debounce:
    """Makes one tap of a held key."""

    def __init__(self) -> None:
        self._held: Press | None = None

    def press(self, value: float, key: str, seconds: float) -> Press | None:
        """A key came. Returns the tap before it, if this is another one."""
        held = self._held
        if held is not None and held.key == key and seconds - held.last <= DEBOUNCE_SECONDS:
            held.last, held.repeat = seconds, held.repeat + 1
            return None
        self._held = Press(value, key, seconds, seconds)
        return held

    def settle(self, seconds: float) -> Press | None:
        """The tap that is complete by now."""
        held = self._held
        if held is None or seconds - held.last <= DEBOUNCE_SECONDS:
            return None
        self._held = None
        return held


class TapSession(Session):
    """A sitting in which answers can also be tapped. Times are seconds on one monotonic clock that the caller reads."""

    _drift: float | None = None  # wall clock less monotonic clock, when the last token appeared
    _recorded = 0  # tokens of the current answer whose appearance is on disk
    _armed: float | None = None  # since when it has counted for the current answer
    _now = 0.0  # when the screen was looked at last

    @property
    def tapping(self) -> CandidateView | None:
        """The answer that is there to be tapped."""
        view = self.current
        return view.candidates[0] if view is not None and view.purpose == "tap" else None

    async def next_answer(self) -> None:
        """Open the next prompt with one answer, to be tapped."""
        prompt = self._ready_dealer().next_prompt()
        if prompt is None:
            raise SessionError("there is no prompt to open", "press n to type one")
        await self._follow_connection()
        await self._generate(*self._ready_dealer().single(prompt, self._sitting))

    async def _follow_connection(self) -> None:
        """The window that was measured over this connection; where there is none, the usual one, and a word about it."""
        here, known = connection(), self.record.calibrations()
        if known and known[-1].connection == here:
            return
        measured = next((window for window in reversed(known) if window.connection == here and window.delays), None)
        if measured is None:
            self._say(f"how late your taps come ({here}) is not measured: ctrl+p, calibrate taps")
        if known or here != Calibration().connection:
            await self.calibrate(measured or Calibration(connection=here))

    def show(self, n: int, seconds: float, wall: float | None = None) -> None:
        """The first `n` tokens of the answer are on the screen now."""
        answer, self._now = self.tapping, seconds
        if answer is not None and self.silence and self._armed is None:
            self._armed = seconds
        if answer is not None and n > len(answer.shown):
            answer.shown += [seconds] * (n - len(answer.shown))
            self._drift = (time.time() if wall is None else wall) - seconds

    async def tap(self, value: float, key: str, seconds: float, repeat: int = 1, wall: float | None = None) -> int | None:
        """Praise (above 0) or blame what is on the screen. Its seq; None for a tap that could be about nothing there, which is counted."""
        answer = self.tapping
        wall = time.time() if wall is None else wall
        if answer is None or not answer.shown or self._slept(wall - seconds):
            self.taps_dropped += 1
            self._tell(Change.NOTICE)
            return None
        whole = self.complete and seconds > read_by(answer.shown) + self.window.high
        going_on = not self.complete
        if going_on:
            answer.drop_unseen()  # at once: nothing of the old rest may appear while the tap is written down
        await self._record_shown(answer)
        stamp = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
        seq = await self._append(Tap(self._set().uid, answer.uid, value, key, seconds, stamp, repeat, whole))
        if going_on and self.engine_state is EngineState.READY:
            self._streams.redraw(answer)
        self._tell(Change.COMMITTED)
        return seq

    async def arm(self, on: bool) -> None:
        """Let silence count from here on, or no longer."""
        self.silence = on
        if not on:
            await self._keep_silence()

    async def _keep_silence(self) -> None:
        """Write down the stretch in which it counted, if anything was shown in it."""
        answer, since, self._armed = self.tapping, self._armed, None
        if answer is None or since is None or answer.kept or not any(shown >= since for shown in answer.shown):
            return
        await self._record_shown(answer)
        await self._append(Arm(self._set().uid, answer.uid, False, self._now, since))

    def marks(self) -> list[tuple[int, float]]:
        """Of each live tap on the answer: how many of its tokens were on the screen, and its value."""
        answer = self.tapping
        found = self.record.taps(answer.uid) if answer is not None else []
        return [(bisect_right(answer.shown, tap.seconds), tap.value) for _, tap in found] if answer is not None else []

    @property
    def complete(self) -> bool:
        """Whether the whole answer is on the screen."""
        answer = self.tapping
        return answer is not None and answer.ended is not None and not answer.redrawing and len(answer.shown) >= len(answer.pieces)

    @property
    def window(self) -> Calibration:
        """How long after a word this operator's taps come."""
        known = self.record.calibrations()
        return known[-1] if known else Calibration()

    async def calibrate(self, found: Calibration) -> None:
        """Later taps are credited by this window."""
        await self._open_store().append(found)

    async def finish(self) -> None:
        """Leave the answer as it stands on the screen, and write it down."""
        answer = self.tapping
        if answer is None or answer.kept:
            return
        if answer.uid in self._streams:
            self._streams.stop([answer.uid])
            await self._streams.wait([answer.uid])
        if len(answer.shown) < len(answer.pieces):  # nobody saw the rest
            answer.drop_unseen()
            answer.break_off()
        await self._keep_silence()
        await self._record_shown(answer)
        self._keep(answer)

    async def close(self) -> None:
        with suppress(SessionError):
            await self.finish()
        await super().close()

    async def _leave(self) -> None:
        await self.finish()
        self._recorded, self._drift, self._armed = 0, None, None
        await super()._leave()

    async def _end_current(self) -> None:
        await self.finish()
        await super()._end_current()

    def _from_record(self, set_uid: str) -> SetView:
        view = super()._from_record(set_uid)
        for answer in view.candidates if view.purpose == "tap" else ():
            if (shown := self.record.shown(answer.uid)) is not None:
                answer.pieces, answer.shown = list(shown.texts), list(shown.seconds)
            answer.paced = answer.kept = True
        return view

    def _learn(self, event: protocol.Learned | protocol.Metrics | protocol.Acting | protocol.Idle) -> None:
        if isinstance(event, protocol.Learned) and event.dropped and isinstance(self.last_commit, Tap):
            self.taps_dropped += 1
        super()._learn(event)

    def _slept(self, drift: float) -> bool:
        return self._drift is not None and abs(drift - self._drift) > SLEPT_SECONDS

    async def _record_shown(self, answer: CandidateView) -> None:
        """What has appeared since the last time; it will not change any more."""
        start, stop = self._recorded, len(answer.shown)
        if start >= stop or answer.kept:
            return
        spans = [_span_at(answer, i) for i in range(start, stop)]
        part = slice(start, stop)
        self._recorded = stop
        await self._open_store().write_shown(Shown(
            self._set().uid, answer.uid, start, tuple(answer.token_ids[part]), tuple(answer.pieces[part]), tuple(answer.shown[part]),
            tuple(span.h_epoch for span in spans), tuple(span.beta for span in spans),
        ))  # fmt: skip


def read_by(shown: Sequence[float]) -> float:
    """When the last word of an answer has had its turn: as long as is typical for the answer."""
    steps = [b - a for a, b in pairwise(shown)]
    return shown[-1] + (median(steps) if steps else 0.0)


def _span_at(answer: CandidateView, position: int) -> SteeredSpan:
    """What steered the token there."""
    return next((span for span in reversed(answer.spans) if span.start <= position), SteeredSpan(0, 0, 0.0))
