"""How the Arena looks: panes side by side or as tabs, the rail, what to do now and the keys that work. What keys do is in arena.py."""

from __future__ import annotations

import math
import time

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from storage.records import CRITERIA
from tamer_tui.ballot import Ballot
from tamer_tui.keys import LETTERS
from tamer_tui.session import Session
from tamer_tui.views import CandidateView, Change, EngineState, SetView
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.lines import KeyLine, Line, PromptBox
from tamer_tui.widgets.rail import Rail, duration

NARROWEST_PANE = 36
RAIL_WIDTH = 42
FRAME_SECONDS = 0.05
PACES = (3.0, 6.0, 12.0, 24.0, 48.0, INSTANT)
"""Tokens a second."""


class ArenaView(Screen[None]):
    """Shows a Session; it holds only what is typed and shown, nothing that is known."""

    CSS_PATH = "arena.tcss"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.ballot = Ballot()
        self.focused_slot = 0
        self.criterion = CRITERIA[0]
        self.frozen = False
        self.pace = PACES.index(12.0)
        self._panes: list[CandidatePane] = []
        self._set_uid = ""
        self._opened = self._ended = 0.0  # monotonic seconds
        self._drafts: dict[str, str] = {}
        self._timer: Timer | None = None
        self._narrow = False
        self._last_rail = 0.0
        self.said = ""  # the line under what to do

    def compose(self) -> ComposeResult:
        yield Line(id="heading")
        yield PromptBox(id="prompt")
        yield Static(id="tabs")
        with Container(id="main"):
            yield Container(id="panes")
            yield Rail(id="rail")
        yield Line(id="todo")
        yield Line(id="said")
        yield KeyLine()

    def on_mount(self) -> None:
        self.session.observe(self._changed)
        self._timer = self.set_interval(FRAME_SECONDS, self._frame)
        if self.session.current is not None:
            self._open()
        self._arrange()
        self.refresh_all()
        self.say(self.session.notice)  # what was told before there was a screen

    # --- what the session says ---------------------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        if not self.is_mounted:
            return
        if change is Change.SET:
            self._open()
        elif change is Change.NOTICE:
            self.say(self.session.notice)
        elif change is Change.ENDED:
            current = self.session.current
            if current is not None and current.ended:
                self._ended = time.monotonic()
        if change is not Change.TOKENS and (change is not Change.METRICS or time.monotonic() - self._last_rail > 0.2):
            self.refresh_all()

    def _open(self) -> None:
        """Another set: new panes, and what was typed about the old one is gone."""
        view = self.session.current
        if view is None:
            return
        self.ballot.clear()
        self.focused_slot, self.frozen = 0, False
        self._set_uid, self._opened, self._ended = view.uid, time.monotonic(), time.monotonic()
        self._panes = [CandidatePane(candidate) for candidate in view.candidates]
        container = self.query_one("#panes", Container)
        container.remove_children()
        container.mount_all(self._panes)
        self._arrange()

    def _frame(self) -> None:
        """Show what the pace allows."""
        if self.frozen:
            return
        unfinished = [pane for pane in self._panes if not pane.complete]
        for pane in unfinished:
            pane.reveal(PACES[self.pace] if PACES[self.pace] == INSTANT else PACES[self.pace] * FRAME_SECONDS)
        if unfinished:
            self._show_panes()
        if time.monotonic() - self._last_rail > 1.0:
            self._show_rail()

    def complete_display(self) -> None:
        """A judging key: no need to wait for the rest."""
        self.frozen = False
        for pane in self._panes:
            pane.reveal(INSTANT)

    # --- layout ----------------------------------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()
        self.refresh_all()

    def _arrange(self) -> None:
        """Side by side while each pane has its width; else one at a time, with tabs."""
        k, width = max(1, len(self._panes)), self.size.width
        room = width - RAIL_WIDTH if width >= NARROWEST_PANE + RAIL_WIDTH else width
        fits = max(1, room // NARROWEST_PANE)
        self._narrow = width < 2 * NARROWEST_PANE + RAIL_WIDTH or fits < min(k, 2)
        self.set_class(self._narrow, "narrow")
        self.set_class(self.size.height < 32, "short")
        columns = min(fits, k if k <= 3 else math.ceil(math.sqrt(k)))
        self.query_one("#panes", Container).styles.grid_size_columns = 1 if self._narrow else columns

    def refresh_all(self) -> None:
        """Everything but the answers' texts."""
        self._show_heading()
        self._show_panes()
        self._show_rail()
        self._show_todo()

    def _show_heading(self) -> None:
        session = self.session
        version, view = session.standing.acting[0], session.current
        place = str(session.database) if session.database else session.settings.model
        self.query_one("#heading", Line).show(f"tamer · {place} · {session.judged} judged · acting: {version}")
        if view is not None:
            self.query_one(PromptBox).show("prompt" + ("" if view.purpose == "judge" else " · compared with the base, not counted"), view.prompt.text)
        elif session.split.train:
            self.query_one(PromptBox).show("first prompt", session.split.train[0].text)
        else:
            self.query_one(PromptBox).show("prompt", "")

    def _show_panes(self) -> None:
        for pane in self._panes:
            pane.show_state(self._rank_mark(pane.view), pane.view.slot == self.focused_slot)
        if self._narrow:
            marks = [self._tab(pane) for pane in self._panes]
            self.query_one("#tabs", Static).update(Content.assemble(" ", *marks), layout=False)

    def _rank_mark(self, candidate: CandidateView) -> str:
        view = self.session.current
        if view is not None and view.committed and candidate.uid in view.ranks:
            return f"✓ {view.ranks[candidate.uid]}"
        return self.ballot.rank_of(candidate.slot)

    def _tab(self, pane: CandidatePane) -> Content:
        rank, focused = self._rank_mark(pane.view), pane.view.slot == self.focused_slot
        state = rank or ("" if pane.complete else "…")
        scored = "✓" if pane.view.ratings else ""
        return Content.styled(f"{'▸' if focused else ' '}{pane.view.letter} {state}{scored}  ", "bold $accent" if focused else "")

    def _show_rail(self) -> None:
        self._last_rail = time.monotonic()
        self.query_one(Rail).show(self.session, self._narrow)

    def _show_todo(self) -> None:
        self.query_one("#todo", Line).show(self._todo())
        letters = LETTERS[: len(self._panes)] if self._judgeable() is not None else ""
        span = f"{letters[0]}-{letters[-1]}" if len(letters) > 1 else letters
        self.query_one(KeyLine).show(self._working_keys(), span if len(letters) > 1 else "")

    def _todo(self) -> str:
        session, view = self.session, self.session.current
        if session.engine_state is EngineState.DEAD:
            return "The engine stopped: R restarts it. Judging goes on."
        if view is None:
            return _loading(session)
        if self.frozen:
            return "Frozen: space goes on."
        if view.purpose == "compare":
            return "The acting policy is a, the base is b; not counted. Enter goes back."
        if view.committed:
            return "✓ on disk. Enter opens the next prompt."
        if not self.ballot.empty:
            return f"{self.ballot.in_words()}   (enter commits, backspace takes back)"
        if len(view.candidates) == 1:
            return f"Score it 1-7 ({self.criterion}), or r to rewrite it, then enter."
        if len(view.candidates) == 2:
            return "Which is better? Type its letter, then enter."
        held = " p learns on." if session.standing.held else ""
        return f"Best first: type letters, then enter. Or score 1-7 ({self.criterion}).{held}"

    def _judgeable(self) -> SetView | None:
        """The set, if judging keys mean something now."""
        view = self.session.current
        return view if view is not None and not view.committed and view.purpose == "judge" else None

    def _working_keys(self) -> list[str]:
        session, view = self.session, self.session.current
        machine = ["machine.versions", "learn.pause", "learn.now", "learn.bias", "learn.nats"]
        if session.engine_state is EngineState.DEAD:
            return ["machine.restart", *(["set.commit", "set.undo"] if view else []), "screen.help", "screen.quit"]
        if view is None:
            return ["screen.help", "screen.quit"]
        if self._judgeable() is None:
            return ["set.commit", "set.undo", "screen.help", "screen.quit", "focus.next", "prompt.new", "prompt.continue", "show.freeze", *machine]
        judging = ["set.commit"] if len(view.candidates) == 1 else ["rank.tie", "set.commit"]
        typed = [] if self.ballot.empty else ["rank.back"]
        return [*judging, "set.undo", "set.skip", "screen.help", "screen.quit", *typed, "edit.rewrite", "edit.ideal", "focus.next", "prompt.new",
                "prompt.continue", "prompt.compare", "rank.bad", "score.criterion", "show.freeze", *machine]  # fmt: skip

    def say(self, line: str) -> None:
        """One line, under what to do."""
        self.said = line
        self.query_one("#said", Line).show(line)


def _loading(session: Session) -> str:
    loading = session.loading
    if loading is None:
        return "Starting the engine …"
    if session.ready is not None:
        return "Opening the first prompt …"
    share = f" {100 * loading.done / loading.total:.0f} %" if loading.total else ""
    left = f", {duration(loading.seconds_left)} left" if loading.seconds_left else ""
    return f"Loading {session.settings.model}: {loading.what}{share}{left} …"
