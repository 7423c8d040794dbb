"""What is said of the focused answer in the operator's own words: rewritten, criticised, flagged, commented, gone on from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tamer_tui.screens.choice import FLAGS, ChoiceScreen
from tamer_tui.screens.critique import WishesScreen
from tamer_tui.screens.writing import Writing
from tamer_tui.session import Session
from tamer_tui.text import one_line

if TYPE_CHECKING:
    from tamer_tui.screens.arena import ArenaScreen

WORDS = 30
"""Characters of a flagged span that are said."""


class Remarks:
    """Between the keys of the Arena and its editors: which answer they are about, and whether it is time for them."""

    def __init__(self, session: Session, screen: ArenaScreen, writing: Writing) -> None:
        self._session, self._screen, self._writing = session, screen, writing

    async def rewrite(self) -> None:
        """As it should have been."""
        candidate, view = self._screen.focused_answer, self._screen.to_judge
        if candidate is None or view is None:
            return
        if candidate.ended is None:  # what is rewritten is a whole answer, as it was read
            await self._session.sets.stop()
            await self._session.sets.wait_ended()
        self._screen.reveal()
        self._writing.rewrite(view, candidate)

    def ideal(self) -> None:
        """What should have been answered."""
        if (view := self._screen.to_judge) is not None:
            self._writing.ideal(view)

    def critique(self) -> None:
        """What should be otherwise."""
        candidate, view = self._screen.focused_answer, self._session.current
        if candidate is not None and view is not None and view.purpose in ("judge", "repeat", "tap"):
            self._screen.reveal()
            self._writing.critique(view, candidate)

    def wishes(self) -> None:
        """Those that stand."""
        if self._session.store is not None:
            self._screen.app.push_screen(WishesScreen(self._session), lambda said: self._screen.say(said) if said else None)

    def flag(self) -> None:
        """The answer, or the words of an answer that are selected with the mouse, are a case of something."""
        screen = self._screen
        panes = (pane for pane in screen.answers.panes if pane.reading.text_selection is not None)
        pane = next(panes, screen.answers.focused_pane)
        if pane is None or pane.view.ended is None:
            return
        candidate, judging = pane.view, self._session.judging
        words, near = pane.stream.selected if pane.reading is pane.stream else (str(screen.get_selected_text() or ""), 0)
        what = f"“{one_line(words)[:WORDS]}”" if words else f"answer {candidate.letter}"

        async def chosen(label: str | None) -> None:
            if label is None:
                return
            flag = partial(judging.mark, candidate.uid, words, near, label) if words else partial(judging.flag, candidate.uid, label)
            if await screen.attempt(flag, f"✓ {what} flagged: {label}"):
                screen.clear_selection()

        screen.app.push_screen(ChoiceScreen(f"{what} is a case of", FLAGS), chosen)

    def comment(self) -> None:
        """A note of which nothing is learned."""
        candidate, view = self._screen.focused_answer, self._session.current
        if candidate is not None and view is not None and candidate.ended is not None:
            self._writing.comment(view, candidate)

    def go_on(self) -> None:
        """The conversation's next message."""
        candidate, view = self._screen.focused_answer, self._session.current
        if candidate is not None and view is not None and candidate.ended:
            self._writing.message(view, candidate)
