"""Compare: your model, the untouched one, or versions: two of them, blind, on one prompt after another; each pair has a count of its own."""

from __future__ import annotations

from string import ascii_lowercase

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from storage.blind import NOTHING, BlindCount
from tamer_tui.keys import COMPARE_KEYS, painted_all
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.choice import ChoiceScreen
from tamer_tui.screens.observing import observe
from tamer_tui.session import Change, Session
from tamer_tui.text import content
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.charts import interval
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.lines import PromptBox
from tamer_tui.wins import called

INTRODUCTION = "Two answers to one prompt, and nobody says which is whose before you choose. enter opens the first two; w chooses whose."
BAR = 16
"""Cells."""
WAITED = "both appear when both are complete"
ASKED = "which is better: a or b? t for neither"
MEANINGS = {"acting": "your model as it answers now", "base": "the untouched model"}


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
        yield Static(id="introduction")
        yield Horizontal(id="panes")
        yield Static(id="count")
        yield Foot(painted_all("compare.left", "compare.right", "compare.neither", "compare.next", "compare.who", "compare.undo"))

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
                self._grow()
            case Change.NOTICE if self.is_current:
                self.say(self.session.notice)
        if change in (Change.ENDED, Change.COMMITTED, Change.READY) and self.is_current:
            self._show()

    def on_screen_resume(self) -> None:
        self._show()

    def _open(self) -> None:
        view = self.session.duels.current
        self.query_one("#introduction").display = view is None
        self.query_one(PromptBox).display = view is not None
        self.query_one("#panes").remove_children()
        self.panes = []
        self.query_one(PromptBox).show("prompt", view.prompt.text if view is not None else "")
        if view is not None:
            self.panes = [CandidatePane(candidate) for candidate in view.candidates]
            self.query_one("#panes", Horizontal).mount_all(self.panes)
            self._grow()
        self._show()

    def _grow(self) -> None:
        """More of both answers, or all of both once they are complete."""
        view, duels = self.session.duels.current, self.session.duels
        if view is None or view.committed:
            return
        if duels.together and not view.ended:
            self._tell(f"{WAITED}: {sum(len(candidate.pieces) for candidate in view.candidates)} tokens so far")
            return
        for pane in self.panes:
            pane.reveal(INSTANT)
        if duels.together:
            self._tell(ASKED)

    def _tell(self, line: str) -> None:
        if self.is_current:
            self.say(line)

    def _show(self) -> None:
        view, duels = self.session.duels.current, self.session.duels
        for pane in self.panes:
            known = view is not None and view.committed
            best = known and view is not None and view.ranks.get(pane.view.uid) == 1
            pane.show_state("✓" if best else "", called(pane.view.side) if known else "", False, False)
        counts = duels.counts()
        told = [_won(pair, count) for pair, count in counts.items() if pair == min(pair, pair[::-1], key=_place)]
        self.query_one("#introduction", Static).update(Content("\n".join([INTRODUCTION, "", *told])))
        count = counts.get(duels.pair, NOTHING)
        bar = f"  {interval(count.low, count.rate, count.high, BAR)}" if count.rate is not None else ""
        self.query_one("#count", Static).update(content(_won(duels.pair, count) + bar))

    async def action_choose(self, slot: int) -> None:
        if self.session.duels.current is not None and not self.session.duels.current.committed:
            await attempt(self.say, lambda: self.session.duels.choose(None if slot < 0 else slot))

    async def action_next(self) -> None:
        if await attempt(self.say, self.session.duels.open_next):
            self.say(WAITED if self.session.duels.together else ASKED)

    async def action_undo(self) -> None:
        await attempt(self.say, self.session.judging.undo)

    def action_scroll(self, lines: int) -> None:
        for pane in self.panes:
            pane.reading.scroll_relative(y=lines, animate=False)

    def action_who(self) -> None:
        """One, then the other."""

        def first(one: str | None) -> None:
            async def second(other: str | None) -> None:
                if one is not None and other is not None:
                    await attempt(self.say, lambda: self.session.duels.between(one, other), "enter opens the first two answers")

            if one is not None:
                self.app.push_screen(ChoiceScreen(f"{called(one)} against", self._options(one)), second)

        if len(self.session.duels.names()) < 3:
            self.say("there are your model and the untouched one alone: versions come by judging")
        else:
            self.app.push_screen(ChoiceScreen("compare", self._options()), first)

    def _options(self, without: str = "") -> dict[str, tuple[str, str]]:
        names = [name for name in self.session.duels.names() if name != without]
        return {letter: (name, MEANINGS.get(name, "its adapter alone")) for letter, name in zip(ascii_lowercase, names)}


def _won(pair: tuple[str, str], count: BlindCount) -> str:
    one, other = map(called, pair)
    return f"{one} won {count.in_words()} against {other}" if count.n else f"{one} against {other}: nothing compared yet"


def _place(pair: tuple[str, str]) -> tuple[bool, bool, str]:
    """Where the first of a pair stands: your model before versions, and those before the untouched model."""
    return pair[0] == "base", pair[0] != "acting", pair[0]
