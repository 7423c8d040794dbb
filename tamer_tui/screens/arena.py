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
from tamer_tui.screens.arranging import Arranging
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.commands import ArenaCommands
from tamer_tui.screens.committing import Committing
from tamer_tui.screens.marking import Marking
from tamer_tui.screens.observing import observe
from tamer_tui.screens.pacing import PACES, USUAL, Pacing
from tamer_tui.screens.remarks import Remarks
from tamer_tui.screens.take_out import TakeOut
from tamer_tui.screens.tap_keys import TapKeys
from tamer_tui.screens.tinting import Tinting
from tamer_tui.screens.writing import Writing
from tamer_tui.session import CandidateView, Change, Session, SessionError, SetView
from tamer_tui.tour import Tour
from tamer_tui.widgets.answers import Answers
from tamer_tui.widgets.candidate_pane import CandidatePane
from tamer_tui.widgets.guidance import judgeable
from tamer_tui.widgets.guide import Guide
from tamer_tui.widgets.heading import CurrentPrompt, Heading
from tamer_tui.widgets.rail import Rail
from tamer_tui.widgets.tabs import TabStrip

GRACE_SECONDS = 0.25
"""A new set ignores commit keys for this long: they were meant for the old one."""


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
    pace: var[int] = var(USUAL, init=False)
    tap_view: var[bool] = var(False)
    undoable: var[bool] = var(False)
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
        self._marking = Marking(session, self)
        self._committing = Committing(session, self)
        self._remarks = Remarks(session, self, self._writing)
        self._arranging = Arranging(self)
        self.tour = Tour(session)
        self._pacing = Pacing(session, self)
        self._taps = TapKeys(session, self, self.attempt)
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
        self.say(self.session.standing)  # what was told before there was a screen

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
                self.say(self.session.standing)
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
        self._arranging.refit()

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

    # --- judging -----------------------------------------------------------------------------------------------------------

    @property
    def in_grace(self) -> bool:
        """Whether the set has only just come."""
        return time.monotonic() - self._opened < GRACE_SECONDS

    @property
    def to_judge(self) -> SetView | None:
        """The set, if judging keys mean something now."""
        return self.session.current if judgeable(self.session.current) else None

    @property
    def focused_answer(self) -> CandidateView | None:
        """The answer that keys are about."""
        pane = self.answers.focused_pane
        return pane.view if pane is not None else None

    def reveal(self) -> None:
        """A judging key: everything there is shows."""
        self.frozen = False
        self.answers.reveal_all()

    def action_letter(self, letter: str) -> None:
        self._marking.letter(LETTERS.index(letter))

    def action_tie(self) -> None:
        self._marking.tie()

    def action_all_bad(self) -> None:
        self._marking.all_bad()

    def action_take_back(self) -> None:
        self._marking.take_back()

    async def action_score(self, value: int) -> None:
        await self._marking.score(value)

    def action_criterion(self) -> None:
        self._marking.next_criterion()

    async def action_commit(self) -> None:
        await self.finish_tap()
        if self.session.current is not None and not self.in_grace:
            self.reveal()
            await self._committing.enter(self.session.current)

    async def advance(self) -> bool:
        """The next prompt, in the view that is on."""
        return await self.attempt(self.session.taps.open_next if self.tap_view else self.session.sets.open_next)

    async def action_skip(self) -> None:
        await self.finish_tap()
        if self.to_judge is not None and not self.in_grace and await self.attempt(self.session.judging.skip) and await self.advance():
            self.say("skipped")

    async def action_undo(self) -> None:
        await self.finish_tap()
        await self.attempt(self.session.judging.undo)

    async def action_redo(self) -> None:
        await self.finish_tap()
        await self.attempt(self.session.judging.redo)

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def action_rewrite(self) -> None:
        await self._remarks.rewrite()

    def action_write(self) -> None:
        self._remarks.ideal()

    def action_critique(self) -> None:
        self._remarks.critique()

    def action_wishes(self) -> None:
        self._remarks.wishes()

    def action_flag(self) -> None:
        self._remarks.flag()

    def action_comment(self) -> None:
        self._remarks.comment()

    def action_continue(self) -> None:
        self._remarks.go_on()

    def action_new_prompt(self) -> None:
        self._writing.prompt()

    def on_paste(self, event: events.Paste) -> None:
        """A paste outside an editor is a prompt."""
        event.stop()
        if event.text.strip():
            self._writing.prompt(event.text)

    # --- taps --------------------------------------------------------------------------------------------------------------

    async def action_tap_view(self) -> None:
        await self.finish_tap()
        await self._pacing.turn()

    async def action_tap(self, value: int) -> None:
        await self._taps.press(value)

    async def finish_tap(self) -> None:
        """Before anything happens to the answer that it is about."""
        await self._taps.finish()

    async def action_silence(self) -> None:
        await self.finish_tap()
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
        if self.query_one(Rail).narrow:
            from tamer_tui.screens.figures import FiguresScreen

            self.app.push_screen(FiguresScreen(self.session))
        else:
            self.detailed = not self.detailed

    def action_differences(self) -> None:
        from tamer_tui.screens.differences import DifferencesScreen, pairs_with

        view, here = self.session.current, self.focused_answer
        if view is not None and here is not None and len(view.candidates) > 1:
            self.reveal()
            self.app.push_screen(DifferencesScreen(pairs_with(here, view.candidates)))

    async def action_copy(self) -> None:
        await self._take_out.copy(self.focused_answer, self.folded)

    async def action_copy_code(self) -> None:
        await self._take_out.copy_code(self.focused_answer)

    async def action_export(self) -> None:
        await self._take_out.export(self.session.current, self.focused_answer)

    def action_pace(self, step: int) -> None:
        self._pacing.step(step)

    def watch_pace(self) -> None:
        self.answers.pace = PACES[self.pace]

    def action_tint(self) -> None:
        self.tinting.turn()

    @on(Answers.Completed)
    def _all_shown(self) -> None:
        self.tinting.ask()
        tidy()

    async def action_compare(self) -> None:
        await self.finish_tap()
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
            await self.finish_tap()
            await self.attempt(self.session.sets.stop)
