"""The Arena's layout as its size and its answers change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tamer_tui.screens.arrangement import are_brief, arrange
from tamer_tui.widgets.rail import Rail

if TYPE_CHECKING:
    from tamer_tui.screens.arena import ArenaScreen


class Arranging:
    """Short answers are a grid where long ones are tabs. A set begins as the last one ended."""

    def __init__(self, screen: ArenaScreen) -> None:
        self._screen = screen
        self._brief = True  # no answer is longer than a few lines, as far as it has come

    def expect(self, k: int) -> None:
        """K answers will take the place of those that are there."""
        self._brief = are_brief([pane.stream.text for pane in self._screen.answers.panes], k, *self._screen.size)

    def refit(self) -> None:
        """Another size: what was too long for the old one may fit now."""
        if answers := self._screen.answers.panes:
            self.expect(len(answers))
        self.arrange()

    def outgrow(self) -> None:
        """An answer is longer than its pane."""
        self._brief = False
        self.arrange()

    def arrange(self) -> None:
        """Anew."""
        screen, answers = self._screen, self._screen.answers
        found = arrange(len(answers.panes) or screen.session.settings.k, *screen.size, self._brief)
        screen.set_class(not found.rail, "stacked")
        screen.set_class(found.short, "short")
        screen.set_class(found.tiny, "tiny")
        screen.query_one(Rail).narrow = not found.rail
        answers.styles.grid_size_columns = found.columns if answers.panes else 1
        answers.set_class(found.tabs and bool(answers.panes), "tabs")
        answers.previews = found.previews
