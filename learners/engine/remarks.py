"""What learners warn of while they compute, such as a step that no graph could be made of: each time in the engine's log, once to the operator."""

from __future__ import annotations

import logging
from collections.abc import Callable

from learners.protocol import Event, Notice


class Remarks(logging.StreamHandler):  # type: ignore[type-arg]
    """Hears the learners' warnings from now on. One of each kind becomes a notice, whatever it was about: several trees may warn of the same."""

    def __init__(self) -> None:
        super().__init__()  # which writes to stderr
        self._kinds: set[str] = set()
        self._waiting: list[Notice] = []
        self._tell: Callable[[Event], None] = self._waiting.append  # type: ignore[assignment]
        learners = logging.getLogger("learners")
        for before in [handler for handler in learners.handlers if isinstance(handler, Remarks)]:
            learners.removeHandler(before)
        learners.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """From any thread."""
        super().emit(record)
        if record.levelno >= logging.WARNING and record.msg not in self._kinds:
            self._kinds.add(record.msg)
            self._tell(Notice(what=record.getMessage()))

    def tell(self, emit: Callable[[Event], None]) -> None:
        """What was heard so far, and all that comes."""
        with self.lock:  # type: ignore[union-attr]
            self._tell = emit
            for notice in self._waiting:
                emit(notice)
