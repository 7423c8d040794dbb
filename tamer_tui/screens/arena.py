"""The Arena: K answers to a prompt stream side by side; the operator says which are better; the next set is already different."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.reactive import var
from textual.screen import Screen

from storage.records import CRITERIA
from tamer_tui.ballot import Ballot
from tamer_tui.collecting import OVERDUE, tidy
from tamer_tui.keys import ARENA_KEYS, LETTERS
from tamer_tui.screens.arrangement import Arrangement
from tamer_tui.screens.arranging import Arranging
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.choice import FLAGS, ChoiceScreen
from tamer_tui.screens.commands import ArenaCommands
from tamer_tui.screens.committing import Committing
from tamer_tui.screens.critique import WishesScreen
from tamer_tui.screens.observing import observe
from tamer_tui.screens.take_out import TakeOut
from tamer_tui.screens.tap_keys import TapKeys
from tamer_tui.screens.tinting import Tinting
from tamer_tui.screens.writing import Writing
from tamer_tui.session import CandidateView, Change, Session, SessionError, SetView
from tamer_tui.tour import Tour
from tamer_tui.widgets.answers import Answers
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.guidance import judgeable
from tamer_tui.widgets.guide import Guide
from tamer_tui.widgets.heading import CurrentPrompt, Heading
from tamer_tui.widgets.rail import Rail
from tamer_tui.widgets.tabs import TabStrip

GRACE_SECONDS = 0.25
"""A new set ignores commit keys for this long: they were meant for the old one."""
PACES = (3.0, 6.0, 12.0, 24.0, 48.0, INSTANT)
"""Tokens a second."""
TAP_PACE = 6.0
"""Tokens a second: about how fast people read, and slow enough that a delayed tap falls on few of them."""


class ArenaScreen(Screen[None]):
    """What the keys do. Names of actions are those in keys.py.

    It holds what is typed and shown, and nothing that is known: that is in the session. Its widgets follow its reactives. The session calls
    `_changed` at once and not by a message, so that no key that was meant for one set can reach the next one.
    """

    CSS_PATH = "arena.tcss"
    BINDINGS = list(ARENA_KEYS)
    COMMANDS = {ArenaCommands}

    ballot: var[Ballot] = var(Ballot())
    criterion: var[str] = var(CRITERIA[0])
    focused_slot: var[int] = var(0)
    frozen: var[bool] = var(False)
    markdown: var[bool] = var(True)
    folded: var[bool] = var(True)
    detailed: var[bool] = var(False)
    pace: var[int] = var(PACES.index(12.0), init=False)
    tap_view: var[bool] = var(False)
    undoable: var[bool] = var(False)
    arrangement: var[Arrangement] = var(Arrangement(1, False, True, False), init=False)
    revision: var[int] = var(0)  # of what the session says
    said: var[str] = var("")
    legend: var[Content] = var(Content(""))
    tour_line: var[str] = var("")

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._writing = Writing(session, self.app, self.attempt)
        self._take_out = TakeOut(self.app, self.attempt)
        self.tinting = Tinting(session, self)
        self._committing = Committing(session, self)
        self._arranging = Arranging(self)
        self.tour = Tour(session)
        self._taps = TapKeys(session, self, self.attempt)
        self._arena_pace = self.pace
        self._opened = self.ended = 0.0  # monotonic seconds

    def compose(self) -> ComposeResult:
        session = self.session
        yield Heading(session, id="heading").data_bind(ArenaScreen.revision)
        yield CurrentPrompt(session, id="prompt").data_bind(ArenaScreen.revision)
        with Container(id="main"):
            answers = Answers(session, id="panes")
            answers.data_bind(ArenaScreen.ballot, ArenaScreen.focused_slot, ArenaScreen.frozen, ArenaScreen.revision)
            yield answers.data_bind(ArenaScreen.markdown, ArenaScreen.folded)
            yield Rail(session, id="rail").data_bind(ArenaScreen.revision, ArenaScreen.detailed)
        guide = Guide(session)
        guide.data_bind(ArenaScreen.ballot, ArenaScreen.criterion, ArenaScreen.frozen, ArenaScreen.undoable)
        yield guide.data_bind(ArenaScreen.revision, ArenaScreen.said, ArenaScreen.legend, ArenaScreen.tour_line)

    def on_mount(self) -> None:
        observe(self.session, self, self._changed)
        self._know_undo()
        if self.session.current is not None:
            self._open(self.session.current)
        self._arranging.arrange()
        self.revision += 1
        self.say(self.session.notice)  # what was told before there was a screen

    @property
    def answers(self) -> Answers:
        return self.query_one(Answers)

    # --- what the session says -------------------------------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        match change:
            case Change.TOKENS:
                self.answers.show_first_tokens()
                return
            case Change.METRICS:
                self.query_one(Rail).follow()
                return
            case Change.SET if self.session.current is not None:
                self._open(self.session.current)
            case Change.NOTICE:
                self.say(self.session.notice)
            case Change.APPRAISED:
                self.tinting.show()
            case Change.ENDED if self.session.current is not None and self.session.current.ended:
                self.ended = time.monotonic()
        if change in (Change.SET, Change.COMMITTED, Change.READY):
            self._know_undo()
            self.answers.mark_taps()
        self.revision += 1

    def _open(self, view: SetView) -> None:
        """Another set: what was typed about the old one is gone."""
        self._arranging.expect(len(view.candidates))
        self.answers.open(view)
        self.ballot, self.focused_slot, self.frozen, self.legend = Ballot(), 0, False, Content("")
        self._opened = self.ended = time.monotonic()
        self._arranging.arrange()
        self.call_after_refresh(tidy, OVERDUE)  # of sets that are judged before all of them shows

    def _know_undo(self) -> None:
        try:
            self.undoable = self.session.record.last_undoable() is not None
        except SessionError:
            self.undoable = False

    def say(self, line: str) -> None:
        """One line, under what to do."""
        self.said = line

    async def attempt(self, work: Callable[[], Awaitable[object]], done: str = "") -> bool:
        """Do it; say why not, if not."""
        return await attempt(self.say, work, done)

    # --- layout ------------------------------------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        self._arranging.arrange()

    def watch_revision(self) -> None:
        self._guide_on()

    def watch_ballot(self) -> None:
        self._guide_on()

    def _guide_on(self) -> None:
        self.tour_line = self.tour.line(self.ballot, self.tap_view) if self.session.current is not None else ""

    def action_tour(self) -> None:
        self.tour.begin()
        self._guide_on()

    @on(Answers.Overflowed)
    def _longer_than_expected(self) -> None:
        self._arranging.outgrow()

    def watch_arrangement(self, found: Arrangement) -> None:
        self.set_class(not found.rail, "stacked")
        self.set_class(found.short, "short")
        self.set_class(found.tiny, "tiny")
        self.query_one(Rail).narrow = not found.rail

    # --- judging -----------------------------------------------------------------------------------------------------------

    @property
    def _in_grace(self) -> bool:
        return time.monotonic() - self._opened < GRACE_SECONDS

    def _judgeable(self) -> SetView | None:
        """The set, if judging keys mean something now."""
        return self.session.current if judgeable(self.session.current) else None

    def _focused(self) -> CandidateView | None:
        pane = self.answers.focused_pane
        return pane.view if pane is not None else None

    def reveal(self) -> None:
        """A judging key: everything there is shows."""
        self.frozen = False
        self.answers.reveal_all()

    def action_letter(self, letter: str) -> None:
        view, slot = self._judgeable(), LETTERS.index(letter)
        if view is None or slot >= len(view.candidates) or len(view.candidates) < 2:
            return
        self.reveal()
        self.ballot = (Ballot() if len(view.candidates) == 2 else self.ballot).add(slot)

    def action_tie(self) -> None:
        view = self._judgeable()
        if view is not None and len(view.candidates) == 2:
            self.reveal()
            self.ballot = self.ballot.call_equal()
        elif view is not None:
            self.ballot = self.ballot.tie()

    def action_all_bad(self) -> None:
        if self._judgeable() is not None and not self._in_grace:
            self.reveal()
            self.ballot = self.ballot.condemn()

    def action_take_back(self) -> None:
        view = self._judgeable()
        if view is not None:  # of two answers one key chose, or called both equal: one key takes that back
            self.ballot = Ballot() if len(view.candidates) == 2 else self.ballot.take_back()

    async def action_score(self, value: int) -> None:
        candidate, judging = self._focused(), self.session.judging
        if self._judgeable() is None or candidate is None:
            return
        self.reveal()
        if value == 0:
            await self.attempt(lambda: judging.clear_rating(candidate.uid, self.criterion))
        else:
            done = f"✓ {candidate.letter} scored {value} of 7, {self.criterion}"
            await self.attempt(lambda: judging.rate(candidate.uid, value, self.criterion), done)

    def action_criterion(self) -> None:
        self.criterion = CRITERIA[(CRITERIA.index(self.criterion) + 1) % len(CRITERIA)]
        self.say(f"scores are for: {self.criterion}")

    async def action_commit(self) -> None:
        if self.session.current is not None and not self._in_grace:
            self.reveal()
            await self._committing.enter(self.session.current)

    async def advance(self) -> bool:
        """The next prompt, in the view that is on."""
        return await self.attempt(self.session.taps.open_next if self.tap_view else self.session.sets.open_next)

    async def action_skip(self) -> None:
        if self._judgeable() is not None and not self._in_grace and await self.attempt(self.session.judging.skip) and await self.advance():
            self.say("skipped")

    async def action_undo(self) -> None:
        await self.attempt(self.session.judging.undo)

    async def action_redo(self) -> None:
        await self.attempt(self.session.judging.redo)

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def action_rewrite(self) -> None:
        candidate, view = self._focused(), self._judgeable()
        if candidate is None or view is None:
            return
        if candidate.ended is None:  # what is rewritten is a whole answer, as it was read
            await self.session.sets.stop()
            await self.session.sets.wait_ended()
        self.reveal()
        self._writing.rewrite(view, candidate)

    def action_write(self) -> None:
        if (view := self._judgeable()) is not None:
            self._writing.ideal(view)

    def action_critique(self) -> None:
        candidate, view = self._focused(), self.session.current
        if candidate is not None and view is not None and view.purpose in ("judge", "tap"):
            self.reveal()
            self._writing.critique(view, candidate)

    def action_wishes(self) -> None:
        if self.session.store is not None:
            self.app.push_screen(WishesScreen(self.session))

    def action_flag(self) -> None:
        candidate = self._focused()
        if candidate is None or candidate.ended is None:
            return

        async def chosen(label: str | None) -> None:
            if label is not None:
                said = f"✓ {candidate.letter} flagged: {label}"
                await self.attempt(lambda: self.session.judging.flag(candidate.uid, label), said)

        self.app.push_screen(ChoiceScreen(f"answer {candidate.letter} is a case of", FLAGS), chosen)

    def action_comment(self) -> None:
        candidate, view = self._focused(), self.session.current
        if candidate is not None and view is not None and candidate.ended is not None:
            self._writing.comment(view, candidate)

    def action_new_prompt(self) -> None:
        self._writing.prompt()

    def action_continue(self) -> None:
        candidate, view = self._focused(), self.session.current
        if candidate is not None and view is not None and candidate.ended:
            self._writing.message(view, candidate)

    def on_paste(self, event: events.Paste) -> None:
        """A paste outside an editor is a prompt."""
        event.stop()
        if event.text.strip():
            self._writing.prompt(event.text)

    # --- taps --------------------------------------------------------------------------------------------------------------

    async def action_tap_view(self) -> None:
        if self.session.current is None:
            return
        self.tap_view = not self.tap_view
        if self.tap_view:
            self._arena_pace, self.pace = self.pace, PACES.index(TAP_PACE)
        else:
            self.pace = self._arena_pace
        if not await self.advance():
            self.tap_view = not self.tap_view

    async def action_tap(self, value: int) -> None:
        await self._taps.press(value)

    async def action_silence(self) -> None:
        on = not self.session.taps.silence
        said = "silence counts: in the tap view a word that you let pass is worth 0" if on else "silence says nothing again"
        await self.attempt(lambda: self.session.taps.arm(on), said)

    def action_calibrate(self) -> None:
        self._taps.calibrate()

    # --- showing -----------------------------------------------------------------------------------------------------------

    @on(CandidatePane.Chosen)
    def _pane_chosen(self, message: CandidatePane.Chosen) -> None:
        self.look_at(message.slot)
        if message.letter:
            self.action_letter(LETTERS[message.slot])

    @on(TabStrip.Chosen)
    def _tab_chosen(self, message: TabStrip.Chosen) -> None:
        self.look_at(message.slot)

    def look_at(self, slot: int) -> None:
        """Focus an answer."""
        if slot < len(self.answers.panes):
            self.focused_slot = slot

    def action_focus_answer(self, step: int) -> None:
        if self.answers.panes:
            self.look_at((self.focused_slot + step) % len(self.answers.panes))

    def action_scroll(self, lines: int) -> None:
        if (pane := self.answers.focused_pane) is not None:
            pane.reading.scroll_relative(y=lines, animate=False)

    def action_freeze(self) -> None:
        if self.answers.panes:
            self.frozen = not self.frozen

    def action_markdown(self) -> None:
        self.markdown = not self.markdown
        self.say("finished answers are rendered as Markdown" if self.markdown else "answers show as they were written")

    def action_fold(self) -> None:
        self.folded = not self.folded
        self.say("thoughts are folded" if self.folded else "thoughts are shown")

    def action_details(self) -> None:
        self.detailed = not self.detailed

    def action_differences(self) -> None:
        from tamer_tui.screens.differences import DifferencesScreen, pairs_with

        view, here = self.session.current, self._focused()
        if view is not None and here is not None and len(view.candidates) > 1:
            self.reveal()
            self.app.push_screen(DifferencesScreen(pairs_with(here, view.candidates)))

    async def action_copy(self) -> None:
        await self._take_out.copy(self._focused())

    async def action_copy_code(self) -> None:
        await self._take_out.copy_code(self._focused())

    async def action_export(self) -> None:
        await self._take_out.export(self.session.current, self._focused())

    def action_pace(self, step: int) -> None:
        self.pace = min(len(PACES) - 1, max(0, self.pace + step))
        pace = PACES[self.pace]
        self.say("tokens show at once" if pace == INSTANT else f"reading pace: {pace:g} tokens a second")

    def watch_pace(self) -> None:
        self.answers.pace = PACES[self.pace]

    def action_tint(self) -> None:
        self.tinting.turn()

    @on(Answers.Completed)
    def _all_shown(self) -> None:
        self.tinting.ask()
        tidy()

    async def action_compare(self) -> None:
        if self.session.current is not None:
            await self.attempt(self.session.sets.compare_with_base)

    async def action_peel(self) -> None:
        if not self.ballot.empty:
            self.ballot = Ballot()
        elif self.frozen:
            self.frozen = False
        elif self.tour_line:
            self.tour.end()
            self._guide_on()
        else:
            await self.attempt(self.session.sets.stop)
