"""Answers that are being drawn: asked for, grown token by token, waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from learners import protocol
from learners.protocol import AnswerRequest, Command
from storage.records import Message, Sampling
from tamer_tui.views import CandidateView

MOST_ASKED = 256
"""Requests that are kept."""


class AnswerStreams:
    """Keeps the views of unfinished answers up with the engine's events."""

    def __init__(self, send: Callable[[Command], None], sampling: Callable[[], Sampling]) -> None:
        self._send, self._sampling = send, sampling
        self._growing: dict[str, CandidateView] = {}
        self._asked: dict[str, tuple[AnswerRequest, Sampling]] = {}  # the latest: the rest of an answer that is complete may be drawn anew
        self._ends: dict[str, asyncio.Future[None]] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._growing

    def ask(self, views: Sequence[CandidateView], conversations: Sequence[tuple[Message, ...]], sampling: Sampling | None = None) -> None:
        """Draw these answers in one batch, as the sitting draws unless it is said how."""
        loop, sampling = asyncio.get_running_loop(), sampling or self._sampling()
        for view in views:
            self._growing[view.uid] = view
            self._ends[view.uid] = loop.create_future()
            view.sampling = sampling if view.temperature is None else replace(sampling, temperature=view.temperature)
        pairs = zip(views, conversations, strict=True)
        candidates = tuple(
            AnswerRequest(
                uid=view.uid, seed=view.seed, messages=messages, policy=view.policy, temperature=view.temperature,
                version=view.version, sha256=view.sha256,
            )
            for view, messages in pairs
        )  # fmt: skip
        asked = self._asked | {request.uid: (request, sampling) for request in candidates}
        self._asked = dict(list(asked.items())[-MOST_ASKED:])
        self._send(protocol.Generate(requests=candidates, sampling=sampling))

    def ask_again(self) -> None:
        """An engine that knows nothing of what is being drawn goes on with it, from the tokens that came."""
        by_sampling: dict[Sampling, list[AnswerRequest]] = {}
        for view in self._growing.values():
            if view.uid not in self._asked:
                continue
            request, sampling = self._asked[view.uid]
            by_sampling.setdefault(sampling, []).append(replace(request, prefix_ids=tuple(view.token_ids)))
            view.redrawing = min(view.redrawing, 1)  # it begins once
        for sampling, requests in by_sampling.items():
            self._send(protocol.Generate(requests=tuple(requests), sampling=sampling))

    def redraw(self, view: CandidateView) -> None:
        """Draw the rest of an answer anew, from what is on the screen. Until that begins, what comes still belongs to the old rest."""
        view.drop_unseen()
        view.redrawing += 1
        if view.uid not in self._growing:
            self._growing[view.uid] = view
            self._ends[view.uid] = asyncio.get_running_loop().create_future()
        self._send(protocol.ResumeFrom(uid=view.uid, n_tokens=len(view.shown)))

    def stop(self, uids: Iterable[str]) -> None:
        """End these where they are."""
        if drawn := tuple(uid for uid in uids if uid in self._growing):
            self._send(protocol.Stop(uids=drawn))

    async def wait(self, uids: Iterable[str]) -> None:
        """Until these are complete; those that are not being drawn are."""
        await asyncio.gather(*(asyncio.shield(self._ends[uid]) for uid in uids if uid in self._ends))

    @property
    def drawn(self) -> tuple[str, ...]:
        """Uids of all that are being drawn."""
        return tuple(self._growing)

    def take(self, event: protocol.Started | protocol.Tokens | protocol.Ended) -> CandidateView | None:
        """Returns the view of an answer that is now complete."""
        if isinstance(event, protocol.Tokens):
            for piece in event.pieces:
                if (view := self._growing.get(piece.uid)) and not view.redrawing:
                    view.grow(piece)
            return None
        known = self._growing.get(event.uid)
        if known is None:
            return None
        if isinstance(event, protocol.Started):
            known.begin(event)
            return None
        if known.redrawing:
            return None
        known.end(event)
        self._release(known)
        return known

    def give_up(self, uid: str, why: str) -> CandidateView | None:
        """The engine cannot go on with an answer: what came is the answer; it was refused where nothing came."""
        view = self._growing.get(uid)
        if view is not None:
            view.refused = "" if view.token_ids else why
            view.break_off()
            self._release(view)
        return view

    def break_off(self) -> list[CandidateView]:
        """The engine is gone: what there is of each answer is the answer. Returns their views."""
        broken = list(self._growing.values())
        for view in broken:
            view.break_off()
            self._release(view)
        return broken

    def _release(self, view: CandidateView) -> None:
        self._growing.pop(view.uid, None)
        end = self._ends.pop(view.uid, None)
        if end is not None and not end.done():
            end.set_result(None)
