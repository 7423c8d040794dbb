"""Compare: your model against the untouched one, blind, on one prompt after another; a count of its own."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from tamer_tui.keys import COMPARE_KEYS, painted_all
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.observing import observe
from tamer_tui.session import Change, Session
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.charts import interval
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.lines import PromptBox

INTRODUCTION = "Two answers to one prompt: one is your model's, one the untouched model's, and nobody says which. Enter opens the first two."


class CompareScreen(Screen[None]):
    """Nothing is said about who wrote what before the choice is on disk."""

    CSS_PATH = "compare.tcss"
    BINDINGS = list(COMPARE_KEYS)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.panes: list[CandidatePane] = []

    def compose(self) -> ComposeResult:
        yield PromptBox(id="prompt")
        yield Static(Content(INTRODUCTION), id="introduction")
        yield Horizontal(id="panes")
        yield Static(id="count")
        yield Foot(painted_all("compare.left", "compare.right", "compare.neither", "compare.next", "compare.undo"))

    def on_mount(self) -> None:
        observe(self.session, self, self._changed)
        self._open()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def _changed(self, change: Change) -> None:
        match change:
            case Change.DUEL:
                self._open()
            case Change.TOKENS | Change.ENDED:
                for pane in self.panes:
                    pane.reveal(INSTANT)
            case Change.NOTICE if self.is_current:
                self.say(self.session.notice)
        if change in (Change.ENDED, Change.COMMITTED):
            self._show()

    def _open(self) -> None:
        view = self.session.duels.current
        self.query_one("#introduction").display = view is None
        if view is not None:
            self.query_one("#panes").remove_children()
            self.panes = [CandidatePane(candidate) for candidate in view.candidates]
            self.query_one("#panes", Horizontal).mount_all(self.panes)
            self.query_one(PromptBox).show("prompt", view.prompt.text)
            for pane in self.panes:
                pane.reveal(INSTANT)
        self._show()

    def _show(self) -> None:
        view = self.session.duels.current
        for pane in self.panes:
            known = view is not None and view.committed
            best = known and view is not None and view.ranks.get(pane.view.uid) == 1
            pane.show_state("✓" if best else "", pane.view.policy if known else "", False, False)
        count = self.session.duels.count if self.session.store is not None else None
        if count is None or (rate := count.rate) is None:
            self.query_one("#count", Static).update(Content("nothing compared yet"))
        else:
            bar = interval(count.low, rate, count.high, 30)
            self.query_one("#count", Static).update(Content(f"you preferred yours {count.in_words()}  {bar}"))

    async def action_choose(self, slot: int) -> None:
        if self.session.duels.current is not None and not self.session.duels.current.committed:
            await attempt(self.say, lambda: self.session.duels.choose(None if slot < 0 else slot))

    async def action_next(self) -> None:
        await attempt(self.say, self.session.duels.open_next, "which is better: a or b? t for neither")

    async def action_undo(self) -> None:
        await attempt(self.say, self.session.judging.undo)

    def action_scroll(self, lines: int) -> None:
        for pane in self.panes:
            pane.reading.scroll_relative(y=lines, animate=False)
