"""Words tinted by what a learner thinks of them: asked for when that tells nothing that should be hidden, shown when it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from learners.protocol import RewardLearner
from tamer_tui.session import Session
from tamer_tui.tint import OPINIONS, after, levels
from tamer_tui.widgets.stream_view import legend

if TYPE_CHECKING:
    from tamer_tui.screens.arena import ArenaScreen


class Tinting:
    """What `v` does."""

    def __init__(self, session: Session, screen: ArenaScreen) -> None:
        self._session, self._screen = session, screen
        self.by: RewardLearner | None = None

    def turn(self) -> None:
        """The next opinion, or plain words."""
        view, screen = self._session.current, self._screen
        if view is None:
            return
        self.by = after(self.by)
        screen.answers.untint()  # until the next opinion is there: the legend names whose it is
        screen.legend = Content("")
        if self.by is not None and view.revealed:
            screen.reveal()
            self.ask()
        elif self.by is not None:
            screen.say(f"Words are tinted by {OPINIONS[self.by]} once you commit: enter then stays here, and a second enter goes on.")

    def ask(self) -> None:
        """Tints come when the engine gets to it."""
        view = self._session.current
        if self.by and view is not None and view.revealed and self._screen.answers.complete:
            self._session.judging.appraise(self.by)

    def show(self) -> None:
        """They have come."""
        view, found, screen = self._session.current, self._session.appraisals, self._screen
        if self.by is None or self.by != self._session.appraised_by or view is None or not view.revealed:
            return
        if not found:
            screen.say(f"{OPINIONS[self.by]} has learned nothing yet")
            return
        tints = levels({uid: appraisal.rewards for uid, appraisal in found.items()})
        screen.answers.tint({uid: appraisal.texts for uid, appraisal in found.items()}, tints)
        tinted = next((pane.stream for pane in screen.answers.panes if pane.stream.tinted), None)
        screen.legend = legend(tinted, OPINIONS[self.by]) if tinted is not None else Content("")
