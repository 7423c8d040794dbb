"""The terminals of an engine that is spoken to over links: one judges, others watch; they go and come back, and the engine goes on.

What a terminal that is away has not got is kept for it. That stays small: metrics and what concerns loading are dropped, answers end, and the
learner waits as soon as a version has passed the gate, since only a terminal can put it on disk (`Hub.delivered`). Another terminal that takes the
place of one that never came back gets what is for the record.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from learners import protocol
from learners.engine.standing import Standing
from learners.link import COMPRESSION, SILENCE_SECONDS, Attach, BulkWindow, Hello, Unacknowledged, Welcome, fingerprint, package_version
from learners.protocol import Blob, Command, Error, Event, Load, Metrics

METRICS_BACKLOG = 64
"""Events waiting to be sent beyond which metrics are dropped."""
WATCHER_BACKLOG = 4096
"""Events waiting for a terminal that watches, beyond which it is let go: it comes back to what is there then."""
FOR_THE_RECORD = (protocol.Trained, protocol.Foreseen, protocol.Gated)
BATCH = 64
"""Lines that are sent at once, at most."""


class Connection(Protocol):
    """One link of a terminal, while it holds."""

    heard: float  # monotonic seconds

    def end(self) -> None:
        """Nothing more is sent or taken."""


class Terminal:
    """What one terminal has said and been told. Guarded by the hub's lock."""

    def __init__(self, hello: Hello) -> None:
        self.name, self.role, self.base_hash = hello.terminal, hello.role, hello.base_hash
        self.received = 0  # the last line that came
        self.link: Connection | None = None
        self.greeted = False  # it knows what is loaded
        self.sending = False  # lines are being written to its link
        self.unacknowledged = Unacknowledged()
        self.window = BulkWindow()
        self.owed: list[Event] = []  # for the record, from one that never came back; sent once the database is known to be the same
        self._events: deque[Event] = deque()
        self._blobs: deque[Event] = deque()  # and verdicts, which come after theirs

    @property
    def waiting(self) -> int:
        return len(self._events) + len(self._blobs)

    @property
    def idle(self) -> bool:
        """Whether all that there is to say was handed to the system."""
        return not self.waiting and not self.sending

    def put(self, event: Event) -> None:
        """It is to be sent."""
        passing = isinstance(event, Metrics | protocol.Loading)
        if passing and (self.link is None or len(self._events) > METRICS_BACKLOG):
            return
        after_blobs = isinstance(event, Blob) or (isinstance(event, protocol.Gated) and bool(self._blobs))
        (self._blobs if after_blobs else self._events).append(event)

    def take_lines(self) -> list[bytes]:
        """What may be sent now, numbered: blobs one at a time, and only where nothing else waits."""
        lines: list[bytes] = []
        while self._events and len(lines) < BATCH:
            lines.append(protocol.encode(self._events.popleft()))
            self.unacknowledged.add(lines[-1])
        if not lines and self._blobs and self.window.open:
            lines.append(protocol.encode(self._blobs.popleft()))
            self.window.sent(self.unacknowledged.add(lines[-1]), len(lines[-1]))
        return lines

    def begin_again(self, received: int) -> list[bytes]:
        """Over a new link: what the terminal has not got. Raises LinkError."""
        self.unacknowledged.acknowledge(received)
        self.window = BulkWindow()
        return self.unacknowledged.waiting()

    def for_the_record(self) -> list[Event]:
        """What is lost where nobody takes it, but for versions, of which the engine knows by itself."""
        sent = [protocol.decode_event(line) for line in self.unacknowledged.waiting()]
        left = [*self.owed, *sent, *self._events, *self._blobs]
        return [event for event in left if isinstance(event, FOR_THE_RECORD) and not (isinstance(event, protocol.Gated) and event.published)]


