"""What the doctor says of a terminal, on a real pseudo-terminal of each kind."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

LOOK = "from tamer_tui.doctor import _terminal; import json, sys; json.dump(_terminal(), open(sys.argv[1], 'w'))"


def seen(tmp_path: object, columns: int, rows: int, **environment: str) -> tuple[str, list[str]]:
    import json
    from pathlib import Path

    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    path = Path(str(tmp_path)) / "seen.json"
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "PYTHONIOENCODING", "PYTHONUTF8")}
    subprocess.run([sys.executable, "-c", LOOK, str(path)], stdin=terminal, stdout=terminal, env=clean | environment, check=True)
    os.close(master), os.close(terminal)
    name, problems = json.loads(path.read_text())
    return name, problems


def test_a_terminal_that_will_do_is_described_without_complaint(tmp_path: object) -> None:
    assert seen(tmp_path, 80, 24, TERM="xterm-256color", PYTHONIOENCODING="utf-8") == ("xterm-256color, 80x24, utf-8", [])


@pytest.mark.parametrize(
    ("columns", "rows", "environment", "said"),
    [
        (60, 24, {}, "60x24"),
        (80, 20, {}, "80x20"),
        (80, 24, {"TERM": "dumb"}, "xterm-256color"),
        (80, 24, {"PYTHONIOENCODING": "latin-1"}, "LANG=C.UTF-8"),
    ],
)
def test_what_stands_in_the_way_is_said_with_what_to_do(tmp_path: object, columns: int, rows: int, environment: dict[str, str], said: str) -> None:
    _, (problem,) = seen(tmp_path, columns, rows, **({"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | environment))
    assert said in problem
