"""What the engine printed: the end of its log file, followed while it is looked at."""

from __future__ import annotations

import asyncio
from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.screen import Screen

from tamer_tui.config import engine_log
from tamer_tui.keys import LOG_KEYS, painted_all
from tamer_tui.session import Session
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.stream_view import StreamView

TAIL_BYTES = 200_000
EVERY_SECONDS = 1.0


class LogScreen(Screen[None]):
    """Stays at the end while nobody has scrolled up."""

    CSS_PATH = "log.tcss"
    BINDINGS = list(LOG_KEYS)

    def __init__(self, session: Session, path: Path | None = None) -> None:
        super().__init__()
        self._path = path or engine_log()
        self._read_to = 0

    def compose(self) -> ComposeResult:
        yield StreamView()
        yield Foot(painted_all("log.down log.up"))

    def on_mount(self) -> None:
        self.query_one(StreamView).border_title = "engine log"
        self.set_interval(EVERY_SECONDS, self._follow)
        self._follow()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def action_scroll(self, lines: int) -> None:
        self.query_one(StreamView).scroll_relative(y=lines, animate=False)

    @work(exclusive=True)
    async def _follow(self) -> None:
        if not self.is_current:
            return
        text, end = await asyncio.to_thread(tail, self._path, self._read_to)
        view = self.query_one(StreamView)
        if end < self._read_to:  # another engine began its log anew
            view.clear()
        self._read_to = end
        view.write(text)
        if not view.text:
            self.say(f"nothing was printed to {self._path}")


def tail(path: Path, since: int) -> tuple[str, int]:
    """What was added after byte `since`, at most the last TAIL_BYTES of it, and where the file ends now. All of a file that has become shorter."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(since if since <= end else 0, end - TAIL_BYTES))
            return file.read().decode("utf-8", "replace"), end
    except OSError:
        return "", 0