class Hub:
    """Hands the engine's events to the terminals and the judging one's commands to the engine."""

    def __init__(self, take: Callable[[Command], None], stays: bool, end: Callable[[], None]) -> None:
        """`take` never blocks. `stays`: a terminal that leaves does not end the engine. `end` is called when it is to end."""
        self._take_command, self.stays, self._end = take, stays, end
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)  # something is to be sent
        self.ended = threading.Condition(self._lock)  # something was
        self._standing = Standing()
        self._judge: Terminal | None = None
        self._watchers: list[Terminal] = []
        self.left = time.monotonic()  # since when nobody is there

    # --- from the engine ---------------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """From any thread; never blocks for long."""
        with self.changed:
            self._standing.said(event)
            judge = self._judge
            if judge is not None and isinstance(event, protocol.Ready):
                self._greet(judge)
            elif judge is not None:
                judge.put(event)
            self._show(event)
            self.changed.notify_all()

    def delivered(self) -> bool:
        """Whether a terminal is there and has been sent everything: from then on the learner waits for it no longer than it takes to write."""
        with self.changed:
            return self._judge is not None and self._judge.link is not None and self._judge.idle

    def say_last(self, error: Error, seconds: float) -> None:
        """To all, before the engine ends."""
        deadline = time.monotonic() + seconds
        with self.changed:
            for terminal in self._all():
                terminal.put(error)
            self.changed.notify_all()
            while any(terminal.link and not terminal.idle for terminal in self._all()) and (left := deadline - time.monotonic()) > 0:
                self.ended.wait(left)

    def abandoned(self, seconds: float) -> bool:
        """Whether nobody has been there for so long."""
        with self.changed:
            return not any(terminal.link for terminal in self._all()) and time.monotonic() - self.left > seconds

    # --- from the terminals ------------------------------------------------------------------------------------------------

    def answer(self, hello: Hello) -> Welcome | Error:
        """Changes nothing yet."""
        with self.changed:
            if (why := self._refusal(hello)) is not None:
                return why
            standing = self._standing
            known = self._judge is not None and self._judge.name == hello.terminal
            return Welcome(
                protocol=fingerprint(),
                package=package_version(),
                known=known,
                received=self._judge.received if known and self._judge is not None else 0,
                compression=next((name for name in COMPRESSION if name in hello.compression), ""),
                stays=self.stays,
                load=standing.load if hello.role in ("look", "watch") else None,
                place=standing.place,
            )

    def attach(self, hello: Hello, attach: Attach, link: Connection) -> tuple[Terminal, list[bytes]] | Error:
        """The terminal's lines come over this link from now on; what it has not got, to be sent first. Raises LinkError."""
        with self.changed:
            if (why := self._refusal(hello)) is not None:
                return why
            terminal = self._seat(hello)
            lines = terminal.begin_again(attach.received)
            if terminal.link is not None:
                terminal.link.end()
            terminal.link = link
            self.changed.notify_all()
            return terminal, lines

    def take(self, terminal: Terminal, link: Connection, number: int, command: Command) -> None:
        """Line `number` of this terminal; what was taken over another link is passed over."""
        with self.changed:
            if terminal.link is not link or number <= terminal.received:
                return
            terminal.received = number
            if terminal.role == "judge":
                self._obey(terminal, command)
            self.changed.notify_all()

    def acknowledge(self, terminal: Terminal, link: Connection, n: int) -> None:
        """It has all lines up to `n`. Raises LinkError."""
        with self.changed:
            if terminal.link is link:
                terminal.unacknowledged.acknowledge(n)
                terminal.window.acknowledged(n)
                self.changed.notify_all()

    def next_lines(self, terminal: Terminal, link: Connection, deadline: float) -> list[bytes]:
        """What is to be sent over this link, as soon as there is something; none once the deadline (monotonic) is there, or the link is another."""
        with self.changed:
            terminal.sending = False
            self.ended.notify_all()
            while terminal.link is link:
                if lines := terminal.take_lines():
                    terminal.sending = True
                    return lines
                if (left := deadline - time.monotonic()) <= 0:
                    break
                self.changed.wait(left)
            return []

    def stop(self) -> None:
        """End the engine."""
        self._end()

    def leave(self, terminal: Terminal, link: Connection) -> None:
        """The link broke, or the terminal went. One that judges may come back."""
        with self.changed:
            if terminal.link is not link:
                return
            terminal.link, terminal.sending, self.left = None, False, time.monotonic()
            if terminal in self._watchers:
                self._watchers.remove(terminal)
            self.changed.notify_all()

    # --- with the lock held ------------------------------------------------------------------------------------------------

    def _all(self) -> list[Terminal]:
        return [*([self._judge] if self._judge is not None else []), *self._watchers]

    def _refusal(self, hello: Hello) -> Error | None:
        here, there = package_version(), hello.package
        if there != here:
            return _fatal(f"this engine is of tamer-tui {here}, and the terminal of {there}", "install the same version on both machines")
        if hello.protocol != fingerprint():
            return _fatal("engine and terminal are of one version and speak differently", "install the same commit on both machines")
        ready, judge = self._standing.ready, self._judge
        if ready is not None and hello.base_hash not in ("", ready.base_hash):
            what = f"this engine has {ready.model} ({ready.base_hash[:8]}), and the database was taught with another base ({hello.base_hash[:8]})"
            return _fatal(what, "give the database of this engine, or another engine")
        present = judge is not None and judge.link is not None and time.monotonic() - judge.link.heard < SILENCE_SECONDS
        if hello.role == "judge" and judge is not None and judge.name != hello.terminal and present:
            return _fatal("another terminal judges at this engine", "leave that one, or watch: tamer attach … --watch")
        return None

    def _seat(self, hello: Hello) -> Terminal:
        """The terminal as it was left, or a new one."""
        if hello.role == "watch":
            watcher = Terminal(hello)
            self._watchers.append(watcher)
            for event in (*self._standing.greeting(), *self._standing.drawn()):
                watcher.put(event)
            return watcher
        before = self._judge
        if before is not None and before.name == hello.terminal:
            return before
        self._judge = Terminal(hello)
        if before is not None:
            if before.link is not None:
                before.link.end()
            self._judge.owed = before.for_the_record()
            self._take_command(protocol.Stop())  # what was drawn for it
        return self._judge

    def _obey(self, judge: Terminal, command: Command) -> None:
        standing = self._standing
        if isinstance(command, protocol.Shutdown):
            self._end()
        elif isinstance(command, Load) and standing.load is not None:
            self._load_again(judge, command)
        elif isinstance(command, protocol.Teaches) and standing.database not in ("", command.database):
            self._refuse(judge, f"this engine teaches another database: {standing.place or standing.database}", "give that one, or another engine")
        else:
            standing.told(command)
            if isinstance(command, protocol.Teaches):
                for event in (*judge.owed, *(event for event in standing.proposal if event not in judge.owed)):
                    judge.put(event)
                judge.owed = []
            else:
                self._take_command(command)
            if isinstance(command, protocol.Generate):
                self._show(protocol.Asked(requests=command.requests))

    def _load_again(self, judge: Terminal, load: Load) -> None:
        """A terminal found this engine loaded, or loading, as it wants it; or otherwise."""
        if misfit := self._standing.misfit(load):
            self._refuse(judge, f"this engine is another: {misfit}", "tamer attach takes the engine's own settings; or start another engine")
            return
        if (changed := self._standing.changed(load)) is not None:
            self._take_command(changed)
        self._greet(judge)

    def _greet(self, judge: Terminal) -> None:
        """Tell what is loaded, once."""
        ready = self._standing.ready
        if ready is None or judge.greeted:
            return
        if judge.base_hash not in ("", ready.base_hash):
            self._refuse(judge, f"the database was taught with another base than {ready.model} ({ready.base_hash[:8]})", "give another database")
            return
        judge.greeted = True
        for event in self._standing.greeting():
            judge.put(event)

    def _refuse(self, judge: Terminal, what: str, hint: str) -> None:
        judge.put(_fatal(what, hint))

    def _show(self, event: Event) -> None:
        """To those that watch, but for what is written down."""
        if isinstance(event, Blob | protocol.Trained | protocol.Foreseen):
            return
        for watcher in tuple(self._watchers):
            watcher.put(event)
            if watcher.waiting > WATCHER_BACKLOG and watcher.link is not None:
                watcher.link.end()
                self._watchers.remove(watcher)


def _fatal(what: str, hint: str) -> Error:
    return Error(what=what, hint=hint, fatal=True)
