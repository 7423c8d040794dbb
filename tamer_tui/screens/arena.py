"""The Arena: K answers to a prompt stream side by side; the operator says which are better; the next set is already different."""

from __future__ import annotations

import time

from storage.records import CRITERIA
from tamer_tui.keys import ARENA, LETTERS
from tamer_tui.screens.arena_tapping import TappingArena
from tamer_tui.screens.arena_view import PACES
from tamer_tui.screens.commands import ArenaCommands
from tamer_tui.tint import OPINIONS, after
from tamer_tui.views import EngineState, SetView
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.tabs import TabStrip

GRACE_SECONDS = 0.25
"""A new set ignores commit keys for this long: they were meant for the old one."""


class ArenaScreen(TappingArena):
    """What the keys do. Names of actions are those in keys.py."""

    BINDINGS = list(ARENA)
    COMMANDS = {ArenaCommands}

    # --- judging -----------------------------------------------------------------------------------------------------------

    @property
    def _in_grace(self) -> bool:
        return time.monotonic() - self._opened < GRACE_SECONDS

    def action_letter(self, letter: str) -> None:
        view, slot = self._judgeable(), LETTERS.index(letter)
        if view is None or slot >= len(view.candidates) or len(view.candidates) < 2:
            return
        self.complete_display()
        if len(view.candidates) == 2:
            self.ballot.clear()
        self.ballot.add(slot)
        self.refresh_all()

    def action_tie(self) -> None:
        view = self._judgeable()
        if view is not None and len(view.candidates) == 2:
            self.complete_display()
            self.ballot.call_equal()
        elif view is None or not self.ballot.tie():
            return
        self.refresh_all()

    def action_all_bad(self) -> None:
        if self._judgeable() is not None and not self._in_grace:
            self.complete_display()
            self.ballot.condemn()
            self.refresh_all()

    def action_take_back(self) -> None:
        view = self._judgeable()
        if view is None or not self.ballot.take_back():
            return
        if len(view.candidates) == 2:  # one key chose, or called both equal: one key takes that back
            self.ballot.clear()
        self.refresh_all()

    async def action_score(self, value: int) -> None:
        candidate = self._focused()
        if self._judgeable() is None or candidate is None:
            return
        self.complete_display()
        if value == 0:
            await self._try(lambda: self.session.judging.clear_rating(candidate.uid, self.criterion))
        elif await self._try(lambda: self.session.judging.rate(candidate.uid, value, self.criterion)):
            self.say(f"✓ {candidate.letter} scored {value} of 7, {self.criterion}")
        self.refresh_all()

    def action_criterion(self) -> None:
        self.criterion = CRITERIA[(CRITERIA.index(self.criterion) + 1) % len(CRITERIA)]
        self.say(f"scores are for: {self.criterion}")
        self._show_todo()

    async def action_commit(self) -> None:
        view = self.session.current
        if view is None or self._in_grace:
            return
        self.complete_display()
        if view.purpose == "compare":
            if await (self.advance() if self.tap_view else self._try(self.session.sets.leave_comparison)):
                self.complete_display()
            return
        if view.committed or (view.purpose == "tap" and self.ballot.empty):
            await self.advance()
            return
        scored = any(candidate.ratings for candidate in view.candidates)
        if self.ballot.empty and not scored:
            self.say("Nothing judged yet: type letters best first, or a score from 1 to 7; s skips.")
            return
        if not await self._commit(view):
            return
        said = f"✓ {self.ballot.in_words() or 'scores'} on disk{_revealed(view)}"
        if self.tinting:
            view.committed = True  # scores are on disk already
            self.say(said)
            self.tint_words()
            self.refresh_all()
            return
        on = await self.advance()
        self.say(said if on else f"{said} · {self.said}")

    async def _commit(self, view: SetView) -> bool:
        if self.ballot.all_bad:
            for candidate in view.candidates:
                if not await self._try(lambda uid=candidate.uid: self.session.judging.rate(uid, 1, self.criterion)):  # type: ignore[misc]
                    return False
            return True
        if self.ballot.empty:
            return True
        ranks = self.ballot.ranks(view)
        if len(view.candidates) == 2 and len(ranks) == 1:
            ranks |= {c.uid: 2 for c in view.candidates if c.uid not in ranks}
        seconds = max(0.0, time.monotonic() - self._ended)
        return await self._try(lambda: self.session.judging.rank(ranks, self.ballot.keys(), seconds))

    async def action_skip(self) -> None:
        if self._judgeable() is None or self._in_grace:
            return
        if await self._try(self.session.judging.skip) and await self.advance():
            self.say("skipped")

    async def action_undo(self) -> None:
        await self._try(self.session.judging.undo)
        self.refresh_all()

    async def action_redo(self) -> None:
        await self._try(self.session.judging.redo)
        self.refresh_all()

    # --- showing -----------------------------------------------------------------------------------------------------------

    def action_focus_answer(self, step: int) -> None:
        if self._panes:
            self.look_at((self.focused_slot + step) % len(self._panes))

    def on_candidate_pane_chosen(self, message: CandidatePane.Chosen) -> None:
        self.look_at(message.slot)
        if message.letter:
            self.action_letter(LETTERS[message.slot])

    def on_tab_strip_chosen(self, message: TabStrip.Chosen) -> None:
        self.look_at(message.slot)

    def look_at(self, slot: int) -> None:
        """Focus an answer."""
        if slot < len(self._panes):
            self.focused_slot = slot
            self._show_panes()

    def action_scroll(self, lines: int) -> None:
        if self.focused_slot < len(self._panes):
            self._panes[self.focused_slot].stream.scroll_relative(y=lines, animate=False)

    def action_freeze(self) -> None:
        if self._panes:
            self.frozen = not self.frozen
            self._show_todo()

    def action_pace(self, step: int) -> None:
        self.pace = min(len(PACES) - 1, max(0, self.pace + step))
        pace = PACES[self.pace]
        self.say("tokens show at once" if pace == INSTANT else f"reading pace: {pace:g} tokens a second")

    def action_tint(self) -> None:
        view = self.session.current
        if view is None:
            return
        self.tinting = after(self.tinting)
        self.plain_words()  # until the next opinion is there: the legend names whose it is
        if self.tinting is not None and view.revealed:
            self.complete_display()
            self.tint_words()
        elif self.tinting is not None:
            self.say(f"Words are tinted by {OPINIONS[self.tinting]} once you commit: enter then stays here, and a second enter goes on.")
        self._show_todo()

    async def action_compare(self) -> None:
        if self.session.current is not None:
            await self._try(self.session.sets.compare_with_base)

    async def action_peel(self) -> None:
        if not self.ballot.empty:
            self.ballot.clear()
        elif self.frozen:
            self.frozen = False
        else:
            await self._try(self.session.sets.stop)
        self.refresh_all()

    # --- the machine ---------------------------------------------------------------------------------------------------------

    async def action_pause(self) -> None:
        paused = not self.session.status.paused
        if await self._try(lambda: self.session.machine.set_paused(paused)):
            self.say("learning is paused: p resumes it" if paused else "learning goes on")
        self.refresh_all()

    async def action_train(self) -> None:
        if await self._try(self.session.machine.train_now):
            self.say("training now")

    async def action_bias(self) -> None:
        on = not self.session.status.bias
        if await self._try(lambda: self.session.machine.set_bias(on)):
            self.say(f"steering by Ĥ is {'on' if on else 'off'}")
        self.refresh_all()

    def action_versions(self) -> None:
        from tamer_tui.screens.versions import VersionsScreen

        async def chosen(version: str | None) -> None:
            if version is not None and await self._try(lambda: self.session.machine.rollback(version)):
                self.say(f"rolled back to {version}: learning is held, p resumes it")
            self.refresh_all()

        self.app.push_screen(VersionsScreen(self.session.machine.versions(), self.session.status.acting[0]), chosen)

    async def action_mode(self, name: str) -> None:
        """Modes by number, for those who do not know their letters."""
        if name == "versions":
            self.action_versions()
        elif self.tap_view != (name == "tap"):
            await self.action_tap_view()

    async def action_restart(self) -> None:
        if self.session.engine_state is EngineState.DEAD:
            self.say("restarting the engine")
            await self._try(self.session.engine.restart)
            self.refresh_all()

    def action_help(self) -> None:
        from tamer_tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())


def _revealed(view: SetView) -> str:
    base = next((c.letter for c in view.candidates if c.policy == "base"), None)
    return f" · {base} was the base" if base else ""
