"""The engine process: reads commands, owns the threads, publishes versions. The only file with threads.

    reader (main thread)   stdin -> commands, handed on at once; the process ends when stdin does
    generator              the model, Ĥ, drawing; commands are taken between any two tokens
    learner                the curriculum, in small steps; it waits while somebody waits for tokens
    writer                 events -> stdout; metrics are dropped when it falls behind

Started with `python -m learners.engine` or `tamer engine`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from learners import protocol
from learners.protocol import AddJudgement, Command, Error, Event, Generate, Load, Loading, Metrics, Shutdown

SWITCH_SECONDS = 0.0005
"""How long the learner may hold the interpreter while the generator waits: Python's 5 ms at each of some hundred small operations are felt."""
NICENESS = 10
METRICS_BACKLOG = 64
"""Events waiting to be written beyond which metrics are dropped."""


class Outbox:
    """Writes events to the terminal from a thread of its own, in order."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """From any thread; never blocks."""
        if isinstance(event, Metrics) and self._queue.qsize() > METRICS_BACKLOG:
            return
        self._queue.put(event)

    def close(self) -> None:
        """Write what is waiting."""
        self._queue.put(None)
        self._thread.join(timeout=2.0)

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            while (event := self._queue.get()) is not None:
                self._stream.write(protocol.encode(event))
                if self._queue.empty():
                    self._stream.flush()
            self._stream.flush()


class Engine:
    """Hands commands to the two working threads and starts them."""

    def __init__(self, emit: Callable[[Event], None], fail: Callable[[Error], None]) -> None:
        self._emit, self._fail = emit, fail
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._wanted = threading.Event()  # somebody waits for tokens, or for Ĥ
        self._loaded = False

    def take(self, command: Command) -> None:
        """From the reader's thread; never blocks."""
        if isinstance(command, Load) and self._loaded:
            self._emit(Error(what="a model is loaded already", hint="start another engine for another model"))
        elif isinstance(command, Load):
            self._loaded = True
            self._start("generator", lambda: self._work(command))
        else:
            if isinstance(command, Generate | AddJudgement):  # the learner waits at its next forward
                self._wanted.set()
            self._commands.put(command)

    def _work(self, load: Load) -> None:
        """Load the model, then serve: the generator's thread."""
        self._emit(Loading(what="libraries"))
        gc.disable()  # until all is there: each of some hundred thousand new objects of the libraries would be looked at again and again
        from learners.engine.serving import Workers

        workers = Workers.load(load, self._emit, self._commands, self._wanted)
        gc.collect()
        gc.freeze()  # what was imported and loaded stays: the collector need not look at it again, which would stall tokens
        gc.enable()
        self._start("learner", workers.learner.run)
        workers.generator.run()

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                traceback.print_exc()
                self._fail(describe(error))

        threading.Thread(target=guarded, name=name, daemon=True).start()


def describe(error: BaseException) -> Error:
    """One clear line, and what to do."""
    what = getattr(error, "what", None)
    if what is not None:
        return Error(what=what, hint=getattr(error, "hint", ""), fatal=True)
    name = type(error).__name__
    if "OutOfMemory" in name or isinstance(error, MemoryError):
        return Error(what="out of memory", hint="try --quantize nf4, a smaller model or a smaller -k", fatal=True)
    message = next(iter(str(error).splitlines()), "no message")
    return Error(what=f"{name}: {message}", hint="the engine's log has the details", fatal=True)


def read_commands(stream: BinaryIO, emit: Callable[[Event], None]) -> Iterator[Command]:
    """Commands until the stream ends. A line that is none is answered with an error and passed over."""
    while line := stream.readline(protocol.MAX_LINE):
        try:
            yield protocol.decode_command(line)
        except msgspec.DecodeError as error:
            emit(Error(what=f"not a command: {error}", hint="the terminal and the engine must be of one version"))


def main() -> None:
    """Run the engine over this process's stdin and stdout."""
    out = os.fdopen(os.dup(1), "wb")  # libraries print: from here on stdout is stderr
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    with contextlib.suppress(OSError):
        os.nice(max(0, NICENESS - os.nice(0)))
    sys.setswitchinterval(SWITCH_SECONDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c is the terminal's: the engine ends when its stdin does
    outbox = Outbox(out)

    def fail(error: Error) -> None:
        outbox.emit(error)
        outbox.close()
        os._exit(1)

    engine = Engine(outbox.emit, fail)
    for command in read_commands(sys.stdin.buffer, outbox.emit):
        if isinstance(command, Shutdown):
            break
        engine.take(command)
    outbox.close()
    os._exit(0)  # the working threads hold nothing that is worth waiting for


if __name__ == "__main__":
    main()
