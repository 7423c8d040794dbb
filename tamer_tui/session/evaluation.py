"""For commands without a screen: answers that are not recorded, and training that is granted and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from learners import protocol
from learners.protocol import Idle
from storage.records import Policy, Prompt, new_uid
from tamer_tui.session_store import SessionError
from tamer_tui.views import CandidateView

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

DRAW_BATCH = 48
"""Answers in one `generate` line."""


class Evaluation:
    """Draws and grants."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._idle: asyncio.Future[Idle] | None = None

    async def draw(self, prompts: Sequence[Prompt], policies: Sequence[Policy], seeds: Sequence[int]) -> list[CandidateView]:
        """One answer to each prompt by the policy beside it, in batches, not recorded. Raises SessionError when the engine dies."""
        engine, streams = self._session.engine, self._session.sets.streams
        drawn: list[CandidateView] = []
        for start in range(0, len(prompts), DRAW_BATCH):
            engine.raise_if_dead()
            part = slice(start, start + DRAW_BATCH)
            views = [CandidateView(new_uid(), 0, policy, seed) for policy, seed in zip(policies[part], seeds[part], strict=True)]
            streams.ask(views, [prompt.messages for prompt in prompts[part]])
            await streams.wait(view.uid for view in views)
            engine.raise_if_dead()
            drawn += views
        return drawn

    async def grant(self, seconds: float | None = None, steps: int | None = None, flush: bool = False) -> Idle:
        """Metered: let the learner train this much, and wait. With `flush`, bring what was trained to the gate."""
        self._session.engine.raise_if_dead()
        self._idle = asyncio.get_running_loop().create_future()
        self._session.engine.send(protocol.Set(train_seconds=seconds, train_steps=steps, flush=flush))
        idle = await self._idle
        await self._session.settle()
        return idle

    def end_grant(self, idle: Idle) -> None:
        """What was granted is used up."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(idle)

    def break_grant(self, reason: SessionError) -> None:
        """The engine is gone."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_exception(reason)
            self._idle.exception()  # seen: nobody may be waiting
