"""A terminal that vanishes ends the program and its engine."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pytest
from textual._xterm_parser import XTermParser
from textual.events import Key

from tamer_tui.config import config_file
from tamer_tui.keymap import PRESETS
from tamer_tui.keys import ARENA
from tamer_tui.screens.arena import GRACE_SECONDS
from tamer_tui.terminal import typed
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


def test_errors_that_go_to_a_file_leave_the_screen_where_it_is(tmp_path: Path) -> None:
    log = tmp_path / "errors"
    terminal = PseudoTerminal(["sh", "-c", f"{shlex.join(arena_command(tmp_path / 'a.db'))} 2>{log}"])
    try:
        terminal.wait_for("Best first")
        terminal.press("\x11")
        terminal.child.wait(15)
    finally:
        terminal.close()
    assert log.read_text() == ""


def _wait_until_gone(pid: int) -> None:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{pid} is still there")


SENT = {
    "a": ["a", "\x1b[97u", "\x1b[97;1u", "\x1b[97;;97u"],
    "T": ["T", "\x1b[116;2;84u", "\x1b[116;2u", "\x1b[84;2u", "\x1b[27;2;84~"],
    "1": ["1", "\x1b[49;;49u", "\x1b[38;2;49u", "\x1b[57400;;49u", "\x1bOq"],
    "7": ["7", "\x1b[232;2;55u"],
    "ampersand": ["&", "\x1b[38;;38u"],
    "é": ["é", "\x1b[233;;233u"],
    "quotation_mark": ['"', "\x1b[34;;34u"],
    "à": ["à", "\x1b[224;;224u"],
    "question_mark": ["?", "\x1b[47;2;63u", "\x1b[44;2;63u"],
    "semicolon": [";", "\x1b[59;;59u"],
    "plus": ["+", "\x1b[61;2;43u", "\x1b[57413;;43u"],
    "enter": ["\r", "\x1b[13u", "\x1b[57414u"],
    "shift+tab": ["\x1b[Z", "\x1b[9;2u"],
    "f5": ["\x1b[15~", "\x1b[15;1~"],
    "ctrl+q": ["\x11", "\x1b[113;5u"],
    "alt+enter": ["\x1b\r", "\x1b[13;3u"],
}
"""Key -> what terminals send for it: by the old protocol, by kitty's with the text and without, from QWERTY, AZERTY and the keypad."""


@pytest.mark.parametrize("key", SENT)
def test_a_key_is_the_same_key_whatever_the_terminal_and_the_keyboard(key: str) -> None:
    for sequence in SENT[key]:
        assert [typed(event).key for event in XTermParser().feed(sequence) if isinstance(event, Key)] == [key], repr(sequence)
    mapped = {one for binding in ARENA for one in (binding.key + "," + PRESETS["azerty"].get(binding.id or "", "")).split(",")}
    assert key in mapped | {"alt+enter"}, "alt+enter saves in editors"


def test_letters_and_the_upper_row_of_an_azerty_keyboard_judge_by_either_protocol(tmp_path: Path) -> None:
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text('keys = "azerty"\n')
    terminal = PseudoTerminal(arena_command(tmp_path / "a.db"))
    try:
        terminal.wait_for("Best first")
        for sent, said in (
            ("\x1b[98;;98u", "enter commits"), ("&", "scored 1 of 7"), ("\x1b[232;;232u", "scored 7 of 7"), ("\x1b[38;2;50u", "scored 2 of 7"),
        ):  # fmt: skip
            terminal.press(sent)
            terminal.wait_for(said)
        time.sleep(GRACE_SECONDS)  # a set that has only just come is not judged yet
        terminal.press("\x1b[13u")
        terminal.wait_for("on disk")
    finally:
        terminal.close()
