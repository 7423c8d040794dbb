"""A sitting: what is known in it, who is told of changes, and the parts that do the work.

Knows neither Textual nor torch. Everything runs in one asyncio loop. Methods that judge return after the commit to disk; what cannot be done is a
SessionError with one clear line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path

from learners import protocol
from storage.blind import BlindCount
from storage.queries import Record
from storage.records import Judgement, Prompt, Sampling, new_uid
from tamer_tui import endings
from tamer_tui.dealing import Split
from tamer_tui.learning_status import LearningStatus
from tamer_tui.session.chat import Chat
from tamer_tui.session.duels import Duels
from tamer_tui.session.engine import EngineConnection, EngineLink
from tamer_tui.session.evaluation import Evaluation
from tamer_tui.session.judging import Judging
from tamer_tui.session.machine import Machine
from tamer_tui.session.sets import Sets
from tamer_tui.session.taps import Taps
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.views import Change, EngineState, Observer, SessionSettings, SetView

CLOSING_SECONDS = 0.5
"""That a tapped answer has to end in."""


class Session:
    """State that the parts share, and the parts: `engine`, `sets`, `judging`, `taps`, `chat`, `duels`, `machine`, `evaluation`."""

    def __init__(
        self,
        settings: SessionSettings,
        engine: Callable[[], EngineConnection],
        database: Path | Callable[[str], Path],
        starter: Callable[[bool], Sequence[Prompt]] | None = None,
    ) -> None:
        """`engine` makes a new engine each time it is (re)started. `database` is a path, or says where the one for a base hash lies. `starter`
        gives prompts when the settings have none, by whether the model has a chat template."""
        self.settings, self.starter = settings, starter
        self.uid = new_uid()
        self.current: SetView | None = None
        self.loading: protocol.Loading | None = None
        self.ready: protocol.Ready | None = None
        self.engine_state = EngineState.STARTING
        self.notice = ""
        self.standing = ""  # that, after what else was said at the same time
        self.notes: list[str] = []  # what the engine remarked in this sitting, such as how the model was stored
        self.last_commit: Judgement | None = None
        self.appraisals: dict[str, protocol.Appraisal] = {}  # of the current set's answers, as they were asked for last
        self.appraised_by: protocol.RewardLearner = "human_reward"
        self.status = LearningStatus(settings.bias, settings.nats)
        self.split = Split.of(settings.prompts, settings.held_out)
        self.blind = self.blind_all = self.blind_adapter = BlindCount(0, 0, 0, 0, 0.0, 1.0)
        self.judged = 0
        self.in_words = 0  # of these, said in words alone: they tell no answer from another
        self.store: SessionStore | None = None
        self._place = database
        self._observers: list[Observer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.engine = EngineLink(self, engine)
        self.sets, self.judging, self.taps = Sets(self), Judging(self), Taps(self)
        self.chat, self.duels = Chat(self), Duels(self)
        self.machine, self.evaluation = Machine(self), Evaluation(self)

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the database if it is named, and start the engine. `wait_ready` waits for the model. Raises SessionError."""
        if isinstance(self._place, Path):
            self.store = SessionStore(self._place)
            self._tell_ending(self.store)
            self.count()
        await self.engine.start()

    async def wait_ready(self) -> None:
        """Until the model is loaded and the log replayed. Raises SessionError with the reason if that fails."""
        await self.engine.wait_begun()

    async def close(self) -> None:
        """End the engine; what was judged is on disk."""
        with suppress(SessionError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):  # an engine that hangs ends no answer
                await self.taps.finish()
        await self.engine.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.store is not None:
            self.store.close()
            self.store = None

    def open_store(self, base_hash: str) -> SessionStore:
        """The record, which for a model that was not known before lies where its base hash says. Raises SessionError."""
        if self.store is None:
            assert not isinstance(self._place, Path)
            self.store = SessionStore(self._place(base_hash))
            self._tell_ending(self.store)
        return self.store

    def _tell_ending(self, store: SessionStore) -> None:
        """What ended the last sitting, if it was not the operator."""
        if line := endings.taken(store.path, store.abandoned):
            self.say(line)

    # --- what is there -----------------------------------------------------------------------------------------------

    @property
    def database(self) -> Path | None:
        """Where the record lies, once it is known."""
        return self.store.path if self.store is not None else None

    @property
    def opened(self) -> SessionStore:
        """The open database. Raises SessionError before there is one."""
        if self.store is None:
            raise SessionError("the database is not open yet")
        return self.store

    @property
    def record(self) -> Record:
        """Its read side."""
        return self.opened.record

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn: as it was asked for, else as the model's own settings say, else plainly."""
        return (self.ready.sampling if self.ready is not None else None) or self.settings.sampling

    @property
    def set(self) -> SetView:
        """The set that is open. Raises SessionError before there is one."""
        if self.current is None:
            raise SessionError("there are no answers yet")
        return self.current

    def count(self) -> None:
        """What the record says about how often the operator's model won, and how much was judged."""
        record = self.record
        self.blind, self.blind_all = record.blind_count(30), record.blind_count()
        self.blind_adapter = record.blind_count(policy="adapter")
        counts = record.counts()
        self.judged, self.in_words = counts.judged, counts.critiques

    # --- who is told ---------------------------------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Tell it of every change."""
        self._observers.append(observer)

    def tell(self, change: Change) -> None:
        """All observers, now."""
        for observer in self._observers:
            observer(change)

    def say(self, line: str, beside: bool = False) -> None:
        """One clear line for the operator. `beside`: what was said just before stays readable."""
        self.standing = f"{self.standing} · {line}" if beside and self.standing else line
        self.notice = line
        self.tell(Change.NOTICE)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """In the background; what goes wrong is said."""
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # where the sitting ends before it has begun

    async def settle(self) -> None:
        """Until nothing runs in the background."""
        await asyncio.gather(*self._tasks)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except SessionError as error:
            self.say(str(error))
