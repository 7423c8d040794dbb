"""How soon something is there: `tamer --version`, and the Arena's first painted frame in a real pseudo-terminal, before any model is loaded.

    python benchmarks/first_paint.py

Prints one JSON line: medians in seconds.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
TAMER = [sys.executable, "-m", "tamer_tui.cli"]


def version_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([*TAMER, "--version"], check=True, capture_output=True)
    return time.perf_counter() - started


def first_paint_seconds(folder: str) -> float:
    """From the start of the process to the words of the first frame."""
    started = time.perf_counter()
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="120", LINES="36")
        os.execv(sys.executable, [*TAMER, f"{folder}/a.db", "--model", str(MODEL)])
    seen, painted = b"", 0.0
    while not painted and time.perf_counter() - started < 30:
        if select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 65536)
            if b"Starting the engine" in seen or b"Loading" in seen:
                painted = time.perf_counter() - started
    os.kill(pid, signal.SIGTERM)
    try:
        while os.read(master, 65536):
            pass
    except OSError:
        pass
    os.waitpid(pid, 0)
    return painted


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        versions = [version_seconds() for _ in range(7)]
        paints = [first_paint_seconds(folder) for _ in range(5)]
    figures = {"tamer_version_s": statistics.median(versions), "first_paint_s": statistics.median(paints)}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
