"""A program taps in the operator's place, on a simulated clock: nothing waits for real time.

It reads each piece as it appears at reading pace, answers late and not always, as people do: after 0.2 to 0.8 s, and of ten answers three are missed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tamer_tui.operators import OperatorError
from tamer_tui.session import Session, SessionError

Tapper = Callable[[str, str, str], float]
"""Prompt, what is on the screen with the newest piece, and that piece ('' once at the end) -> above 0 to praise, below to blame, 0 for no tap."""
TOKENS_PER_SECOND = 6.0
EARLIEST, LATEST = 0.2, 0.8
"""Seconds from a piece to the tap that it caused, drawn evenly."""
MISSED = 0.3
"""Share of the taps that never come."""
BETWEEN_ANSWERS = 5.0
"""Seconds."""


@dataclass
class TapReader:
    """Reads one answer after another. The clock goes on from answer to answer."""

    session: Session
    tapper: Tapper
    name: str  # of the tapper, for complaints
    random: random.Random
    most: int | None = None  # taps in all
    taps: int = 0
    now: float = 0.0
    _coming: list[tuple[float, int, float]] = field(default_factory=list)  # time, a number that keeps the order, value

    async def read(self) -> None:
        """Open the next prompt and read its answer to the end."""
        session = self.session
        await session.taps.open_next()
        answer = session.taps.answer
        if answer is None:
            raise SessionError("there is no answer to tap")
        self._coming.clear()
        while await self._more():
            if answer.refused:
                break
            n = len(answer.shown)
            step = self.now + 1 / TOKENS_PER_SECOND
            if n >= len(answer.pieces):
                self._ask("".join(answer.pieces), "")
                break
            if await self._taps_until(step):  # the rest is another one now
                continue
            self.now = step
            session.taps.show(n + 1, step, wall=step)
            if answer.pieces[n]:
                self._ask("".join(answer.pieces[: n + 1]), answer.pieces[n])
        self.now += 1 / TOKENS_PER_SECOND
        while self._coming:  # the answer is all there: late taps change it no more
            await self._taps_until(self._coming[0][0])
        await session.taps.finish()
        self.now += BETWEEN_ANSWERS

    async def _more(self) -> bool:
        """Wait until what is to be shown next is there, and stays."""
        view = await self.session.sets.wait_ended()
        return bool(view.candidates)

    def _ask(self, shown: str, piece: str) -> None:
        """Let the tapper see what is new."""
        try:
            value = float(self.tapper(self.session.current.prompt.text if self.session.current else "", shown.lstrip(), piece))
        except Exception as error:
            raise OperatorError(f"{self.name} failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")) from error
        if not -10 <= value <= 10:
            raise OperatorError(f"{self.name} gave {value}: a tap is a number from -10 to 10")
        if value and self.random.random() >= MISSED:
            heapq.heappush(self._coming, (self.now + self.random.uniform(EARLIEST, LATEST), len(self._coming), value))

    async def _taps_until(self, seconds: float) -> bool:
        """The next tap, if it comes by then. Whether one did."""
        if not self._coming or self._coming[0][0] > seconds or (self.most is not None and self.taps >= self.most):
            self._coming = [] if self.most is not None and self.taps >= self.most else self._coming
            return False
        self.now, _, value = heapq.heappop(self._coming)
        seq = await self.session.taps.tap(value, "+" if value > 0 else "-", self.now, wall=self.now)
        self.taps += seq is not None
        return True
