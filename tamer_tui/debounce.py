"""A key that is held sends itself over and over: it is one tap, with a count."""

from __future__ import annotations

from dataclasses import dataclass

DEBOUNCE_SECONDS = 0.08
"""Presses closer than this are one: a key that is held."""


@dataclass
class Press:
    """One tap in the making."""

    value: float
    key: str
    answer: str  # uid of the one that was there
    seconds: float  # of the first press
    last: float
    repeat: int = 1


class Debounce:
    """Makes one tap of a held key."""

    def __init__(self) -> None:
        self._held: Press | None = None

    def press(self, value: float, key: str, answer: str, seconds: float) -> Press | None:
        """A key came. Returns the tap before it, if this is another one."""
        held = self._held
        if held is not None and (held.key, held.answer) == (key, answer) and seconds - held.last <= DEBOUNCE_SECONDS:
            held.last, held.repeat = seconds, held.repeat + 1
            return None
        self._held = Press(value, key, answer, seconds, seconds)
        return held

    def settle(self, seconds: float) -> Press | None:
        """The tap that is complete by now."""
        held = self._held
        if held is None or seconds - held.last <= DEBOUNCE_SECONDS:
            return None
        self._held = None
        return held
