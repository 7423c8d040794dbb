"""Answers for many clients from one engine, and what they say about them.

Requests wait in a queue; those that ask the same model with the same sampling are drawn in one batch. Nothing that is drawn is written down before
somebody judges it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace

from storage.journal import JournalError
from storage.records import BASE_VERSION, Correction, Policy, Prompt, Ranking, Rating, SampleSet, new_uid
from storage.thoughts import split_thought
from tamer_tui.serving.requests import Answered, Feedback, Refused, Wanted
from tamer_tui.session import CandidateView, Change, EngineState, Session, SessionError
from tamer_tui.session.chat import BAD, GOOD
from tamer_tui.session.evaluation import DRAW_BATCH

ACTING = "acting"
MOST_WAITING = 512
"""Answers that may wait or be drawn at once; who comes then is asked to come again."""
REMEMBERED = 1000
"""Completions that can still be judged."""


@dataclass(eq=False)
class Drawing:
    """The answers to one request. `moved` is set whenever one of them grew or ended."""

    wanted: Wanted
    views: list[CandidateView]
    id: str = field(default_factory=lambda: f"chatcmpl-{new_uid()}")
    created: int = field(default_factory=lambda: int(time.time()))
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Refused | None = None
    left: bool = False  # nobody waits for it any more
    sets: dict[int, str] = field(default_factory=dict)  # by choice: the set under which it was written down

    @property
    def begun(self) -> bool:
        """Whether it is known if the model can read the conversation."""
        return self.failed is not None or all(view.started is not None or view.ended is not None for view in self.views)

    @property
    def ended(self) -> bool:
        return self.failed is not None or all(view.ended is not None for view in self.views)

    def check(self) -> None:
        """Raises Refused where it cannot be answered."""
        if self.failed is not None:
            raise self.failed
        for view in self.views:
            if view.refused:
                raise Refused(view.refused)
            if view.cut:
                raise Refused(f"the conversation is {view.cut} tokens longer than the model can read", code="context_length_exceeded")


class Desk:
    """One engine, many clients. Everything runs in the session's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: deque[Drawing] = deque()
        self._drawn: list[Drawing] = []
        self._given: OrderedDict[str, Drawing] = OrderedDict()
        self._compared: dict[tuple[Answered, Answered], str] = {}
        self._work = asyncio.Event()
        session.observe(self._changed)

    def models(self) -> list[str]:
        """What can be asked for."""
        return [ACTING, BASE_VERSION, *self._versions()]

    def _versions(self) -> dict[str, str]:
        """Id -> hash of those that are kept, newest first."""
        return {version.id: version.sha256 for version in self._session.record.versions() if version.published}

    # --- drawing -------------------------------------------------------------------------------------------------------

    async def ask(self, wanted: Wanted) -> Drawing:
        """Wait in the queue until the answers begin. Raises Refused."""
        if wanted.model not in self.models():
            raise Refused(f"there is no model {wanted.model!r}: {', '.join(self.models())}", 404, "model_not_found")
        if sum(len(each.views) for each in (*self._waiting, *self._drawn)) + len(wanted.seeds) > MOST_WAITING:
            raise Refused("too many requests wait already", 429, "rate_limit_exceeded")
        policy: Policy = "acting" if wanted.model == ACTING else "base" if wanted.model == BASE_VERSION else "adapter"
        version = (wanted.model, self._versions()[wanted.model]) if policy == "adapter" else ("", None)
        views = [CandidateView(new_uid(), slot, policy, seed, version=version[0], sha256=version[1]) for slot, seed in enumerate(wanted.seeds)]
        drawing = Drawing(wanted, views)
        self._waiting.append(drawing)
        self._work.set()
        try:
            async for _ in self._moves(drawing):
                if drawing.begun:
                    break
            drawing.check()
        except BaseException:
            self.leave(drawing)
            raise
        return drawing

    async def follow(self, drawing: Drawing) -> AsyncIterator[None]:
        """Once for everything that came, until all has; stop words end an answer. What is left unfinished is not drawn on."""
        try:
            async for _ in self._moves(drawing):
                self._end_at_stop_words(drawing)
                yield
            self._given[drawing.id] = drawing
            while len(self._given) > REMEMBERED:
                self._given.popitem(last=False)
        finally:
            self.leave(drawing)

    def leave(self, drawing: Drawing) -> None:
        """Nobody waits for these answers any more: what is being drawn of them ends."""
        drawing.left = True
        if unfinished := [view.uid for view in drawing.views if view.uid in self._session.sets.streams]:
            self._session.sets.streams.stop(unfinished)

    async def _moves(self, drawing: Drawing) -> AsyncIterator[None]:
        while True:
            drawing.moved.clear()
            ended = drawing.ended
            yield
            if ended:
                return
            await drawing.moved.wait()

    def _end_at_stop_words(self, drawing: Drawing) -> None:
        for view in drawing.views:
            said = split_thought("".join(view.pieces)).answer
            if drawing.wanted.stop and view.uid in self._session.sets.streams and stopped_at(said, drawing.wanted.stop) is not None:
                self._session.sets.streams.stop([view.uid])

    def _changed(self, change: Change) -> None:
        if change in (Change.TOKENS, Change.ENDED, Change.ENGINE):
            dead = self._session.engine_state is EngineState.DEAD
            for drawing in self._drawn:
                if dead and any(view.ended == "stopped" for view in drawing.views):  # the engine broke it off: that is no end of an answer
                    drawing.failed = Refused("the engine ended while it was answering", 503, "server_error")
                drawing.moved.set()

    async def run(self) -> None:
        """Draw what is asked for, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            while batch := list(self._next_batch()):
                await self._draw(batch)

    def _next_batch(self) -> Iterator[Drawing]:
        """The oldest request, and those that go with it."""
        kept: deque[Drawing] = deque()
        first, n = None, 0
        for drawing in self._waiting:
            if drawing.left:
                continue
            wanted = drawing.wanted
            first = first or wanted
            if (wanted.model, wanted.sampling) == (first.model, first.sampling) and (not n or n + len(drawing.views) <= DRAW_BATCH):
                n += len(drawing.views)
                yield drawing
            else:
                kept.append(drawing)
        self._waiting = kept

    async def _draw(self, batch: list[Drawing]) -> None:
        self._drawn = batch
        try:
            await self._be_ready(batch[0].wanted.model)
            views = [(view, drawing.wanted.messages) for drawing in batch if not drawing.left for view in drawing.views]
            streams = self._session.sets.streams
            streams.ask([view for view, _ in views], [messages for _, messages in views], batch[0].wanted.sampling)
            await streams.wait([view.uid for view, _ in views])
            self._session.engine.raise_if_dead()
        except (SessionError, JournalError) as error:
            for drawing in batch:
                drawing.failed = Refused(str(error), 503, "server_error")
        finally:
            for drawing in batch:
                drawing.moved.set()
            self._drawn = []

    async def _be_ready(self, model: str) -> None:
        """The engine runs, and has what is asked for."""
        session = self._session
        if session.engine_state is EngineState.DEAD:
            await session.engine.restart()
            await session.wait_ready()
        if (version := self._versions().get(model)) is not None:
            await session.machine.lend([version])

    # --- judging -------------------------------------------------------------------------------------------------------

    async def judge(self, said: Feedback) -> int:
        """Write it down; its number in the log. Raises Refused."""
        try:
            if said.better is not None and said.worse is not None:
                return await self._compare(said.better, said.worse)
            drawing, view = self._answer(Answered(said.id, said.choice))
            if said.choice not in drawing.sets:
                drawing.sets[said.choice] = self._write_down(drawing.wanted, [view])
            set_uid = drawing.sets[said.choice]
            if said.text is None:
                return await self._session.judging.append(Rating(set_uid, f"{set_uid}0", GOOD if said.thumb == "up" else BAD))
            if not said.text.strip() or said.text == view.said:
                raise Refused("the text is empty, or the answer's own")
            return await self._session.judging.append(Correction(set_uid, f"{set_uid}0", said.text))
        except SessionError as error:
            raise Refused(str(error), 503, "server_error") from error

    async def _compare(self, better: Answered, worse: Answered) -> int:
        (of, good), (other, bad) = self._answer(better), self._answer(worse)
        if good is bad or of.wanted.messages != other.wanted.messages:
            raise Refused("two answers to the same conversation can be compared")
        first, second = sorted((better, worse), key=lambda each: (each.id, each.choice))
        if (first, second) not in self._compared:
            views = [good, bad] if better == first else [bad, good]
            self._compared[first, second] = self._write_down(of.wanted, views)
        set_uid = self._compared[first, second]
        if any(isinstance(logged.judgement, Ranking) for logged in self._session.record.live(set_uid)):
            raise Refused("these two answers were compared already", 409, "conflict")
        slots = (0, 1) if better == first else (1, 0)
        return await self._session.judging.append(Ranking(set_uid, {f"{set_uid}{slots[0]}": 1, f"{set_uid}{slots[1]}": 2}))

    def _answer(self, named: Answered) -> tuple[Drawing, CandidateView]:
        drawing = self._given.get(named.id)
        if drawing is None or not 0 <= named.choice < len(drawing.views):
            raise Refused(f"the answer {named.choice} of {named.id!r} is not known any more", 404, "not_found")
        return drawing, drawing.views[named.choice]

    def _write_down(self, wanted: Wanted, views: list[CandidateView]) -> str:
        """As a set of its own; its uid. Of an answer that a stop word ended, what the client saw."""
        session, uid = self._session, new_uid()
        session.opened.keep(SampleSet(uid, session.uid, Prompt(wanted.messages, "chat"), len(views), "chat"), session.say)
        for slot, view in enumerate(views):
            end = stopped_at(view.said, wanted.stop)
            if end is not None:
                text = view.text[: len(view.text) - len(view.said) + end]
                view = replace(view, text=text, ended="stopped", token_ids=[], logprobs=[], unbiased_logprobs=[], times=[], thought_tokens=None)
            session.opened.keep(replace(view, uid=f"{uid}{slot}", set_uid=uid, slot=slot).response(), session.say)
        return uid


def stopped_at(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the first of these words begins; None where there is none."""
    return min((place for word in stop if (place := text.find(word)) >= 0), default=None)
