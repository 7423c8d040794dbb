"""What `+` and `-` do: a key that is held is one tap, and it counts when it has been let go."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from textual.dom import DOMNode

from tamer_tui.debounce import DEBOUNCE_SECONDS, Debounce, Press
from tamer_tui.session import Session

Attempt = Callable[[Callable[[], Awaitable[object]], str], Awaitable[bool]]


class TapKeys:
    """Between the keys of a screen and the taps of a session."""

    def __init__(self, session: Session, screen: DOMNode, attempt: Attempt) -> None:
        self._session, self._screen, self._attempt = session, screen, attempt
        self._debounce = Debounce()

    async def press(self, value: int) -> None:
        """A key came, or came again."""
        if self._session.taps.answer is None:
            return
        before = self._debounce.press(float(value), "+" if value > 0 else "-", time.monotonic())
        self._screen.set_timer(1.2 * DEBOUNCE_SECONDS, self._settle)
        await self._tap(before)

    async def _settle(self) -> None:
        await self._tap(self._debounce.settle(time.monotonic()))

    async def _tap(self, press: Press | None) -> None:
        if press is None:
            return
        mark = "▲" if press.value > 0 else "▼"

        async def tap() -> str:
            seq = await self._session.taps.tap(press.value, press.key, press.seconds, press.repeat)
            return f"✓ {mark}" if seq is not None else f"{mark} not counted: it was about nothing on the screen"

        await self._attempt(tap, "")
