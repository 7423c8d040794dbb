"""The tap view: one answer at reading pace, its words praised and blamed as they appear."""

from __future__ import annotations

import time

from storage.records import Calibration
from tamer_tui.debounce import Debounce, Press
from tamer_tui.screens.arena_view import PACES
from tamer_tui.screens.arena_writing import WritingArena
from tamer_tui.screens.calibrate import CalibrateScreen
from tamer_tui.session import Session
from tamer_tui.views import Change

TAP_PACE = 6.0
"""Tokens a second: about how fast people read, and slow enough that a delayed tap falls on few of them."""


class TappingArena(WritingArena):
    """What `k`, `+` and `-` do. Display times are taken here, on the clock of the keys."""

    session: Session

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.tap_view = False
        self._arena_pace = self.pace
        self._debounce = Debounce()

    async def action_tap_view(self) -> None:
        if self.session.current is None:
            return
        self.tap_view = not self.tap_view
        if self.tap_view:
            self._arena_pace, self.pace = self.pace, PACES.index(TAP_PACE)
        else:
            self.pace = self._arena_pace
        if not await self.advance():
            self.tap_view = not self.tap_view

    async def action_tap(self, value: int) -> None:
        """A key that is held is one tap: it counts when it has been let go."""
        answer = self.session.taps.answer
        if answer is None:
            return
        await self._tap(self._debounce.press(float(value), "+" if value > 0 else "-", time.monotonic()))

    async def action_silence(self) -> None:
        on = not self.session.taps.silence
        if await self._try(lambda: self.session.taps.arm(on)):
            self.say("silence counts: in the tap view a word that you let pass is worth 0" if on else "silence says nothing again")
            self.refresh_all()

    def action_calibrate(self) -> None:
        if self.session.database is None:
            return

        async def measured(found: Calibration | None) -> None:
            if found is not None and await self._try(lambda: self.session.taps.calibrate(found)):
                self.say(f"✓ your taps come {found.low:.2f} to {found.high:.2f} s after the word: taps are credited by that from now on")

        self.app.push_screen(CalibrateScreen(), measured)

    async def advance(self) -> bool:
        """The next prompt, in the view that is on."""
        return await self._try(self.session.taps.open_next if self.tap_view else self.session.sets.open_next)

    def show_more(self) -> None:
        """After each frame: what has appeared, appeared now; and a key that was let go is a tap."""
        now = time.monotonic()
        if self.session.taps.answer is not None and self._panes:
            self.session.taps.show(self._panes[0].tokens_shown, now)
        if (press := self._debounce.settle(now)) is not None:
            self.run_worker(self._tap(press))

    def complete_display(self) -> None:
        super().complete_display()
        self.show_more()

    async def _tap(self, press: Press | None) -> None:
        if press is None:
            return
        seq: list[int | None] = []

        async def tap() -> None:
            seq.append(await self.session.taps.tap(press.value, press.key, press.seconds, press.repeat))

        if not await self._try(tap):
            return
        mark = "▲" if press.value > 0 else "▼"
        self.say(f"✓ {mark}" if seq[0] is not None else f"{mark} not counted: it was about nothing on the screen")

    def _changed(self, change: Change) -> None:
        super()._changed(change)
        if self.is_mounted and change in (Change.COMMITTED, Change.SET) and self._panes and self.session.taps.answer is not None:
            self._panes[0].mark(self.session.taps.marks())
