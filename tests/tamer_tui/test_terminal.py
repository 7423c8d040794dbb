"""A terminal that vanishes ends the program and its engine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.tamer_tui.pseudo_terminal import PseudoTerminal, arena_command


@pytest.mark.parametrize(("controlling", "seconds"), [(True, 0.8), (False, 2.0)])  # closing it sends SIGHUP; otherwise only writing fails
def test_a_closed_window_ends_both_processes(tmp_path: Path, controlling: bool, seconds: float) -> None:
    engine_pid = tmp_path / "engine.pid"
    terminal = PseudoTerminal(arena_command(tmp_path / "a.db", f"sh -c 'echo $$ >{engine_pid}; cat >/dev/null'"), controlling=controlling)
    try:
        terminal.wait_for("Starting the engine")
        terminal.rest(seconds)
        terminal.press("???")
        terminal.vanish()
        terminal.child.wait(15)
    finally:
        terminal.close()
    _wait_until_gone(int(engine_pid.read_text()))
    assert not (tmp_path / "a.db.lock").exists()


def _wait_until_gone(pid: int) -> None:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} is still there")


def test_alt_enter_is_one_key_in_terminals_that_send_it_as_escape_and_return() -> None:
    from textual._xterm_parser import XTermParser

    import tamer_tui.terminal  # noqa: F401

    keys = [getattr(event, "key", None) for event in XTermParser(debug=False).feed("\x1b\rx\r")]
    assert keys == ["alt+enter", "x", "enter"]
