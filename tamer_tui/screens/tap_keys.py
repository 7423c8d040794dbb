"""What `+` and `-` do: a key that is held is one tap, and it counts when it has been let go."""

from __future__ import annotations

import math
import time

from textual.dom import DOMNode

from storage.records import Calibration
from tamer_tui.debounce import DEBOUNCE_SECONDS, Debounce, Press
from tamer_tui.screens.attempt import Attempt
from tamer_tui.screens.calibrate import CalibrateScreen
from tamer_tui.session import Session


class TapKeys:
    """Between the keys of a screen and the taps of a session."""

    def __init__(self, session: Session, screen: DOMNode, attempt: Attempt) -> None:
        self._session, self._screen, self._attempt = session, screen, attempt
        self._debounce = Debounce()

    async def press(self, value: int) -> None:
        """A key came, or came again."""
        answer = self._session.taps.answer
        if answer is None:
            return
        before = self._debounce.press(float(value), "+" if value > 0 else "-", answer.uid, time.monotonic())
        self._screen.set_timer(1.2 * DEBOUNCE_SECONDS, self._settle)
        await self._tap(before)

    async def _settle(self) -> None:
        await self._tap(self._debounce.settle(time.monotonic()))

    async def finish(self) -> None:
        """Another key came: the tap in the making is made, before anything else happens to its answer."""
        await self._tap(self._debounce.settle(math.inf))

    async def _tap(self, press: Press | None) -> None:
        if press is None:
            return
        mark = "▲" if press.value > 0 else "▼"

        async def tap() -> str:
            seq = await self._session.taps.tap(press.value, press.key, press.seconds, press.repeat, of=press.answer)
            return f"✓ {mark}" if seq is not None else f"{mark} not counted: it was about nothing on the screen"

        await self._attempt(tap, "")

    def calibrate(self) -> None:
        """Measure how late they come."""

        async def measured(found: Calibration | None) -> None:
            if found is not None:
                said = f"✓ your taps come {found.low:.2f} to {found.high:.2f} s after the word: taps are credited by that from now on"
                await self._attempt(lambda: self._session.taps.calibrate(found), said)

        if self._session.database is not None:
            self._screen.app.push_screen(CalibrateScreen(), measured)
