"""The engine of a sitting: started, told what there is, followed, lost and started again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec.structs import replace

from learners import protocol
from learners.protocol import Command, Event
from storage.journal import JournalError
from storage.records import BASE_VERSION, BaseModel, Message, Prompt, Sitting
from tamer_tui import __version__
from tamer_tui.dealing import Dealer, Split
from tamer_tui.remote_engine import RemoteEngine
from tamer_tui.session import events
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.views import Change, EngineState

if TYPE_CHECKING:
    from tamer_tui.session.session import Session

PARTS = {protocol.Generate: "requests", protocol.Replay: "lessons", protocol.Appraise: "answers"}
"""Commands that hold texts of any length, and which of their fields can be cut into parts."""
MOST_PROMPTS = 4096
PROMPT_CHARACTERS = 500_000
"""Of all prompts that learners practise on: they stand in one line."""


class EngineConnection(Protocol):
    """What EngineClient and RemoteEngine offer, and a scripted engine in tests."""

    remote: bool
    """Whether the engine is elsewhere: it may know more of the log than this sitting has told it, and its link may break and come back."""

    async def start(self, on_event: Callable[[Event], None], on_exit: Callable[[str], None]) -> None:
        """Start it."""

    def send(self, command: Command) -> None:
        """Queue a command. Raises LineTooLongError."""

    async def close(self) -> None:
        """End it."""


class EngineLink:
    """One engine at a time."""

    def __init__(self, session: Session, make: Callable[[], EngineConnection]) -> None:
        self._session, self._make = session, make
        self._connection: EngineConnection | None = None
        self._begun: asyncio.Future[None] | None = None
        self._rest: Iterator[Command] = iter(())  # of the log
        self._fatal: SessionError | None = None  # the engine's last words
        self._just_loaded = False  # nothing else has come since the model is there
        self._again = False  # in the middle of a sitting another engine has taken the place of one that was lost
        self.away = ""  # why the link to an engine elsewhere is down, in words

    def send(self, command: Command) -> None:
        """To the engine, if there is one. What would make a line that is too long goes in several."""
        if self._connection is None:
            return
        try:
            self._connection.send(command)
        except protocol.LineTooLongError:
            self._send_in_parts(command)

    def _send_in_parts(self, command: Command) -> None:
        """A single answer or judgement that is too long is left out, and told."""
        field = PARTS.get(type(command), "")
        items: tuple[Any, ...] = getattr(command, field) if field else ()
        if len(items) > 1:
            middle = len(items) // 2
            first: dict[str, Any] = {field: items[:middle]} | ({"last": False} if isinstance(command, protocol.Replay) else {})
            self.send(replace(command, **first))
            self.send(replace(command, **{field: items[middle:]}))
            return
        if isinstance(command, protocol.Generate):
            self._complain(protocol.Error(what="the prompt is too long for the engine", hint="shorten it", uid=items[0].uid))
            return
        self._session.say("an answer is too long for the engine: it is left out")
        if isinstance(command, protocol.Replay):
            self.send(replace(command, lessons=()))

    async def wait_begun(self) -> None:
        """Until the model is loaded and the log replayed. Raises SessionError with the reason if that fails."""
        assert self._begun is not None
        await asyncio.shield(self._begun)

    @property
    def refused(self) -> str:
        """Why this sitting cannot begin: what is asked for does not go together. '' where it began, or where a restart may help."""
        begun = self._begun is not None and not (self._begun.done() and self._begun.exception())
        return "" if begun or self._fatal is None else str(self._fatal)

    def raise_if_dead(self) -> None:
        """Raises SessionError with what is known about why."""
        if self._session.engine_state is EngineState.DEAD:
            raise SessionError(self._session.notice or "the engine is not running")

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """An engine that loads the model; what goes wrong is told later."""
        session = self._session
        self._begun = asyncio.get_running_loop().create_future()
        self._fatal = None
        session.ready, session.engine_state = None, EngineState.STARTING
        self._again, self.away = False, ""
        self._connection = self._make()
        if isinstance(self._connection, RemoteEngine):
            base = session.record.base() if session.store is not None else None
            self._connection.base_hash = base.base_hash if base is not None else ""
            self._connection.on_link = self._link_changed
        try:
            await self._connection.start(self._take, self._died)
        except OSError as error:
            self._fatal = SessionError(f"the engine cannot be started: {error}")
            self._died("")
            return
        self._send_load()
        session.tell(Change.ENGINE)

    async def restart(self) -> None:
        """A new engine from the last version; the log is replayed."""
        await self.close()
        self._lose(SessionError("the engine was restarted"))
        await self.start()

    async def close(self) -> None:
        """End it."""
        if self._connection is not None:
            await self._connection.close()

    @property
    def remote(self) -> bool:
        """Whether the engine is elsewhere."""
        return self._connection is not None and self._connection.remote

    @property
    def goes_on(self) -> tuple[str, ...]:
        """What leads to an engine that goes on without this terminal; empty where it does not."""
        connection = self._connection
        return connection.command if isinstance(connection, RemoteEngine) and connection.stays else ()

    def _send_load(self) -> None:
        """An engine elsewhere says first what it has: it gets a version's files only where it lacks them."""
        session = self._session
        later = self.remote or (session.store is not None and session.record.held())
        self.send(self._load(*((BASE_VERSION, None) if later else self._send_acting_version())))

    def _link_changed(self, why: str, lost: bool) -> None:
        """The link to an engine elsewhere broke; or it is back, to the same engine or to one that knows nothing."""
        session, self.away = self._session, why
        if why:
            session.say(f"the link to the engine is down ({why}): judging goes on, and it comes back by itself")
        elif lost:
            session.say("the engine was lost, and another one is told everything")
            self._again = session.ready is not None
            session.engine_state = EngineState.STARTING
            session.status.forget()
            session.sets.best_of.break_off()
            session.evaluation.break_grant(SessionError("the engine was lost"))
            self._send_load()
        else:
            session.say("the link to the engine is back")
        session.tell(Change.ENGINE)

    def _load(self, version: str, adapter: str | None) -> protocol.Load:
        s, status, split = self._session.settings, self._session.status, self._session.split
        return protocol.Load(
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
            unset=s.unset,
            thinking=s.thinking,
            learn_thoughts=s.learn_thoughts,
            train_prompts=_messages(split.train),
            gate_prompts=_messages(split.gate),
            trust_remote_code=s.trust_remote_code,
            unigram=s.unigram,
            frozen_ppo=s.frozen_ppo,
            blob_bytes=protocol.LINK_BLOB_CHUNK if self.remote else protocol.BLOB_CHUNK,
        )

    def _send_acting_version(self) -> tuple[str, str | None]:
        """Blobs of the version to resume from, if the database is open; its id and hash."""
        store = self._session.store
        acting = store.acting_version() if store is not None else None
        if acting is None or store is None:
            return BASE_VERSION, None
        try:
            blobs = store.blobs_of(acting[1])
        except SessionError as error:
            self._session.say(f"{error}; starting from the base")
            return BASE_VERSION, None
        for blob in blobs:
            self.send(blob)
        return acting

    # --- what it says --------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case protocol.Loading():
                self._session.loading, self._session.engine_state = event, EngineState.LOADING
                self._session.tell(Change.LOADING)
            case protocol.Ready():
                self._just_loaded, self._session.standing = True, ""
                self._begin(event)
            case protocol.Error():
                self._complain(event)
            case protocol.Read():
                self._session.spawn(self._tell_more(self._connection))
            case protocol.Notice(what=what):
                self._session.notes.append(what)
                self._session.say(what, beside=self._just_loaded)
            case _:
                self._just_loaded = False
                events.take(self._session, event)

    def _begin(self, ready: protocol.Ready) -> None:
        """The model is loaded: open the database if need be, replay, and open the first set."""
        session = self._session
        session.ready = ready
        late = session.store is None
        try:
            store = session.open_store(ready.base_hash)
            if ready.database not in ("", store.record.identity()):
                raise SessionError(f"this engine teaches another database: {ready.place}", "give that one, or start another engine")
            self._bind(store, ready)
        except SessionError as error:
            self._fatal = error
            self._fail(error)
            return
        session.engine_state = EngineState.READY
        if self.remote:
            self.send(protocol.Teaches(database=store.record.identity(), place=str(store.path.absolute())))
        held = session.record.held()
        if self.remote and ready.taught is not None and store.acts_with() == ready.version:
            self._find_as_left(ready, held)
        elif held or late or self.remote:
            self._roll_to_last(held)
        elif ready.version != BASE_VERSION:
            session.status.acting = (ready.version, 0.0, 0)
        for command in store.told.begin(session.settings.metered) if ready.taught is None else store.told.go_on(ready.taught):
            self.send(command)
        self._rest = store.told.rest()
        self._deal(ready)
        session.count()
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        session.tell(Change.READY)
        session.tell(Change.ENGINE)
        again, self._again = self._again, False
        done = session.current is None or session.current.committed
        if again:
            session.sets.streams.ask_again()
        if session.sets.typed_early or (session.settings.autostart and done and not again):
            session.spawn(session.sets.open_first())

    def _find_as_left(self, ready: protocol.Ready, held: bool) -> None:
        """An engine that went on by itself acts with the version that the record ends with."""
        status = self._session.status
        status.acting, status.held = (ready.version, 0.0, 0), held
        status.paused |= held
        if not held:  # resuming would end the hold
            self.send(protocol.Set(paused=status.paused))

    async def _tell_more(self, connection: EngineConnection | None) -> None:
        """The next chunk of a long log, while nobody waits for answers."""
        await self._session.sets.settle()
        if connection is not self._connection:
            return
        try:
            if (command := next(self._rest, None)) is not None:
                self.send(command)
        except JournalError as error:
            raise SessionError(error.message, error.hint) from error

    def _bind(self, store: SessionStore, ready: protocol.Ready) -> None:
        settings = self._session.settings
        hashes = (ready.weights_sha256, ready.tokenizer_sha256, ready.template_sha256)
        base = BaseModel(ready.base_hash, ready.model, ready.quantize, ready.parameters, ready.layers, *hashes)
        written = json.dumps(asdict(settings) | {"prompts": len(settings.prompts)}, default=msgspec.to_builtins)
        store.bind(base, Sitting(self._session.uid, ready.base_hash, __version__, written, settings.operator, ready.quantize))

    def _roll_to_last(self, held: bool) -> None:
        """Act with the version that the record ends with. `held`: it was a rollback, so learning waits until the operator resumes it. Else the
        database only became known after the model was loaded."""
        status = self._session.status
        version, sha256 = self._send_acting_version()
        if held or sha256 is not None:
            self.send(protocol.Rollback(version=version, sha256=sha256))
        if held:
            status.held = status.paused = True
        elif sha256 is not None:
            self.send(protocol.Set(paused=status.paused))

    def _deal(self, ready: protocol.Ready) -> None:
        session, s = self._session, self._session.settings
        if not s.prompts and session.starter is not None:
            session.split = Split.of(session.starter(ready.chat_template), s.held_out)
            self.send(protocol.Set(train_prompts=_messages(session.split.train), gate_prompts=_messages(session.split.gate)))
        record = session.record
        session.sets.dealer = Dealer(session.split.train, s.k, s.seed, record.judged_prompts(), record.counts().sets, s.temperatures)

    def _complain(self, error: protocol.Error) -> None:
        session, problem = self._session, SessionError(error.what, error.hint)
        if error.uid:
            session.sets.give_up(error.uid, error.what)
        if error.fatal:
            self._fatal = problem
        if error.fatal or (session.ready is None and not error.uid):
            self._fail(problem)
        else:
            session.say(str(problem), beside=self._just_loaded)

    # --- its end -------------------------------------------------------------------------------------------------------

    def _died(self, why: str) -> None:
        """Judging goes on; R restarts it. What it said last is the better reason."""
        self.away = ""
        reason = self._fatal or SessionError(why)
        self._lose(reason)
        self._fail(reason)

    def _lose(self, reason: SessionError) -> None:
        session = self._session
        session.engine_state = EngineState.DEAD
        session.sets.break_off()
        session.status.forget()
        session.evaluation.break_grant(reason)
        session.tell(Change.ENDED)
        session.tell(Change.ENGINE)

    def _fail(self, error: SessionError) -> None:
        """The sitting cannot begin or go on as it is."""
        self._session.engine_state = EngineState.DEAD
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(error)
            self._begun.exception()  # seen: nobody may be waiting
        self._session.say(str(error))
        self._session.tell(Change.ENGINE)


def _messages(prompts: Sequence[Prompt]) -> tuple[tuple[Message, ...], ...]:
    """What learners practise on, or are checked on: of very many prompts some, spread evenly, and as many as go into one line."""
    sized = [(prompt.messages, sum(len(message.content) for message in prompt.messages)) for prompt in prompts]
    usable = [(messages, length) for messages, length in sized if length <= PROMPT_CHARACTERS // 8]
    spread = usable[:: -(-len(usable) // MOST_PROMPTS) or 1]
    so_far = accumulate(length for _, length in spread)
    return tuple(messages for (messages, _), length in zip(spread, so_far, strict=True) if length <= PROMPT_CHARACTERS)
