"""The life of a sitting: its engine and database, and what it makes of the engine's events. What the operator can do is in session.py.

Knows neither Textual nor torch. Everything here runs in one asyncio loop; observers are told what changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import msgspec

from learners import protocol
from learners.protocol import Command, Event, Idle
from storage.blind import BlindCount
from storage.queries import Record
from storage.records import BASE_VERSION, BaseModel, Judgement, Message, Prequential, Prompt, Sitting, new_uid
from tamer_tui import __version__
from tamer_tui.answer_streams import AnswerStreams
from tamer_tui.dealing import Dealer, Split
from tamer_tui.learning_status import LearningStatus
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.views import CandidateView, Change, EngineState, Observer, SessionSettings, SetView


class EngineConnection(Protocol):
    """What EngineClient offers, and a scripted engine in tests."""

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        """Start it."""

    def send(self, command: Command) -> None:
        """Queue a command."""

    async def close(self) -> None:
        """End it."""


class EngineSession:
    """What Session stands on: it follows the engine and owns what is open."""

    def __init__(
        self,
        settings: SessionSettings,
        engine: Callable[[], EngineConnection],
        database: Path | Callable[[str], Path],
        starter: Callable[[bool], Sequence[Prompt]] | None = None,
    ) -> None:
        """`engine` makes a new engine each time it is (re)started. `database` is a path, or says where the one for a base hash lies. `starter`
        gives prompts when the settings have none, by whether the model has a chat template."""
        self.settings = settings
        self.current: SetView | None = None
        self.loading: protocol.Loading | None = None
        self.ready: protocol.Ready | None = None
        self.engine_state = EngineState.STARTING
        self.notice = ""
        self.last_commit: Judgement | None = None
        self.appraisals: dict[str, protocol.Appraisal] = {}  # of the current set's answers, as they were asked for last
        self.appraised_by: protocol.RewardLearner = "human_reward"
        self.status = LearningStatus(settings.bias, settings.nats)
        self.split = Split.of(settings.prompts, settings.held_out)
        self.blind = self.blind_all = self.blind_adapter = BlindCount(0, 0, 0, 0, 0.0, 1.0)
        self.judged = 0
        self.taps_dropped = 0  # that could not be about what was on the screen
        self.silence = False  # counts, in the tap view: words that pass untapped are worth 0
        self._make_engine, self._place, self._starter = engine, database, starter
        self._engine: EngineConnection | None = None
        self._store: SessionStore | None = None
        self._dealer: Dealer | None = None
        self._streams = AnswerStreams(self._send, settings.sampling)
        self._sitting = new_uid()
        self._observers: list[Observer] = []
        self._begun: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[Idle] | None = None
        self._fatal: SessionError | None = None  # the engine's last words
        self._tasks: set[asyncio.Task[None]] = set()

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Tell it of every change."""
        self._observers.append(observer)

    async def start(self) -> None:
        """Open the database if it is named, and start the engine. `wait_ready` waits for the model. Raises SessionError."""
        if isinstance(self._place, Path):
            self._store = SessionStore(self._place)
            self._count()
        await self._start_engine()

    async def wait_ready(self) -> None:
        """Until the model is loaded and the log replayed. Raises SessionError with the reason if that fails."""
        assert self._begun is not None
        await asyncio.shield(self._begun)

    async def restart_engine(self) -> None:
        """A new engine from the last version; the log is replayed."""
        if self._engine is not None:
            await self._engine.close()
        self._lose_engine(SessionError("the engine was restarted"))
        await self._start_engine()

    async def close(self) -> None:
        """End the engine; what was judged is on disk."""
        if self._engine is not None:
            await self._engine.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._store is not None:
            self._store.close()
            self._store = None

    async def next_set(self) -> None:
        """Open the next prompt."""
        raise NotImplementedError

    @property
    def database(self) -> Path | None:
        """Where the record lies, once it is known."""
        return self._store.path if self._store is not None else None

    @property
    def record(self) -> Record:
        """The read side of the open database. Raises SessionError before there is one."""
        return self._open_store().record

    @property
    def refused(self) -> str:
        """Why this sitting cannot begin: what is asked for does not go together. '' where it began, or where a restart may help."""
        begun = self._begun is not None and not (self._begun.done() and self._begun.exception())
        return "" if begun or self._fatal is None else str(self._fatal)

    async def _start_engine(self) -> None:
        self._begun = asyncio.get_running_loop().create_future()
        self._fatal = None
        self.ready, self.engine_state = None, EngineState.STARTING
        self._engine = self._make_engine()
        try:
            await self._engine.start(self._take, self._engine_died)
        except OSError as error:
            self._fatal = SessionError(f"the engine cannot be started: {error}")
            self._engine_died("")
            return
        held = self._store is not None and self._store.record.held()
        version, adapter = (BASE_VERSION, None) if held else self._send_acting_version()
        s, status = self.settings, self.status
        self._send(
            protocol.Load(
                model=s.model,
                peft_adapter=s.peft_adapter,
                quantize=s.quantize,
                device=s.device,
                adapter=adapter,
                version=version,
                seed=s.seed,
                nats=status.nats,
                bias=status.bias,
                stages=s.stages,
                paused=status.paused,
                metered=s.metered,
                sampling=s.sampling,
                train_prompts=_messages(self.split.train),
                gate_prompts=_messages(self.split.gate),
                trust_remote_code=s.trust_remote_code,
                unigram=s.unigram,
                frozen_ppo=s.frozen_ppo,
            )
        )
        self._tell(Change.ENGINE)

    def _send_acting_version(self) -> tuple[str, str | None]:
        """Blobs of the version to resume from, if the database is open; its id and hash."""
        acting = self._store.acting_version() if self._store is not None else None
        if acting is None or self._store is None:
            return BASE_VERSION, None
        try:
            blobs = self._store.blobs_of(acting[1])
        except SessionError as error:
            self._say(f"{error}; starting from the base")
            return BASE_VERSION, None
        for blob in blobs:
            self._send(blob)
        return acting

    def _begin(self, ready: protocol.Ready) -> None:
        """The model is loaded: open the database if need be, replay, and open the first set."""
        self.ready = ready
        late = self._store is None
        try:
            if self._store is None:
                assert not isinstance(self._place, Path)
                self._store = SessionStore(self._place(ready.base_hash))
            hashes = (ready.weights_sha256, ready.tokenizer_sha256, ready.template_sha256)
            base = BaseModel(ready.base_hash, ready.model, ready.quantize, ready.parameters, ready.layers, *hashes)
            settings = json.dumps(asdict(self.settings) | {"prompts": len(self.settings.prompts)}, default=msgspec.to_builtins)
            sitting = Sitting(self._sitting, ready.base_hash, __version__, settings, self.settings.operator, ready.quantize)
            self._store.bind(base, sitting)
        except SessionError as error:
            self._fatal = error
            self._fail(error)
            return
        self.engine_state = EngineState.READY
        held = self.record.held()
        if held or late:
            self._roll_to_last(held)
        elif ready.version != BASE_VERSION:
            self.status.acting = (ready.version, 0.0, 0)
        for command in self._store.replay():
            self._send(command)
        self._deal()
        self._count()
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        self._tell(Change.READY)
        self._tell(Change.ENGINE)
        if self.settings.autostart and (self.current is None or self.current.committed):
            self._spawn(self.next_set())

    def _roll_to_last(self, held: bool) -> None:
        """Act with the version that the record ends with. `held`: it was a rollback, so learning waits until the operator resumes it. Else the
        database only became known after the model was loaded."""
        version, sha256 = self._send_acting_version()
        if held or sha256 is not None:
            self._send(protocol.Rollback(version=version, sha256=sha256))
        if held:
            self.status.held = self.status.paused = True
        elif sha256 is not None:
            self._send(protocol.Set(paused=self.status.paused))

    def _deal(self) -> None:
        assert self.ready is not None
        if not self.settings.prompts and self._starter is not None:
            self.split = Split.of(self._starter(self.ready.chat_template), self.settings.held_out)
            self._send(protocol.Set(train_prompts=_messages(self.split.train), gate_prompts=_messages(self.split.gate)))
        s, record = self.settings, self.record
        self._dealer = Dealer(self.split.train, s.k, s.seed, record.judged_prompts(), record.counts().sets)

    def _engine_died(self, why: str) -> None:
        """Judging goes on; R restarts it. What it said last is the better reason."""
        reason = self._fatal or SessionError(why)
        self._lose_engine(reason)
        self._fail(reason)

    def _lose_engine(self, reason: SessionError) -> None:
        self.engine_state = EngineState.DEAD
        for view in self._streams.break_off():
            self._drawn(view)
        self.status.forget()
        if self._idle is not None and not self._idle.done():
            self._idle.set_exception(reason)
            self._idle.exception()  # seen: nobody may be waiting
        self._tell(Change.ENDED)
        self._tell(Change.ENGINE)

    def _fail(self, error: SessionError) -> None:
        """The sitting cannot begin or go on as it is."""
        self.engine_state = EngineState.DEAD
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(error)
            self._begun.exception()  # seen: nobody may be waiting
        self._say(str(error))
        self._tell(Change.ENGINE)

    # --- events ----------------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case protocol.Loading():
                self.loading, self.engine_state = event, EngineState.LOADING
                self._tell(Change.LOADING)
            case protocol.Ready():
                self._begin(event)
            case protocol.Started() | protocol.Tokens() | protocol.Ended():
                self._follow(event)
            case protocol.Learned() | protocol.Metrics() | protocol.Acting() | protocol.Idle():
                self._learn(event)
            case protocol.Foreseen(seq=seq, judge=judge, log_loss=log_loss, right=right, pairs=pairs):
                if self._store is not None:
                    self._store.keep(Prequential(seq, judge, log_loss, right, pairs), self._say)
            case protocol.Appraised(h_epoch=_, appraisals=appraisals, by=by):
                self.appraisals, self.appraised_by = {appraisal.uid: appraisal for appraisal in appraisals}, by
                self._tell(Change.APPRAISED)
            case protocol.Trained(run=run):
                self._open_store().keep(run, self._say)
            case protocol.Blob():
                self._receive(event)
            case protocol.Gated():
                self._spawn(self._publish(event))
            case protocol.Error():
                self._complain(event)

    def _follow(self, event: protocol.Started | protocol.Tokens | protocol.Ended) -> None:
        complete = self._streams.take(event)
        if complete is not None:
            self._drawn(complete)
            self._tell(Change.ENDED)
        elif isinstance(event, protocol.Tokens):
            self._tell(Change.TOKENS)

    def _drawn(self, view: CandidateView) -> None:
        """All of an answer is here. Of one that is tapped, what is not on the screen yet may still change."""
        self.status.draw(view)
        if not view.paced:
            self._keep(view)

    def _keep(self, view: CandidateView) -> None:
        """Record an answer of a set, also of one that was left while it was drawn. (Those of an evaluation are not kept.)"""
        if view.set_uid and self._store is not None and not view.kept:
            view.kept = True
            self._store.keep(view.response(self.settings.sampling), self._say)

    def _learn(self, event: protocol.Learned | protocol.Metrics | protocol.Acting | protocol.Idle) -> None:
        self.status.take(event)
        match event:
            case protocol.Learned(dropped=dropped):
                if dropped:
                    self._say(f"not learned from: {dropped}")
                self._tell(Change.LEARNED)
            case protocol.Acting():
                self._tell(Change.VERSION)
            case protocol.Metrics():
                self._tell(Change.METRICS)
            case protocol.Idle():
                if self._idle is not None and not self._idle.done():
                    self._idle.set_result(event)

    def _receive(self, blob: protocol.Blob) -> None:
        try:
            self._open_store().receive(blob)
        except SessionError as error:
            self._say(str(error))

    async def _publish(self, judged: protocol.Gated) -> None:
        """A verdict of the gate: on disk first, then the engine may act with it."""
        try:
            version = await self._open_store().keep_version(judged)
        except SessionError as error:
            self._say(str(error))
            return
        self.status.refused = "" if judged.published else f"{version} refused: {judged.reason}"
        if judged.published:
            self._send(protocol.PublishAck(sha256=judged.sha256, version=version))
        self._tell(Change.VERSION)

    def _complain(self, error: protocol.Error) -> None:
        problem = SessionError(error.what, error.hint)
        if error.uid and (view := self._streams.give_up(error.uid, error.what)) is not None:
            self._drawn(view)
            self._tell(Change.ENDED)
        if error.fatal:
            self._fatal = problem
        if error.fatal or (self.ready is None and not error.uid):
            self._fail(problem)
        else:
            self._say(str(problem))

    def _count(self) -> None:
        record = self.record
        self.blind, self.blind_all = record.blind_count(30), record.blind_count()
        self.blind_adapter = record.blind_count(policy="adapter")
        self.judged = record.counts().judged

    # --- small things ------------------------------------------------------------------------------------------------------

    def _set(self) -> SetView:
        if self.current is None:
            raise SessionError("there are no answers yet")
        return self.current

    def _open_store(self) -> SessionStore:
        if self._store is None:
            raise SessionError("the database is not open yet")
        return self._store

    def _raise_if_dead(self) -> None:
        if self.engine_state is EngineState.DEAD:
            raise SessionError(self.notice or "the engine is not running")

    def _send(self, command: Command) -> None:
        if self._engine is not None:
            self._engine.send(command)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except SessionError as error:
            self._say(str(error))

    def _say(self, line: str) -> None:
        self.notice = line
        self._tell(Change.NOTICE)

    def _tell(self, change: Change) -> None:
        for observer in self._observers:
            observer(change)


def _messages(prompts: Sequence[Prompt]) -> tuple[tuple[Message, ...], ...]:
    return tuple(prompt.messages for prompt in prompts)
