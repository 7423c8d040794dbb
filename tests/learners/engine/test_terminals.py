"""Terminals at one engine, over real sockets: who may judge, what is kept for whom, what a broken link leaves. The test is the engine."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from learners import protocol
from learners.engine.listening import Listener
from learners.engine.sockets import SocketError, connect, open_socket
from learners.engine.terminals import METRICS_BACKLOG, WATCHER_BACKLOG, Hub
from learners.link import Attach, Framing, Hello, Received, Role, Welcome, decode_from_engine, fingerprint, package_version
from learners.protocol import Command, Error, Event, Load
from learners.versions.blobs import split
from storage.records import Message, Ranking, Run, Sampling

T = TypeVar("T")
LOAD = Load(model="m", train_prompts=((Message("user", "Hi"),),))
READY = protocol.Ready(
    base_hash="b" * 64, model="m", layers=1, parameters=1, vocabulary=1, width=1, device="cpu", quantize="none", memory_bytes=1, base_bytes=1,
    context=1, chat_template=False,
)  # fmt: skip
TEACHES = protocol.Teaches(database="d1", place="/a.db")
RUN = Run("r1", "distill", (1,), 0, 8, 1.0, "{}")


def lesson(seq: int) -> protocol.Lesson:
    return protocol.Lesson(seq=seq, judgement=Ranking("s", {"a": 1, "b": 2}, 1.0), answers=(protocol.Answer(uid="a", messages=(), text="x"),))


def gated(sha256: str) -> protocol.Gated:
    return protocol.Gated(
        sha256=sha256, parent="base", stage="distill", published=bool(sha256), reason="", reason_code="", runs=("r1",), seed=0
    )  # fmt: skip


class Desk:
    """The hub, listening; commands that came through it."""

    def __init__(self, path: Path) -> None:
        self.path, self.commands, self.ended = path, list[Command](), threading.Event()
        self.hub = Hub(self.commands.append, True, self.ended.set)
        threading.Thread(target=Listener(self.hub, open_socket(path)).run, daemon=True).start()

    def terminal(self, name: str = "t1", role: Role = "judge", **hello: str) -> Terminal:
        return Terminal(self.path, name, role, **hello)

    def taken(self, n: int) -> list[Command]:
        """The first n, once they are there."""
        with self.hub.changed:
            assert self.hub.changed.wait_for(lambda: len(self.commands) >= n, 10), self.commands
        return self.commands[:n]

    def gone(self) -> None:
        """Until no terminal is there."""
        with self.hub.changed:
            assert self.hub.changed.wait_for(lambda: not any(each.link for each in self.hub._all()), 10)


class Terminal:
    """As the other side of a link, in plain calls."""

    def __init__(self, path: Path, name: str, role: Role = "judge", received: int = 0, first: int = 0, **hello: str) -> None:
        self.connection = connect(path)
        self.connection.settimeout(10)
        self._framing, self._lines = Framing(), list[bytes]()
        self.received = received
        said = Hello(protocol=fingerprint(), package=package_version(), terminal=name, role=role, compression=("zlib",))
        self.connection.sendall(protocol.encode(replace(said, **hello)))
        self.greeting = self.next()
        if isinstance(self.greeting, Welcome) and role in ("judge", "watch"):
            self.connection.sendall(protocol.encode(Attach(received=received, first=first or self.greeting.received + 1)))
            self._framing = Framing(self.greeting.compression)

    def send(self, *commands: Command | Received) -> None:
        self.connection.sendall(self._framing.pack(b"".join(map(protocol.encode, commands))))

    def next(self) -> Welcome | Received | Event:
        while not self._lines:
            data = self.connection.recv(65536)
            if not data:
                raise EOFError
            self._lines += self._framing.unpack(data)
        said = decode_from_engine(self._lines.pop(0))
        self.received += not isinstance(said, Received | Welcome)
        return said

    def until(self, kind: type[T], condition: Callable[[T], bool] = lambda said: True) -> T:
        while True:
            said = self.next()
            if isinstance(said, kind) and condition(said):
                return said

    def acknowledged(self) -> Event:
        """The next event, and the engine knows that it came."""
        event = self.until(Event)  # type: ignore[type-var]
        self.send(Received(n=self.received))
        return event

    def events(self, n: int) -> list[Event]:
        return [self.until(Event) for _ in range(n)]  # type: ignore[type-var]

    def leave(self) -> None:
        self.connection.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield Desk(tmp_path / "e.sock")


def begun(desk: Desk, *more: Command) -> Terminal:
    """A terminal that judges, at an engine that has loaded."""
    terminal = desk.terminal()
    terminal.send(LOAD)
    desk.taken(1)
    desk.hub.emit(READY)
    terminal.until(protocol.Ready)
    terminal.send(TEACHES, *more)
    desk.taken(1 + len(more))
    return terminal


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        ({"package": "0.0.1"}, f"this engine is of tamer-tui {package_version()}, and the terminal of 0.0.1"),
        ({"protocol": "0"}, "engine and terminal are of one version and speak differently"),
        ({"base_hash": "c" * 64}, r"this engine has m \(bbbbbbbb\), and the database was taught with another base \(cccccccc\)"),
    ],
)
def test_who_does_not_fit_is_told_why_in_one_line(desk: Desk, hello: dict[str, str], why: str) -> None:
    begun(desk).leave()
    greeting = desk.terminal("t2", **hello).greeting
    assert isinstance(greeting, Error) and greeting.fatal and greeting.hint
    assert pytest.importorskip("re").fullmatch(why, greeting.what)


def test_one_judges_and_another_may_once_that_one_has_gone(desk: Desk) -> None:
    first = begun(desk, protocol.Generate(requests=(), sampling=Sampling()))
    greeting = desk.terminal("t2").greeting
    assert isinstance(greeting, Error) and greeting.what == "another terminal judges at this engine"
    first.leave()
    desk.gone()
    second = desk.terminal("t2")
    second.send(LOAD)
    ready = second.until(protocol.Ready)
    assert (ready.database, ready.place, ready.taught) == ("d1", "/a.db", ())
    assert desk.taken(3)[2] == protocol.Stop(), "nobody waits for what the first one asked for"


def test_a_terminal_that_comes_back_gets_what_it_lacks_and_sends_what_the_engine_lacks(desk: Desk) -> None:
    terminal = begun(desk, protocol.AddJudgement(lesson=lesson(1)))
    line = terminal._framing.pack(protocol.encode(protocol.AddJudgement(lesson=lesson(2))))
    terminal.connection.sendall(line[: len(line) // 2])  # killed in the middle of it
    terminal.leave()
    desk.gone()
    for seq in (1, 2):
        desk.hub.emit(protocol.Foreseen(seq=seq, judge="human_reward", log_loss=0.5, right=1.0, pairs=1))
    again = desk.terminal()
    assert isinstance(again.greeting, Welcome) and again.greeting.known and again.greeting.received == 3
    again = Terminal(desk.path, "t1", received=terminal.received, first=3)  # and one line twice
    again.send(protocol.AddJudgement(lesson=lesson(1)), protocol.AddJudgement(lesson=lesson(2)))
    assert desk.taken(3)[1:] == [protocol.AddJudgement(lesson=lesson(1)), protocol.AddJudgement(lesson=lesson(2))]
    assert [event.seq for event in again.events(2) if isinstance(event, protocol.Foreseen)] == [1, 2]


def test_who_claims_to_have_what_was_never_sent_is_let_go(desk: Desk) -> None:
    begun(desk).leave()
    desk.gone()
    with pytest.raises(EOFError):
        Terminal(desk.path, "t1", received=99).until(protocol.Ready)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"\xff\xfe\n", protocol.encode(protocol.Shutdown()), b"x" * 200_000])
def test_what_is_no_terminal_is_let_go_and_the_engine_goes_on(desk: Desk, said: bytes) -> None:
    stranger = connect(desk.path)
    stranger.settimeout(10)
    stranger.sendall(said)
    if said.endswith(b"\n\n") or not said.endswith(b"\n"):
        stranger.shutdown(socket.SHUT_WR)
    with pytest.raises((EOFError, ConnectionError)):
        if not stranger.recv(1000):
            raise EOFError
    begun(desk)
    assert not desk.ended.is_set()


def test_what_is_kept_for_a_terminal_that_is_away_stays_small(desk: Desk) -> None:
    begun(desk).leave()
    desk.gone()
    for step in range(10 * METRICS_BACKLOG):
        desk.hub.emit(protocol.Metrics(stage="ppo", step=step))
    judge = desk.hub._judge
    assert judge is not None and judge.waiting == 0
    again = desk.terminal("t2")
    again.send(LOAD)
    again.until(protocol.Ready)
    assert again.until(protocol.Metrics).step == 10 * METRICS_BACKLOG - 1, "how it stands now"


def test_a_version_waits_for_a_terminal_until_one_says_that_it_is_on_disk(desk: Desk) -> None:
    terminal = begun(desk)
    blobs = list(split({"manifest.json": b"x" * 9000}, 4096))
    terminal.leave()
    desk.gone()
    desk.hub.emit(protocol.Trained(run=RUN))
    desk.hub.emit(gated(""))
    for event in (protocol.Trained(run=replace(RUN, uid="r2")), *blobs, gated(blobs[0].sha256)):
        desk.hub.emit(event)
    assert not desk.hub.delivered()
    for name in ("t2", "t3"):  # t2 dies before it has written it down
        terminal = desk.terminal(name)
        terminal.send(LOAD)
        terminal.until(protocol.Ready)
        terminal.send(TEACHES)
        found = [terminal.acknowledged() for _ in range(7 if name == "t2" else 5)]
        kinds = [type(each).__name__ for each in found]
        assert kinds == [*(["Trained", "Gated"] if name == "t2" else []), "Trained", "Blob", "Blob", "Blob", "Gated"]
        if name == "t2":
            with desk.hub.changed:
                assert desk.hub.changed.wait_for(lambda: desk.hub._judge is not None and not desk.hub._judge.unacknowledged.waiting(), 10)
            terminal.leave()
            desk.gone()
    terminal.send(protocol.PublishAck(sha256=blobs[0].sha256, version="v1"))
    assert isinstance(desk.taken(4)[3], protocol.PublishAck)  # after `load`, and a stop for each terminal that was left
    with desk.hub.changed:  # the terminal's word for what it has got comes by itself
        assert desk.hub.changed.wait_for(desk.hub.delivered, 10) and not desk.hub._standing.proposal


def test_judgements_of_another_database_are_not_taken(desk: Desk) -> None:
    begun(desk, protocol.AddJudgement(lesson=lesson(7))).leave()
    desk.gone()
    other = desk.terminal("t2")
    other.send(LOAD)
    assert other.until(protocol.Ready).taught == ((7, 7),)
    other.send(protocol.Teaches(database="d2"))
    error = other.until(Error)
    assert error.fatal and error.what == "this engine teaches another database: /a.db"


def test_an_engine_is_not_loaded_twice_and_takes_what_may_change(desk: Desk) -> None:
    begun(desk).leave()
    desk.gone()
    other = desk.terminal("t2")
    other.send(replace(LOAD, model="n"))
    assert other.until(Error).what == "this engine is another: model m is loaded, and n is asked for"
    other.leave()
    desk.gone()
    third = desk.terminal("t3")
    third.send(replace(LOAD, nats=9.0, version="v4", paused=True))
    third.until(protocol.Ready)
    assert desk.commands[-1] == protocol.Set(nats=9.0)


def test_who_watches_sees_what_is_drawn_and_can_do_nothing(desk: Desk) -> None:
    request = protocol.AnswerRequest(uid="a", seed=1, messages=(Message("user", "Hi"),))
    judge = begun(desk, protocol.Generate(requests=(request,), sampling=Sampling()))
    piece = protocol.Piece(uid="a", start=0, ids=(1,), texts=("x",), logprobs=(0.0,), unbiased_logprobs=(0.0,), times=(0.0,))
    desk.hub.emit(protocol.Tokens(pieces=(piece,)))
    watcher = desk.terminal("w", "watch")
    assert [type(event).__name__ for event in watcher.events(3)] == ["Ready", "Asked", "Tokens"]
    watcher.send(protocol.AddJudgement(lesson=lesson(1)), protocol.Shutdown())
    desk.hub.emit(protocol.Trained(run=RUN))
    desk.hub.emit(protocol.Ended(uid="a", reason="eos", text="x", n_tokens=1, kl=0.0, seconds=0.1))
    assert isinstance(watcher.events(1)[0], protocol.Ended), "what is for the record is for the one that judges"
    judge.until(protocol.Ended)
    assert len(desk.commands) == 2 and not desk.ended.is_set()


def test_one_who_watches_and_does_not_read_is_let_go(desk: Desk) -> None:
    begun(desk)
    watcher = desk.terminal("w", "watch")
    watcher.until(protocol.Ready)
    for _ in range(WATCHER_BACKLOG + 20_000):
        desk.hub.emit(protocol.Notice(what="x" * 1000))
        if not desk.hub._watchers:
            break
    assert not desk.hub._watchers


def test_a_version_does_not_stand_in_the_way_of_tokens(desk: Desk) -> None:
    """Nothing of it is acknowledged: only a little is on its way, and what is said meanwhile comes at once."""
    terminal = begun(desk)
    blobs = list(split({"manifest.json": b"x" * 400_000}, 4096))
    for event in (*blobs, gated(blobs[0].sha256)):
        desk.hub.emit(event)
    desk.hub.emit(protocol.Notice(what="now"))
    terminal.until(protocol.Notice)
    assert terminal.received - 2 < 6, "pieces before it"
    assert not desk.hub.delivered()
    terminal.send(Received(n=terminal.received))
    while not isinstance(terminal.acknowledged(), protocol.Gated):
        pass
    assert terminal.received == 1 + len(blobs) + 2


def test_a_socket_is_its_owner_s_and_one_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    before = os.umask(0)
    try:
        listening = open_socket(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SocketError, match=r"an engine listens at .* already"):
        open_socket(path)
    listening.close()  # as after kill -9: the file stays
    with pytest.raises(SocketError, match="no engine listens at"):
        connect(path)
    open_socket(path).close()


def test_where_no_socket_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SocketError, match="is there and is no socket"):
        open_socket(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(SocketError, match="cannot be listened at: No such"):
        open_socket(tmp_path / "none" / "e.sock")
    with pytest.raises(SocketError, match="too long for a socket"):
        open_socket(tmp_path / ("x" * 120))


def test_an_engine_can_be_ended_by_who_may_open_its_socket(desk: Desk) -> None:
    desk.terminal("", "stop")
    assert desk.ended.wait(10)
