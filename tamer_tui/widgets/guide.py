"""The lowest lines of the Arena: what to do now, what was said last, and the keys that work now."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from storage.records import CRITERIA
from tamer_tui.ballot import Ballot
from tamer_tui.session import Session
from tamer_tui.widgets.guidance import Guidance
from tamer_tui.widgets.lines import KeyLine, Line


class Guide(Vertical):
    """What stands in its reactives comes from the screen around it."""

    DEFAULT_CSS = """
    Guide { height: auto; width: 1fr; }
    Guide #todo { text-style: bold; }
    Guide #tour { display: none; height: auto; max-height: 3; padding: 0 1; background: $accent 20%; }
    Guide #said { color: $foreground 70%; }
    """

    ballot: var[Ballot] = var(Ballot(), init=False)
    criterion: var[str] = var(CRITERIA[0], init=False)
    frozen: var[bool] = var(False, init=False)
    undoable: var[bool] = var(False, init=False)
    revision: var[int] = var(0, init=False)  # of what the session says
    said: var[str] = var("", init=False)
    legend: var[Content] = var(Content(""), init=False)  # of the tints, while there are any

    tour_line: var[str] = var("", init=False)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def compose(self) -> ComposeResult:
        yield Static(id="tour")
        yield Line(id="todo")
        yield Line(id="said")
        yield KeyLine()

    def watch_ballot(self) -> None:
        self._advise()

    def watch_criterion(self) -> None:
        self._advise()

    def watch_frozen(self) -> None:
        self._advise()

    def watch_undoable(self) -> None:
        self._advise()

    def watch_revision(self) -> None:
        self._advise()

    def watch_said(self) -> None:
        self.query_one("#said", Line).show(self.said, self.legend)

    def watch_legend(self) -> None:
        self.query_one("#said", Line).show(self.said, self.legend)

    def watch_tour_line(self) -> None:
        tour = self.query_one("#tour", Static)
        tour.display = bool(self.tour_line)
        tour.update(Content(self.tour_line))

    def _advise(self) -> None:
        guidance = Guidance(self._session, self.ballot, self.criterion, self.frozen, self.undoable)
        self.query_one("#todo", Line).show(guidance.todo())
        self.query_one(KeyLine).show(guidance.keys(), guidance.spans())
