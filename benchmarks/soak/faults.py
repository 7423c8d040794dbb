"""What can befall a sitting: each fault is a function of the running soak, which brings it about and takes it away again."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.soak.requests import ask

if TYPE_CHECKING:
    from benchmarks.soak.supervisor import Soak

SECONDS = 3.0
"""How long a fault lasts that does not end by itself."""


def engine_killed(soak: Soak) -> None:
    soak.signal(soak.engine, signal.SIGKILL)


def engine_stands_still(soak: Soak) -> None:
    soak.signal(soak.engine, signal.SIGSTOP)
    soak.rest(SECONDS)
    soak.signal(soak.engine, signal.SIGCONT)


def engine_hangs(soak: Soak) -> None:
    """For good: somebody has to see it."""
    soak.signal(soak.engine, signal.SIGSTOP)


def pipe_dropped(soak: Soak) -> None:
    """The engine cannot be heard any more, and lives on."""
    ask(soak.folder, "drop")


def pipe_broken_in_a_line(soak: Soak) -> None:
    ask(soak.folder, "half")


def losses_are_no_numbers(soak: Soak) -> None:
    ask(soak.folder, "nan", str(soak.random.randint(1, 20)))


def learning_out_of_memory(soak: Soak) -> None:
    ask(soak.folder, "learning-memory", str(soak.random.randint(1, 3)))


def drawing_out_of_memory(soak: Soak) -> None:
    ask(soak.folder, "drawing-memory", str(soak.random.randint(1, 2)))


def terminal_killed(soak: Soak) -> None:
    soak.end_terminal(lambda: soak.signal(soak.terminal.child.pid, signal.SIGKILL), -signal.SIGKILL)
    soak.start()


def terminal_ended(soak: Soak) -> None:
    soak.end_terminal(lambda: soak.signal(soak.terminal.child.pid, signal.SIGTERM), 0)
    soak.start()


def window_closed(soak: Soak) -> None:
    soak.end_terminal(soak.terminal.vanish, 0)
    soak.start()


def machine_sleeps(soak: Soak) -> None:
    """All processes of the sitting stand still, and go on."""
    pids = [soak.terminal.child.pid, soak.engine]
    with soak.standing_still():
        for pid in pids:
            soak.signal(pid, signal.SIGSTOP)
        soak.rest(SECONDS)
        for pid in pids:
            soak.signal(pid, signal.SIGCONT)


def clock_stops(soak: Soak) -> None:
    """The wall clock of the terminal stands still and is then an hour slow."""
    ask(soak.folder, "clock")
    soak.rest(2 * SECONDS)


def disk_full(soak: Soak) -> None:
    """Until something was refused, which on a busy machine may be late. SQLite's log is folded in before: as long as it has old pages to write over,
    it needs no room."""
    before, end = soak.refusals.total(), time.monotonic() + 30 * SECONDS
    with closing(sqlite3.connect(soak.database)) as connection:
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and time.monotonic() < end:
            soak.rest(0.2)  # somebody reads or writes
    with soak.disk.full():
        soak.rest(SECONDS)
        while soak.refusals.total() == before and time.monotonic() < end:
            soak.rest(0.2)


def disk_full_at_the_start(soak: Soak) -> None:
    soak.end_terminal(lambda: soak.signal(soak.terminal.child.pid, signal.SIGKILL), -signal.SIGKILL)
    with soak.disk.full():
        soak.start_in_vain()
    soak.start()


def writing_forbidden(soak: Soak) -> None:
    with forbidden(soak.disk.folder):
        soak.rest(SECONDS)


def writing_forbidden_at_the_start(soak: Soak) -> None:
    soak.end_terminal(lambda: soak.signal(soak.terminal.child.pid, signal.SIGKILL), -signal.SIGKILL)
    with forbidden(soak.disk.folder):
        soak.start_in_vain()
    soak.start()


GENTLE: tuple[Callable[[Soak], None], ...] = (
    engine_stands_still, losses_are_no_numbers, learning_out_of_memory, drawing_out_of_memory, machine_sleeps, clock_stops, disk_full,
    writing_forbidden,
)  # fmt: skip
"""After which the same two processes go on."""
DEADLY: tuple[Callable[[Soak], None], ...] = (
    engine_killed, engine_hangs, pipe_dropped, pipe_broken_in_a_line, terminal_killed, terminal_ended, window_closed, disk_full_at_the_start,
    writing_forbidden_at_the_start,
)  # fmt: skip


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """Nothing in the folder, nor the folder, may be written."""
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.lstat().st_mode & 0o7777 for path in everything if path.exists()}
    for path in modes:
        _change(path, 0o500 if path.is_dir() else 0o400)
    try:
        yield
    finally:
        for path, mode in modes.items():
            _change(path, mode)


def _change(path: Path, mode: int) -> None:
    try:
        os.chmod(path, mode)
    except FileNotFoundError:  # a log of SQLite's that was folded in meanwhile
        return
