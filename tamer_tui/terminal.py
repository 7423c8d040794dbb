"""The terminal as it is: it can vanish, which must end the program and not block it for ever; older ones send alt+enter as two characters, and some
newer ones send keys without their text.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from textual._ansi_sequences import ANSI_SEQUENCES_KEYS  # private; the version of textual is pinned, and a test presses the key
from textual.events import Key
from textual.message import Message

try:
    from textual.drivers.linux_driver import LinuxDriver
except ImportError:  # a system without termios, as Windows: Textual's own driver serves there
    LinuxDriver = object  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from textual.app import App


class _Chord(StrEnum):
    """Keys that Textual knows from newer terminals only."""

    ALT_ENTER = "alt+enter"


ANSI_SEQUENCES_KEYS["\x1b\r"] = (_Chord.ALT_ENTER,)  # type: ignore[index]


POSIX = LinuxDriver is not object
LOOK_SECONDS = 1.0
"""A screen on which nothing changes writes nothing, and would not learn that its terminal is gone."""


KEYPAD = {"add": "plus", "subtract": "minus"}
"""Its digits and its enter are the others' already."""


class Endable(Protocol):
    """What an app offers whose terminal may go."""

    def end(self, why: str) -> None:
        """Leave, and remember why."""


class Vanishing:
    """A terminal to write to. When it is gone, what is written goes nowhere, and `gone` is called once, from the writing thread."""

    def __init__(self, file: TextIO, gone: Callable[[], None]) -> None:
        self._file, self._gone, self._lost = file, gone, False

    def write(self, text: str) -> int:
        """How much was taken: all of it."""
        self._unless_lost(lambda: self._file.write(text))
        return len(text)

    def flush(self) -> None:
        """To the screen, if there is one."""
        self._unless_lost(self._file.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _unless_lost(self, work: Callable[[], object]) -> None:
        if self._lost:
            return
        try:
            work()
        except (OSError, ValueError):
            self._lost = True
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._file.fileno())  # what is buffered still has to go somewhere
            self._gone()


class TerminalDriver(LinuxDriver):
    """Textual's writing thread dies of a closed terminal, and whoever waits for room in its queue waits for ever: this one lives on."""

    def __init__(self, app: App[Any], **settings: Any) -> None:
        super().__init__(app, **settings)
        loop = asyncio.get_running_loop()

        def end() -> None:
            cast(Endable, app).end("its terminal was gone")

        def gone() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(end)

        def look() -> None:
            if hung_up(self.fileno):
                end()
            else:
                loop.call_later(LOOK_SECONDS, look)

        errors = sys.__stderr__  # what Textual paints on
        screen = errors if errors is not None and errors.isatty() else cast(TextIO, sys.__stdout__)
        self._file: Any = Vanishing(screen, gone)
        loop.call_later(LOOK_SECONDS, look)


    def process_message(self, message: Message) -> None:
        """On the way to the app."""
        super().process_message(typed(message) if isinstance(message, Key) else message)


def typed(key: Key) -> Key:
    """What a key stands for. Terminals that tell keys and not their text say shift+t where others say T; kitty tells the keypad's keys apart."""
    if key.key in KEYPAD:
        return Key(KEYPAD[key.key], key.character)
    letter = key.key.removeprefix("shift+")
    return Key(letter.upper(), letter.upper()) if len(letter) == 1 and letter != key.key and letter.isalpha() else key


def hung_up(descriptor: int) -> bool:
    """Whether nobody is at the other end of a terminal any more."""
    watched = select.poll()
    watched.register(descriptor, 0)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in watched.poll(0))
