"""How the Arena looks: panes side by side or as tabs, the rail, what to do now and the keys that work. What keys do is in arena.py."""

from __future__ import annotations

import time
from pathlib import Path

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.screen import Screen

from learners.protocol import RewardLearner
from storage.records import CRITERIA
from tamer_tui.ballot import Ballot
from tamer_tui.dealing import Dealer
from tamer_tui.screens.arrangement import Arrangement, arrange
from tamer_tui.screens.guidance import Guidance, judgeable
from tamer_tui.session import Session, SessionError
from tamer_tui.tint import OPINIONS, levels
from tamer_tui.views import CandidateView, Change, SetView
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.lines import KeyLine, Line, PromptBox
from tamer_tui.widgets.rail import Rail
from tamer_tui.widgets.stream_view import legend
from tamer_tui.widgets.tabs import Tab, TabStrip
from tamer_tui.widgets.welcome import Welcome

FRAME_SECONDS = 0.05
RAIL_SECONDS = 0.2
"""Between two paintings of the rail while figures arrive; without any, once a second."""
PACES = (3.0, 6.0, 12.0, 24.0, 48.0, INSTANT)
"""Tokens a second."""


PURPOSES = {"compare": " · compared with the base, not counted", "tap": " · tap view"}


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
        self.tinting: RewardLearner | None = None  # words are tinted by it as soon as that tells nothing that should be hidden
        self.pace = PACES.index(12.0)
        self.said = ""  # the line under what to do
        self._hurried = False  # a judging key was pressed: this set shows as it comes
        self._undoable = False
        self._panes: list[CandidatePane] = []
        self._arrangement = Arrangement(1, False, False, True)
        self._opened = self._ended = 0.0  # monotonic seconds
        self._drafts: dict[str, str] = {}
        self._first_prompt = ""
        self._last_rail = 0.0

    def compose(self) -> ComposeResult:
        yield Line(id="heading")
        yield PromptBox(id="prompt")
        yield TabStrip(id="tabs")
        with Container(id="main"):
            with Container(id="panes"):
                yield Welcome()
            yield Rail(id="rail")
        yield Line(id="todo")
        yield Line(id="said")
        yield KeyLine()

    def on_mount(self) -> None:
        self.session.observe(self._changed)
        self._first_prompt = _first_prompt(self.session)
        self._know_undo()
        self.set_interval(FRAME_SECONDS, self._frame)
        if self.session.current is not None:
            self._open()
        self._arrange()
        self.refresh_all()
        self.say(self.session.notice)  # what was told before there was a screen

    # --- what the session says ---------------------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        if not self.is_mounted:
            return
        match change:
            case Change.TOKENS:
                self._show_first_tokens()
                return
            case Change.METRICS if time.monotonic() - self._last_rail < RAIL_SECONDS:
                return
            case Change.SET:
                self._open()
            case Change.NOTICE:
                self.say(self.session.notice)
            case Change.APPRAISED:
                self._show_tints()
            case Change.ENDED if self.session.current is not None and self.session.current.ended:
                self._ended = time.monotonic()
        if change in (Change.SET, Change.COMMITTED, Change.READY):
            self._know_undo()
        self.refresh_all()

    def _open(self) -> None:
        """Another set: panes are used again, and what was typed about the old one is gone."""
        view = self.session.current
        if view is None:
            return
        self.ballot.clear()
        self.focused_slot, self.frozen, self._hurried = 0, False, False
        self._opened = self._ended = time.monotonic()
        kept, surplus = self._panes[: len(view.candidates)], self._panes[len(view.candidates) :]
        for pane, candidate in zip(kept, view.candidates):
            pane.open(candidate)
        for pane in surplus:
            pane.remove()
        fresh = [CandidatePane(candidate) for candidate in view.candidates[len(kept) :]]
        self._panes = [*kept, *fresh]
        self.query_one(Welcome).display = False
        self.query_one("#panes", Container).mount_all(fresh)
        self._arrange()
        self.say(self.said)  # without the legend of the old set's tints

    def _know_undo(self) -> None:
        try:
            self._undoable = self.session.record.last_undoable() is not None
        except SessionError:
            self._undoable = False

    # --- at reading pace ---------------------------------------------------------------------------------------------

    def _frame(self) -> None:
        """Show what the pace allows."""
        unfinished = [pane for pane in self._panes if not pane.complete]
        if unfinished:
            if not self.frozen:
                pace = INSTANT if self._hurried else PACES[self.pace]
                for pane in unfinished:
                    pane.reveal(pace if pace == INSTANT else pace * FRAME_SECONDS)
                self.tint_words()
            self._show_panes()
        self.show_more()
        if time.monotonic() - self._last_rail > 1.0:
            self._show_rail()

    def show_more(self) -> None:
        """More of the answers has appeared."""

    def _show_first_tokens(self) -> None:
        """The first token of an answer waits for no pace."""
        if not self.frozen:
            for pane in self._panes:
                if not pane.begun:
                    pane.reveal(0.0)
            self.show_more()

    def complete_display(self) -> None:
        """A judging key: no need to wait for the rest, nor for what is still to come."""
        self.frozen, self._hurried = False, True
        for pane in self._panes:
            pane.reveal(INSTANT)

    # --- tint ------------------------------------------------------------------------------------------------------------

    def tint_words(self) -> None:
        """Ask for tints, if they are wanted and may be shown now; they come when the engine gets to it."""
        view = self.session.current
        if self.tinting and view is not None and view.revealed and all(pane.complete for pane in self._panes):
            self.session.judging.appraise(self.tinting)

    def plain_words(self) -> None:
        """Without tints."""
        for pane in self._panes:
            pane.stream.untint()
        self.say(self.said)

    def _show_tints(self) -> None:
        view, found = self.session.current, self.session.appraisals
        if self.tinting != self.session.appraised_by or view is None or not view.revealed:
            return
        if not found:
            self.say(f"{OPINIONS[self.tinting]} has learned nothing yet")
            return
        tints = levels({uid: appraisal.rewards for uid, appraisal in found.items()})
        for pane in self._panes:
            if pane.view.uid in found:
                pane.stream.tint(found[pane.view.uid].texts, tints[pane.view.uid])
        self.say(self.said)

    # --- layout ----------------------------------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()
        self.refresh_all()

    def _arrange(self) -> None:
        k = len(self._panes) or self.session.settings.k
        self._arrangement = found = arrange(k, self.size.width, self.size.height)
        self.set_class(found.tabs and bool(self._panes), "tabs")
        self.set_class(not found.rail, "stacked")
        self.set_class(found.short, "short")
        self.query_one("#panes", Container).styles.grid_size_columns = found.columns if self._panes else 1

    def refresh_all(self) -> None:
        """Everything but the answers' texts."""
        self._show_heading()
        self._show_panes()
        self._show_rail()
        self._show_todo()

    def _show_heading(self) -> None:
        session, view = self.session, self.session.current
        status, place = session.status, _shortened(session.database) if session.database else session.settings.model
        learning = " · learning is held" if status.held else " · learning is paused" if status.paused else ""
        acting = f"acting: {status.policy}" if session.ready is not None else "no model yet"
        self.query_one("#heading", Line).show(f"· {acting}{learning} · {session.judged} judged · {place}", "tamer ")
        prompt = self.query_one(PromptBox)
        if view is not None:
            prompt.show("prompt" + PURPOSES.get(view.purpose, ""), view.prompt.text)
        else:
            prompt.show("first prompt" if self._first_prompt else "prompt", self._first_prompt)
            self.query_one(Welcome).show(session)

    def _show_panes(self) -> None:
        view = self.session.current
        for pane in self._panes:
            pane.show_state(self._rank_mark(pane.view), _revealed_policy(view, pane.view), pane.view.slot == self.focused_slot, self.frozen)
        if self._arrangement.tabs:
            self.query_one(TabStrip).show([self._tab(pane) for pane in self._panes])

    def _rank_mark(self, candidate: CandidateView) -> str:
        view = self.session.current
        if view is not None and view.committed and candidate.uid in view.ranks:
            return f"✓ {view.ranks[candidate.uid]}"
        return self.ballot.rank_of(candidate.slot)

    def _tab(self, pane: CandidatePane) -> Tab:
        state = self._rank_mark(pane.view) or ("" if pane.complete else "…")
        scored = " ✓" if pane.view.ratings else ""
        return Tab(pane.view.letter, state + scored, pane.view.slot == self.focused_slot)

    def _show_rail(self) -> None:
        self._last_rail = time.monotonic()
        self.query_one(Rail).show(self.session, not self._arrangement.rail)

    def _show_todo(self) -> None:
        guidance = Guidance(self.session, self.ballot, self.criterion, self.frozen, self._undoable)
        self.query_one("#todo", Line).show(guidance.todo())
        self.query_one(KeyLine).show(guidance.keys(), guidance.spans())

    def _judgeable(self) -> SetView | None:
        """The set, if judging keys mean something now."""
        return self.session.current if judgeable(self.session.current) else None

    def say(self, line: str) -> None:
        """One line, under what to do."""
        self.said = line
        tinted = next((pane.stream for pane in self._panes if pane.stream.tinted), None)
        self.query_one("#said", Line).show(line, legend(tinted, OPINIONS[self.tinting]) if tinted is not None and self.tinting else "")


def _first_prompt(session: Session) -> str:
    """What will be asked first, as far as that is known before the model is there."""
    try:
        judged = session.record.judged_prompts()
    except SessionError:
        judged = set()
    prompt = Dealer(session.split.train, session.settings.k, session.settings.seed, judged, 0).peek()
    return prompt.text if prompt is not None else ""


def _revealed_policy(view: SetView | None, candidate: CandidateView) -> str:
    """Who wrote an answer: only after the commit, or in a comparison that is not counted."""
    return candidate.policy if view is not None and (view.committed or view.purpose == "compare") else ""


def _shortened(path: Path) -> str:
    try:
        return f"~/{path.resolve().relative_to(Path.home())}"
    except ValueError:
        return str(path)
