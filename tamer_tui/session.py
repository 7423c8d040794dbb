"""One teaching sitting: the state machine that the screens and the commands without a screen both drive.

Knows neither Textual nor torch. It owns the journal (writes) and a Record (reads), talks to an engine, and tells observers what changed. Everything
here runs in one asyncio loop.
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
from storage.records import (
    BASE_VERSION,
    BaseModel,
    Correction,
    Demonstration,
    Judgement,
    Message,
    Peek,
    Policy,
    Prompt,
    Ranking,
    Rating,
    Redo,
    SampleSet,
    Sitting,
    Skip,
    Undo,
    new_uid,
)
from storage.rows import MarkedVersion
from tamer_tui import __version__
from tamer_tui.dealing import Dealer, Split
from tamer_tui.drawings import Drawings
from tamer_tui.notebook import Notebook, SessionError, blobs_in
from tamer_tui.standing import Standing
from tamer_tui.views import (
    CandidateView,
    Change,
    EngineState,
    Observer,
    SessionSettings,
    SetView,
    StageView,
    conversation,
)

__all__ = [
    "CandidateView", "Change", "EngineState", "Observer", "Session", "SessionError", "SessionSettings", "SetView", "StageView", "conversation",
]  # fmt: skip

DRAW_BATCH = 48
"""Answers in one `generate` line of an evaluation."""


class Engine(Protocol):
    """What EngineClient offers, and a scripted engine in tests."""

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        """Start it."""

    def send(self, command: Command) -> None:
        """Queue a command."""

    async def close(self) -> None:
        """End it."""


class Session:
    """See the module. Methods that judge return after the commit to disk; they raise SessionError with one clear line."""

    def __init__(
        self,
        settings: SessionSettings,
        engine: Callable[[], Engine],
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
        self.standing = Standing(settings.bias, settings.nats)
        self.split = Split.of(settings.prompts, settings.held_out)
        self.blind = self.blind_all = self.blind_adapter = BlindCount(0, 0, 0, 0, 0.0, 1.0)
        self.judged = 0
        self._make_engine, self._place, self._starter = engine, database, starter
        self._engine: Engine | None = None
        self._notebook: Notebook | None = None
        self._dealer: Dealer | None = None
        self._drawings = Drawings(self._send, settings.sampling)
        self._sitting = new_uid()
        self._observers: list[Observer] = []
        self._begun: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[Idle] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- lifecycle ---------------------------------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Tell it of every change."""
        self._observers.append(observer)

    async def start(self) -> None:
        """Open the database if it is named, and start the engine. `wait_ready` waits for the model. Raises SessionError."""
        if isinstance(self._place, Path):
            self._notebook = Notebook(self._place)
        await self._start_engine()

    async def wait_ready(self) -> None:
        """Until the model is loaded and the log replayed. Raises SessionError with the reason if that fails."""
        assert self._begun is not None
        await asyncio.shield(self._begun)

    async def restart_engine(self) -> None:
        """A new engine from the last version; the log is replayed."""
        if self._engine is not None:
            await self._engine.close()
        self._lose_engine()
        await self._start_engine()

    async def close(self) -> None:
        """End the engine; what was judged is on disk."""
        if self._engine is not None:
            await self._engine.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._notebook is not None:
            self._notebook.close()
            self._notebook = None

    @property
    def database(self) -> Path | None:
        """Where the record lies, once it is known."""
        return self._notebook.path if self._notebook is not None else None

    @property
    def record(self) -> Record:
        """The read side of the open database. Raises SessionError before there is one."""
        return self._open_notebook().record

    async def _start_engine(self) -> None:
        self._begun = asyncio.get_running_loop().create_future()
        self.ready, self.engine_state = None, EngineState.STARTING
        self._engine = self._make_engine()
        try:
            await self._engine.start(self._take, self._engine_died)
        except OSError as error:
            self._engine_died(f"the engine cannot be started: {error}")
            return
        version, adapter = self._send_acting_version()
        s, standing = self.settings, self.standing
        self._send(protocol.Load(
            s.model, s.quantize, s.device, adapter, version, s.seed, standing.nats, standing.bias, s.stages, standing.paused, s.metered,
            s.sampling, _messages(self.split.train), _messages(self.split.gate), s.trust_remote_code, s.unigram, s.frozen_ppo,
        ))  # fmt: skip
        self._tell(Change.ENGINE)

    def _send_acting_version(self) -> tuple[str, str | None]:
        """Blobs of the version to resume from, if the database is open already; its id and hash."""
        acting = self._notebook.acting_version() if self._notebook is not None else None
        if acting is None or self._notebook is None:
            return BASE_VERSION, None
        try:
            blobs = self._notebook.blobs_of(acting[1])
        except SessionError as error:
            self._say(f"{error}; starting from the base")
            return BASE_VERSION, None
        for blob in blobs:
            self._send(blob)
        return acting

    def _begin(self, ready: protocol.Ready) -> None:
        """The model is loaded: open the database if need be, replay, and open the first set."""
        self.ready = ready
        late = self._notebook is None
        try:
            if self._notebook is None:
                assert not isinstance(self._place, Path)
                self._notebook = Notebook(self._place(ready.base_hash))
            base = BaseModel(ready.base_hash, ready.model, ready.quantize, ready.parameters, ready.layers)
            settings = json.dumps(asdict(self.settings) | {"prompts": len(self.settings.prompts)}, default=msgspec.to_builtins)
            sitting = Sitting(self._sitting, ready.base_hash, __version__, settings, self.settings.operator, ready.quantize)
            self._notebook.bind(base, sitting)
        except SessionError as error:
            self._fail(error)
            return
        self.engine_state = EngineState.READY
        if late:
            self._resume_late()
        elif ready.version != BASE_VERSION:
            self.standing.acting = (ready.version, 0.0, 0)
        for command in self._notebook.replay():
            self._send(command)
        self._deal()
        self._count()
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        self._tell(Change.READY)
        self._tell(Change.ENGINE)
        if self.settings.autostart and (self.current is None or self.current.committed):
            self._spawn(self.next_set())

    def _resume_late(self) -> None:
        """The database became known after the model was loaded: act with its version, and go on learning."""
        version, sha256 = self._send_acting_version()
        if sha256 is not None:
            self._send(protocol.Rollback(version, sha256))
            self._send(protocol.Set(paused=False))

    def _deal(self) -> None:
        assert self.ready is not None
        if not self.settings.prompts and self._starter is not None:
            self.split = Split.of(self._starter(self.ready.chat_template), self.settings.held_out)
            self._send(protocol.Set(train_prompts=_messages(self.split.train), gate_prompts=_messages(self.split.gate)))
        s, record = self.settings, self.record
        self._dealer = Dealer(self.split.train, s.k, s.seed, record.judged_prompts(), record.counts().sets)

    def _engine_died(self, why: str) -> None:
        """Judging goes on; R restarts it."""
        self._lose_engine()
        self._fail(SessionError(why))

    def _lose_engine(self) -> None:
        self.engine_state = EngineState.DEAD
        for view in self._drawings.break_off():
            self._keep(view)
        self.standing.forget()
        if self._idle is not None and not self._idle.done():
            self._idle.set_exception(SessionError("the engine stopped while it trained"))
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

    # --- sets --------------------------------------------------------------------------------------------------------

    async def next_set(self) -> None:
        """Open the next prompt of the set: unjudged ones first, then around again."""
        prompt = self._dealer.next_prompt() if self._dealer is not None else None
        if prompt is None:
            raise SessionError("there is no prompt to open", "press n to type one")
        await self._open_set(prompt)

    async def open_prompt(self, text: str) -> None:
        """Open a prompt that the operator typed."""
        if not text.strip():
            raise SessionError("the prompt is empty")
        await self._open_set(Prompt.of(text, self.settings.system, "typed"))

    async def continue_from(self, uid: str, text: str) -> None:
        """Go on with the conversation from one of the current answers."""
        view = self._set()
        if not text.strip():
            raise SessionError("the message is empty")
        await self._open_set(Prompt(conversation(view.prompt, view.candidate(uid).text, text), "continued"))

    async def compare_with_base(self) -> None:
        """The current prompt again: the acting policy beside the base, same seed, never counted."""
        if self._dealer is None:
            raise SessionError("the model is not loaded yet")
        await self._generate(*self._dealer.comparison(self._set().prompt, self._sitting))

    async def stop(self) -> None:
        """End what is being drawn; what there is stays."""
        self._drawings.stop()

    async def wait_set_ended(self) -> SetView:
        """Until all answers of the current set are complete."""
        view = self._set()
        await self._drawings.wait(c.uid for c in view.candidates)
        return view

    async def _open_set(self, prompt: Prompt) -> None:
        if self._dealer is None:
            raise SessionError("the model is not loaded yet")
        if self.engine_state is not EngineState.READY:
            raise SessionError("the engine is not running", "press R to restart it")
        standing = self.standing
        steered = (standing.bias and self.judged > 0) or standing.adapted  # what is on disk is learned before the next answer is drawn
        await self._generate(*self._dealer.deal(prompt, self._sitting, steered, standing.adapted))

    async def _generate(self, record: SampleSet, view: SetView) -> None:
        await self.stop()
        self._open_notebook().keep(record, self._say)
        self.current = view
        self._drawings.ask(view.candidates, [view.prompt.messages] * len(view.candidates))
        self._tell(Change.SET)

    # --- judgements --------------------------------------------------------------------------------------------------

    async def rank(self, ranks: dict[str, int], keys: str = "", seconds: float = 0.0) -> int:
        """Commit an order over the current answers; ranks are made dense."""
        view = self._set()
        if len(view.candidates) < 2 or not ranks:
            raise SessionError("a ranking needs an answer to put first", "type its letter")
        dense = {rank: i for i, rank in enumerate(sorted(set(ranks.values())), start=1)}
        ranks = {uid: dense[rank] for uid, rank in ranks.items()}
        await self._end_current()
        seq = await self._append(Ranking(view.uid, ranks, seconds, keys))
        view.ranks, view.committed = ranks, True
        self._tell(Change.COMMITTED)
        return seq

    async def rate(self, uid: str, value: int, criterion: str = "overall") -> int:
        """Score one of the current answers from 1 to 7."""
        view = self._set()
        candidate = view.candidate(uid)
        await self._end_current()
        seq = await self._append(Rating(view.uid, uid, value, criterion))
        candidate.ratings[criterion] = value
        self._tell(Change.COMMITTED)
        return seq

    async def clear_rating(self, uid: str, criterion: str = "overall") -> None:
        """Take an answer's scores on a criterion back."""
        view = self._set()
        for seq in self.record.rating_seqs(uid, criterion):
            await self._append(Undo(seq), view.uid)
        view.candidate(uid).ratings.pop(criterion, None)
        self._tell(Change.COMMITTED)

    async def correct(self, uid: str, text: str) -> int:
        """Keep an answer as the operator rewrote it."""
        view = self._set()
        if not text.strip():
            raise SessionError("the answer is empty")
        await self._end_current()
        if text == view.candidate(uid).text:
            raise SessionError("nothing was changed")
        seq = await self._append(Correction(view.uid, uid, text))
        self._tell(Change.COMMITTED)
        return seq

    async def demonstrate(self, text: str) -> int:
        """Keep the ideal answer to the current prompt."""
        if not text.strip():
            raise SessionError("the answer is empty")
        seq = await self._append(Demonstration(self._set().uid, text))
        self._tell(Change.COMMITTED)
        return seq

    async def skip(self) -> int:
        """Pass over the current set."""
        view = self._set()
        await self.stop()
        seq = await self._append(Skip(view.uid))
        view.committed = True
        self._tell(Change.COMMITTED)
        return seq

    async def peek(self) -> int:
        """Something hidden was looked at before the commit: the set will not count."""
        return await self._append(Peek(self._set().uid))

    async def undo(self) -> str:
        """Take the newest judgement back; its set comes back, answers intact. Says what was undone."""
        seq = self.record.last_undoable()
        if seq is None:
            raise SessionError("there is nothing to undo")
        return await self._turn(Undo(seq), seq, "undone")

    async def redo(self) -> str:
        """Put back what was undone last. Says what."""
        seq = self.record.last_redoable()
        if seq is None:
            raise SessionError("there is nothing to redo")
        return await self._turn(Redo(seq), seq, "redone")

    async def _turn(self, event: Undo | Redo, seq: int, how: str) -> str:
        judgement = self.record.logged(seq).judgement
        set_uid: str = judgement.set_uid  # type: ignore[union-attr]
        await self._append(event, set_uid)
        if self.current is None or self.current.uid != set_uid:
            await self.stop()
            self.current = self._from_record(set_uid)
            self._tell(Change.SET)
        self._restore_marks(self.current)
        self._tell(Change.COMMITTED)
        return f"{how}: {_in_words(judgement)}"

    def _from_record(self, set_uid: str) -> SetView:
        record = self.record
        found = record.sample_set(set_uid)
        candidates = [CandidateView.of(response) for response in record.responses(set_uid)]
        return SetView(set_uid, found.prompt, candidates, found.purpose)

    def _restore_marks(self, view: SetView) -> None:
        """What is live of the set: its ranking and its scores."""
        view.ranks, view.committed = {}, False
        for candidate in view.candidates:
            candidate.ratings.clear()
        for logged in self.record.live(view.uid):
            judgement = logged.judgement
            if isinstance(judgement, Ranking):
                view.ranks, view.committed = dict(judgement.ranks), True
            elif isinstance(judgement, Skip):
                view.committed = True
            elif isinstance(judgement, Rating):
                view.candidate(judgement.response_uid).ratings[judgement.criterion] = judgement.value

    async def _end_current(self) -> None:
        """A judgement speaks of whole answers: end those that are still being drawn."""
        view = self._set()
        unfinished = [c.uid for c in view.candidates if c.uid in self._drawings]
        if unfinished:
            self._drawings.stop(unfinished)
            await self._drawings.wait(unfinished)

    async def _append(self, judgement: Judgement, set_uid: str = "") -> int:
        """To disk first; then the engine is told what changed about the set."""
        notebook = self._open_notebook()
        seq = await notebook.append(judgement)
        self.last_commit = judgement
        for command in notebook.changes(set_uid or judgement.set_uid):  # type: ignore[union-attr]
            self._send(command)
        self._count()
        return seq

    def _count(self) -> None:
        record = self.record
        self.blind, self.blind_all = record.blind_count(30), record.blind_count()
        self.blind_adapter = record.blind_count(policy="adapter")
        self.judged = record.counts().judged

    # --- the machine -------------------------------------------------------------------------------------------------

    async def set_nats(self, nats: float) -> None:
        """Budget of the acting policy against the base, per 64 tokens."""
        if not 0 <= nats <= 1000:
            raise SessionError("the budget is a number of nats from 0 to 1000")
        self.standing.nats = nats
        self._send(protocol.Set(nats=nats))

    async def set_bias(self, on: bool) -> None:
        """Steering by Ĥ on or off."""
        self.standing.bias = on
        self._send(protocol.Set(bias=on))
        self._tell(Change.LEARNED)

    async def set_paused(self, paused: bool) -> None:
        """Hold or resume the learning of adapters; resuming also ends the hold after a rollback."""
        self.standing.paused = paused
        self.standing.held = self.standing.held and paused
        self._send(protocol.Set(paused=paused))
        self._tell(Change.METRICS)

    async def train_now(self) -> None:
        """Start a round of training, even with little new to learn."""
        if self.standing.held:
            raise SessionError("learning is held after the rollback", "press p to resume it")
        self.standing.paused = False
        self._send(protocol.Set(train_now=True))
        self._tell(Change.METRICS)

    async def rollback(self, version: str) -> None:
        """Act with an earlier version, 'base' for none; learning is held until the operator resumes it."""
        notebook = self._open_notebook()
        found = next((v for v in self.versions() if v.id == version and v.published), None)
        if found is None and version != BASE_VERSION:
            raise SessionError(f"there is no published version {version}")
        blobs = notebook.blobs_of(found.sha256) if found is not None else []
        await notebook.activate(version, "rollback")
        for blob in blobs:
            self._send(blob)
        self._send(protocol.Rollback(version, found.sha256 if found is not None else None))
        self.standing.held = self.standing.paused = True
        self._tell(Change.VERSION)

    async def act_with(self, version: str, sha256: str, root: Path) -> None:
        """Act with a version of another database, whose versions lie under `root`; nothing is recorded."""
        for blob in blobs_in(root, sha256):
            self._send(blob)
        self._send(protocol.Rollback(version, sha256))

    def versions(self) -> list[MarkedVersion]:
        """Newest first."""
        return self._notebook.record.versions() if self._notebook is not None else []

    # --- commands without a screen -------------------------------------------------------------------------------------

    async def draw(self, prompts: Sequence[Prompt], policies: Sequence[Policy], seeds: Sequence[int]) -> list[CandidateView]:
        """One answer to each prompt by the policy beside it, in batches, not recorded. Raises SessionError when the engine dies."""
        drawn: list[CandidateView] = []
        for start in range(0, len(prompts), DRAW_BATCH):
            part = slice(start, start + DRAW_BATCH)
            views = [CandidateView(new_uid(), 0, policy, seed) for policy, seed in zip(policies[part], seeds[part], strict=True)]
            self._drawings.ask(views, [prompt.messages for prompt in prompts[part]])
            await self._drawings.wait(view.uid for view in views)
            self._raise_if_dead()
            drawn += views
        return drawn

    async def grant(self, seconds: float | None = None, steps: int | None = None, flush: bool = False) -> Idle:
        """Metered: let the learner train this much, and wait. With `flush`, bring what was trained to the gate."""
        self._raise_if_dead()
        self._idle = asyncio.get_running_loop().create_future()
        self._send(protocol.Set(train_seconds=seconds, train_steps=steps, flush=flush))
        idle = await self._idle
        await asyncio.gather(*self._tasks)
        return idle

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
            case protocol.Trained(run):
                self._open_notebook().keep(run, self._say)
            case protocol.Blob():
                self._receive(event)
            case protocol.Judged():
                self._spawn(self._publish(event))
            case protocol.Error():
                self._complain(event)

    def _follow(self, event: protocol.Started | protocol.Tokens | protocol.Ended) -> None:
        complete = self._drawings.take(event)
        if complete is not None:
            self._keep(complete)
            self._tell(Change.ENDED)
        elif isinstance(event, protocol.Tokens):
            self._tell(Change.TOKENS)

    def _keep(self, view: CandidateView) -> None:
        """Record an answer of the current set. (Those of an evaluation are not kept.)"""
        current = self.current
        if current is not None and self._notebook is not None and any(c is view for c in current.candidates):
            self._notebook.keep(view.response(current.uid, self.settings.sampling), self._say)

    def _learn(self, event: protocol.Learned | protocol.Metrics | protocol.Acting | protocol.Idle) -> None:
        self.standing.take(event)
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
            self._open_notebook().receive(blob)
        except SessionError as error:
            self._say(str(error))

    async def _publish(self, judged: protocol.Judged) -> None:
        """A verdict of the gate: on disk first, then the engine may act with it."""
        try:
            version = await self._open_notebook().keep_version(judged)
        except SessionError as error:
            self._say(str(error))
            return
        self.standing.refused = "" if judged.published else f"{version} refused: {judged.reason}"
        if judged.published:
            self._send(protocol.PublishAck(judged.sha256, version))
        self._tell(Change.VERSION)

    def _complain(self, error: protocol.Error) -> None:
        problem = SessionError(error.what, error.hint)
        if error.fatal:
            self._fail(problem)
        else:
            self._say(str(problem))

    # --- small things ------------------------------------------------------------------------------------------------------

    def _set(self) -> SetView:
        if self.current is None:
            raise SessionError("there are no answers yet")
        return self.current

    def _open_notebook(self) -> Notebook:
        if self._notebook is None:
            raise SessionError("the database is not open yet")
        return self._notebook

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


def _in_words(judgement: Judgement) -> str:
    match judgement:
        case Ranking():
            return "the ranking"
        case Rating(value=value, criterion=criterion):
            return f"the score {value} ({criterion})"
        case Correction():
            return "the rewritten answer"
        case Demonstration():
            return "the ideal answer"
        case Skip():
            return "the skip"
    return "it"
