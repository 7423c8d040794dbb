"""A text appears word by word; the operator presses + at each marked one; so the program learns how late their taps come."""

from __future__ import annotations

import time

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from storage.records import Calibration
from tamer_tui.calibration import MARKS, WORDS_PER_SECOND, Measurement, connection, fit, text

LEAD = "Press + as soon as a marked word appears. It takes about a minute. Space begins, esc leaves."
SHOWN_WORDS = 60


class CalibrateScreen(ModalScreen[Calibration | None]):
    """Dismisses with the window, or None."""

    DEFAULT_CSS = """
    CalibrateScreen { align: center middle; }
    CalibrateScreen #box { width: 70; height: auto; max-height: 90%; border: round $accent; padding: 1 2; background: $surface; }
    CalibrateScreen #words { height: 8; }
    """
    BINDINGS = [
        Binding("space", "begin", "begin"),
        Binding("plus,equals_sign", "press", "tap"),
        Binding("escape", "leave", "leave"),
    ]

    def __init__(self, words_per_second: float = WORDS_PER_SECOND) -> None:
        super().__init__()
        self._every = 1 / words_per_second
        self._text = text()
        self._next = 0
        self._measured = Measurement()
        self._running = False

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(Content(LEAD), id="lead")
            yield Static(id="words")
            yield Static(id="found")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "calibrate"

    def action_begin(self) -> None:
        if not self._running:
            self._running = True
            self.set_interval(self._every, self._appear)

    def action_press(self) -> None:
        delay = self._measured.press(time.monotonic()) if self._running else None
        if delay is not None:
            self._say(f"{delay:.2f} s")

    def action_leave(self) -> None:
        self.dismiss(None)

    def _appear(self) -> None:
        if self._next >= len(self._text):
            self._end()
            return
        self._next += 1
        shown = self._text[max(0, self._next - SHOWN_WORDS) : self._next]
        parts = [Content.styled(f"[{word}]", "bold reverse") if marked else Content(word) for word, marked in shown]
        self.query_one("#words", Static).update(Content(" ").join(parts))
        if shown[-1][1]:
            self.call_after_refresh(lambda: self._measured.marks.append(time.monotonic()))

    def _end(self) -> None:
        found = fit(self._measured.delays, connection())
        if found is None:
            self._running, self._next, self._measured = False, 0, Measurement()
            self._say("Too few of the marked words were answered. Space begins again.")
            return
        self.dismiss(found)

    def _say(self, line: str) -> None:
        n = len(self._measured.delays)
        self.query_one("#found", Static).update(Content(f"{line}   {n} of {MARKS}"))


class CalibrateApp(App[Calibration | None]):
    """The screen alone: `tamer calibrate`."""

    TITLE = "tamer calibrate"

    async def on_mount(self) -> None:
        self.push_screen(CalibrateScreen(), self.exit)
