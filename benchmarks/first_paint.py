"""How soon something is there: `tamer --version`, and the Arena's first painted frame in a real pseudo-terminal, before any model is loaded.

    python benchmarks/first_paint.py

Prints one JSON line: medians in seconds, once with a database that is there and once with one that has yet to be made. One start of each kind goes
before and is not counted, so that Python's compiled files and the disk's cache are warm, as they are for everybody but on the first day.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
TAMER = [sys.executable, "-m", "tamer_tui.cli"]
ROWS, COLUMNS = 36, 120
FIRST_WORDS = (b"Starting the engine", b"Loading")
PATIENCE = 30.0  # seconds
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def version_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([*TAMER, "--version"], check=True, capture_output=True)
    return time.perf_counter() - started


def first_paint_seconds(database: str) -> float:
    """From the start of the process to the words of the first frame; SystemExit with what was seen when none is painted."""
    started = time.perf_counter()
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [*TAMER, database, "--model", str(MODEL)])
    try:
        return _seconds_to_words(master, started)
    finally:
        _end(pid, master)


def _seconds_to_words(master: int, started: float) -> float:
    seen = b""
    while time.perf_counter() - started < PATIENCE:
        if not select.select([master], [], [], 0.05)[0]:
            continue
        try:
            seen += os.read(master, 65536)
        except OSError:  # the program has ended
            break
        if any(words in seen for words in FIRST_WORDS):
            return time.perf_counter() - started
    sys.exit(f"no frame was painted: {seen[-500:]!r}")


def _end(pid: int, master: int) -> None:
    os.kill(pid, signal.SIGTERM)
    try:
        while os.read(master, 65536):
            pass
    except OSError:
        pass
    os.close(master)
    os.waitpid(pid, 0)


def median(measure: Callable[[int], float], times: int) -> float:
    """Of so many measurements, numbered from 1, after one that warms up."""
    measure(0)
    return round(statistics.median(measure(number) for number in range(1, times + 1)), 3)


def main() -> None:
    if not MODEL.is_dir():
        sys.exit(f"the model is not at {MODEL}")
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "tamer_version_s": median(lambda _: version_seconds(), 7),
            "first_paint_s": median(lambda _: first_paint_seconds(f"{folder}/known.db"), 5),
            "first_paint_new_database_s": median(lambda number: first_paint_seconds(f"{folder}/{number}.db"), 5),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
