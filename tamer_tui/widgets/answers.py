"""The answers of the set that is open: panes side by side or behind tabs, shown at reading pace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from textual.app import ComposeResult
from textual.containers import Container
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var

from tamer_tui.ballot import Ballot
from tamer_tui.session import CandidateView, Session, SetView
from tamer_tui.text import one_line
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.tabs import Tab, TabStrip
from tamer_tui.widgets.welcome import Welcome

FRAME_SECONDS = 0.05
PREVIEW = 300
"""Characters that a row could hold."""


class Answers(Container):
    """Shows session.current. What stands in its reactives comes from the screen around it.

    An answer that is tapped is reported to the session as it appears, word by word, at the moment when it does.
    """

    DEFAULT_CSS = """
    Answers { width: 1fr; height: 1fr; layout: grid; grid-size: 1; grid-gutter: 0; }
    Answers TabStrip { display: none; }
    Answers.tabs { layout: vertical; }
    Answers.tabs TabStrip { display: block; }
    Answers.tabs CandidatePane { display: none; }
    Answers.tabs CandidatePane.focused { display: block; }
    """

    ballot: var[Ballot] = var(Ballot(), init=False)
    focused_slot: var[int] = var(0, init=False)
    frozen: var[bool] = var(False, init=False)
    markdown: var[bool] = var(True, init=False)  # finished answers are rendered
    folded: var[bool] = var(True, init=False)  # their thoughts are one line
    pace: var[float] = var(12.0, init=False)  # tokens a second
    revision: var[int] = var(0, init=False)  # of what the session says

    previews: var[bool] = var(False, init=False)  # tabs with the first words of their answers

    class Overflowed(Message):
        """An answer is longer than its pane."""

    class Completed(Message):
        """Everything there will be of the set is on the screen now."""

    def __init__(self, session: Session, id: str | None = None) -> None:
        super().__init__(id=id)
        self._session = session
        self.panes: list[CandidatePane] = []
        self._hurried = False  # a judging key was pressed: this set shows as it comes
        self._overflowed_at: Size | None = None

    def compose(self) -> ComposeResult:
        yield TabStrip(id="tabs")
        yield Welcome(self._session).data_bind(Answers.revision)

    def on_mount(self) -> None:
        self.set_interval(FRAME_SECONDS, self.frame)

    @property
    def focused_pane(self) -> CandidatePane | None:
        """The pane that keys are about."""
        return self.panes[self.focused_slot] if self.focused_slot < len(self.panes) else None

    @property
    def complete(self) -> bool:
        """Whether everything there will be is on the screen."""
        return all(pane.complete for pane in self.panes)

    def open(self, view: SetView) -> None:
        """Another set: panes are used again."""
        self._hurried = False
        kept, surplus = self.panes[: len(view.candidates)], self.panes[len(view.candidates) :]
        for pane, candidate in zip(kept, view.candidates):
            pane.open(candidate)
        for pane in surplus:
            pane.remove()
        fresh = [CandidatePane(candidate) for candidate in view.candidates[len(kept) :]]
        self.panes = [*kept, *fresh]
        self.query_one(Welcome).display = False
        self.mount_all(fresh)
        self._choose_reading()

    # --- at reading pace -------------------------------------------------------------------------------------------------

    def frame(self) -> None:
        """Show what the pace allows."""
        unfinished = [pane for pane in self.panes if not pane.complete]
        if unfinished and self._seen:
            if not self.frozen:
                pace = INSTANT if self._hurried else self.pace
                for pane in unfinished:
                    pane.reveal(pace if pace == INSTANT else pace * FRAME_SECONDS)
                if self.complete:
                    self.post_message(self.Completed())
            self.show_state()
        self._watch_for_overflow()
        self._report()

    def _watch_for_overflow(self) -> None:
        """Told when it was so in two frames: while another size is laid out, panes are too narrow for a moment."""
        overflow = not self.has_class("tabs") and any(pane.overflows for pane in self.panes)
        if overflow and self._overflowed_at == self.size:
            self.post_message(self.Overflowed())
        self._overflowed_at = self.size if overflow else None

    def show_first_tokens(self) -> None:
        """The first token of an answer waits for no pace."""
        if not self.frozen and self._seen:
            for pane in self.panes:
                if not pane.begun:
                    pane.reveal(0.0)
            self._report()

    @property
    def _seen(self) -> bool:
        """Words of an answer that is tapped wait while another screen is on: what nobody saw was not shown."""
        return self._session.taps.answer is None or self.screen.is_current

    def reveal_all(self) -> None:
        """A judging key: no need to wait for the rest, nor for what is still to come."""
        self._hurried = True
        for pane in self.panes:
            pane.reveal(INSTANT)
        self._report()
        self.show_state()

    def _report(self) -> None:
        if self.panes:
            self._session.taps.show(self.panes[0].tokens_shown, time.monotonic())

    # --- marks and tints -------------------------------------------------------------------------------------------------

    def mark_taps(self) -> None:
        """Live taps stand in the gutter of the answer that they are about."""
        if self.panes and self._session.taps.answer is not None:
            self.panes[0].mark(self._session.taps.marks())

    def tint(self, texts: Mapping[str, Sequence[str]], levels: Mapping[str, Sequence[int]]) -> None:
        """Each piece of these answers at its level."""
        for pane in self.panes:
            if pane.view.uid in texts:
                pane.stream.tint(texts[pane.view.uid], levels[pane.view.uid])
                pane.choose_reading()

    def untint(self) -> None:
        """Plain words."""
        for pane in self.panes:
            pane.stream.untint()
            pane.choose_reading()

    # --- frames, letters and places ----------------------------------------------------------------------------------------

    def watch_ballot(self) -> None:
        self.show_state()

    def watch_focused_slot(self) -> None:
        self.show_state()

    def watch_frozen(self) -> None:
        self.show_state()

    def watch_markdown(self) -> None:
        self._choose_reading()

    def watch_folded(self) -> None:
        self._choose_reading()

    def _choose_reading(self) -> None:
        for pane in self.panes:
            pane.markdown, pane.folded = self.markdown, self.folded
            pane.choose_reading()

    def watch_previews(self) -> None:
        self.show_state()

    def watch_revision(self) -> None:
        self.show_state()

    def show_state(self) -> None:
        """Everything about the answers but their texts."""
        view = self._session.current
        for pane in self.panes:
            focused = pane.view.slot == self.focused_slot
            pane.show_state(self._rank_mark(pane.view), _revealed_policy(view, pane.view), focused, self.frozen)
        if self.panes:
            self.query_one(TabStrip).show([self._tab(pane) for pane in self.panes], self.previews)

    def _rank_mark(self, candidate: CandidateView) -> str:
        view = self._session.current
        if view is not None and view.committed and candidate.uid in view.ranks:
            return f"✓ {view.ranks[candidate.uid]}"
        return self.ballot.rank_of(candidate.slot)

    def _tab(self, pane: CandidatePane) -> Tab:
        state = self._rank_mark(pane.view) or ("" if pane.complete else "…")
        scored = " ✓" if pane.view.ratings else ""
        first = one_line(pane.stream.text[:PREVIEW]) if self.previews else ""
        return Tab(pane.view.letter, state + scored, pane.view.slot == self.focused_slot, first)


def _revealed_policy(view: SetView | None, candidate: CandidateView) -> str:
    """Who wrote an answer: only after the commit, or in a comparison that is not counted."""
    return candidate.policy if view is not None and (view.committed or view.purpose == "compare") else ""
