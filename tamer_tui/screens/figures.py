"""Figures and technical names over the Arena, where no column beside the answers has room for them."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.session import Session
from tamer_tui.widgets.details import detailed_lines


class FiguresScreen(ModalScreen[None]):
    """As it stands now, each second anew."""

    CSS_PATH = "figures.tcss"
    BINDINGS = [Binding("escape,q,D,enter", "dismiss", "close")]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            yield Static(id="text")

    def on_mount(self) -> None:
        page = self.query_one("#page")
        page.border_title, page.border_subtitle = "learning", "up and down scroll · esc closes"
        page.focus()
        self.set_interval(1.0, self._write)
        self._write()

    def _write(self) -> None:
        self.query_one("#text", Static).update(Content("\n").join(detailed_lines(self._session)))
