"""The Arena: K answers to a prompt stream side by side; the operator says which are better; the next set is already different."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from storage.records import CRITERIA
from tamer_tui.ballot import Ballot
from tamer_tui.keys import ARENA, LETTERS
from tamer_tui.screens.editor import EditorScreen, Written
from tamer_tui.session import Session, SessionError
from tamer_tui.text import one_line
from tamer_tui.views import CandidateView, Change, EngineState, SetView
from tamer_tui.widgets.candidate_pane import INSTANT, CandidatePane
from tamer_tui.widgets.lines import KeyLine, Line, PromptBox
from tamer_tui.widgets.rail import Rail, duration

NARROWEST_PANE = 36
RAIL_WIDTH = 42
FRAME_SECONDS = 0.05
GRACE_SECONDS = 0.25
"""A new set ignores commit keys for this long: they were meant for the old one."""
PACES = (3.0, 6.0, 12.0, 24.0, 48.0, INSTANT)
"""Tokens a second."""


class ArenaScreen(Screen[None]):
    """One screen over a Session; it holds only what is typed and shown, nothing that is known."""

    CSS_PATH = "arena.tcss"
    BINDINGS = list(ARENA)

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
        letters = "" if self.session.current is None else LETTERS[: len(self._panes)]
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
            return "The acting policy is a, the base is b. Enter goes on to the next prompt."
        if view.committed:
            return "✓ on disk. Enter opens the next prompt."
        if not self.ballot.empty:
            return f"{self.ballot.in_words()}   (enter commits, backspace takes back)"
        if len(view.candidates) == 1:
            return f"Score it 1-7 ({self.criterion}), or r to rewrite it, then enter."
        if len(view.candidates) == 2:
            return "Which is better? Type its letter, then enter."
        held = "  Learning is held: p resumes it." if session.standing.held else ""
        return f"Best first: type letters, then enter. Or score 1-7 ({self.criterion}).{held}"

    def _working_keys(self) -> list[str]:
        session, view = self.session, self.session.current
        machine = ["machine.versions", "learn.pause", "learn.now", "learn.bias", "learn.nats"]
        if session.engine_state is EngineState.DEAD:
            return ["machine.restart", *(["set.commit", "set.undo"] if view else []), "screen.help", "screen.quit"]
        if view is None:
            return ["screen.help", "screen.quit"]
        judging = ["set.commit"] if len(view.candidates) == 1 else ["rank.tie", "set.commit"]
        typed = [] if self.ballot.empty else ["rank.back"]
        return [*judging, "set.undo", "set.skip", "screen.help", "screen.quit", *typed, "edit.rewrite", "edit.ideal", "focus.next", "prompt.new",
                "prompt.continue", "prompt.compare", "rank.bad", "score.criterion", "show.freeze", *machine]  # fmt: skip

    def say(self, line: str) -> None:
        """One line, under what to do."""
        self.query_one("#said", Line).show(line)

    # --- judging -----------------------------------------------------------------------------------------------------------

    @property
    def _in_grace(self) -> bool:
        return time.monotonic() - self._opened < GRACE_SECONDS

    def _judgeable(self) -> SetView | None:
        """The set, if judging keys mean something now."""
        view = self.session.current
        return view if view is not None and not view.committed and view.purpose == "judge" else None

    def _focused(self) -> CandidateView | None:
        return self._panes[self.focused_slot].view if self.focused_slot < len(self._panes) else None

    async def _try(self, work: Callable[[], object]) -> bool:
        """Do it; say why not, if not. Nothing typed is lost."""
        try:
            result = work()
            if hasattr(result, "__await__"):
                result = await result
        except SessionError as error:
            self.say(str(error))
            return False
        if isinstance(result, str):
            self.say(result)
        return True

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
        if self._judgeable() is not None and self.ballot.tie():
            self._show_todo()

    def action_all_bad(self) -> None:
        if self._judgeable() is not None and not self._in_grace:
            self.complete_display()
            self.ballot.condemn()
            self.refresh_all()

    def action_take_back(self) -> None:
        if self.ballot.take_back():
            self.refresh_all()

    async def action_score(self, value: int) -> None:
        candidate = self._focused()
        if self._judgeable() is None or candidate is None:
            return
        self.complete_display()
        if value == 0:
            await self._try(lambda: self.session.clear_rating(candidate.uid, self.criterion))
        elif await self._try(lambda: self.session.rate(candidate.uid, value, self.criterion)):
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
        if view.committed or view.purpose == "compare":
            await self._try(self.session.next_set)
            return
        scored = any(candidate.ratings for candidate in view.candidates)
        if self.ballot.empty and not scored:
            self.say("Nothing judged yet: type letters best first, or a score from 1 to 7; s skips.")
            return
        if not await self._commit(view):
            return
        said = f"✓ {self.ballot.in_words() or 'scores'} on disk{_revealed(view)}"
        if await self._try(self.session.next_set):
            self.say(said)

    async def _commit(self, view: SetView) -> bool:
        if self.ballot.all_bad:
            for candidate in view.candidates:
                if not await self._try(lambda uid=candidate.uid: self.session.rate(uid, 1, self.criterion)):  # type: ignore[misc]
                    return False
            return True
        if self.ballot.empty:
            return True
        ranks = self.ballot.ranks(view)
        if len(view.candidates) == 2 and len(ranks) == 1:
            ranks |= {c.uid: 2 for c in view.candidates if c.uid not in ranks}
        seconds = max(0.0, time.monotonic() - self._ended)
        return await self._try(lambda: self.session.rank(ranks, self.ballot.keys(), seconds))

    async def action_skip(self) -> None:
        if self._judgeable() is None or self._in_grace:
            return
        if await self._try(self.session.skip) and await self._try(self.session.next_set):
            self.say("skipped")

    async def action_undo(self) -> None:
        await self._try(self.session.undo)
        self.refresh_all()

    async def action_redo(self) -> None:
        await self._try(self.session.redo)
        self.refresh_all()

    # --- writing -----------------------------------------------------------------------------------------------------------

    def action_rewrite(self) -> None:
        candidate, view = self._focused(), self._judgeable()
        if candidate is None or view is None:
            return
        self.complete_display()
        text = candidate.text or "".join(candidate.pieces)
        self._edit(
            f"rewrite answer {candidate.letter}", f"rewrite {candidate.uid}", text, view.prompt.text,
            lambda written: self.session.correct(candidate.uid, written), "✓ rewritten answer on disk",
        )  # fmt: skip

    def action_write(self) -> None:
        view = self._judgeable()
        if view is not None:
            self._edit("the ideal answer", f"ideal {view.uid}", "", view.prompt.text, self.session.demonstrate, "✓ ideal answer on disk")

    def action_new_prompt(self) -> None:
        if self.session.ready is not None:
            self._edit("your prompt", "prompt", "", "", self.session.open_prompt, "")

    def action_continue(self) -> None:
        candidate, view = self._focused(), self.session.current
        if candidate is not None and view is not None and candidate.ended:
            above = f"{view.prompt.text}\n\n{candidate.text}"
            self._edit("your next message", f"continue {candidate.uid}", "", above,
                       lambda text: self.session.continue_from(candidate.uid, text), "")  # fmt: skip

    def on_paste(self, event: events.Paste) -> None:
        """A paste outside an editor is a prompt."""
        if self.session.ready is not None and event.text.strip():
            self._drafts["prompt"] = event.text
            self.action_new_prompt()

    def _edit(self, title: str, name: str, text: str, above: str, use: Callable[[str], object], done: str) -> None:
        async def written(result: Written | None) -> None:
            if result is None:
                return
            if not result.saved:
                self._drafts[name] = result.text
            elif await self._try(lambda: use(result.text)):
                self._drafts.pop(name, None)
                self.say(done)
            else:
                self._drafts[name] = result.text
            self.refresh_all()

        self.app.push_screen(EditorScreen(title, self._drafts.get(name, text), above), written)

    # --- showing -----------------------------------------------------------------------------------------------------------

    def action_focus_answer(self, step: int) -> None:
        if self._panes:
            self.focused_slot = (self.focused_slot + step) % len(self._panes)
            self._show_panes()

    def on_candidate_pane_chosen(self, message: CandidatePane.Chosen) -> None:
        self.focused_slot = message.slot
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

    async def action_compare(self) -> None:
        if self.session.current is not None:
            await self._try(self.session.compare_with_base)

    async def action_peel(self) -> None:
        if not self.ballot.empty:
            self.ballot.clear()
        elif self.frozen:
            self.frozen = False
        else:
            await self._try(self.session.stop)
        self.refresh_all()

    # --- the machine ---------------------------------------------------------------------------------------------------------

    async def action_pause(self) -> None:
        paused = not self.session.standing.paused
        if await self._try(lambda: self.session.set_paused(paused)):
            self.say("learning is paused: p resumes it" if paused else "learning goes on")
        self.refresh_all()

    async def action_train(self) -> None:
        if await self._try(self.session.train_now):
            self.say("training now")

    async def action_bias(self) -> None:
        on = not self.session.standing.bias
        if await self._try(lambda: self.session.set_bias(on)):
            self.say(f"steering by Ĥ is {'on' if on else 'off'}")
        self.refresh_all()

    def action_nats(self) -> None:
        async def change(text: str) -> None:
            try:
                nats = float(text)
            except ValueError:
                raise SessionError(f"{one_line(text)[:20]} is not a number of nats") from None
            await self.session.set_nats(nats)

        self._edit("budget in nats per 64 tokens", "nats", f"{self.session.standing.nats:g}", "", change, "the budget is set")

    def action_versions(self) -> None:
        from tamer_tui.screens.versions import VersionsScreen

        async def chosen(version: str | None) -> None:
            if version is not None and await self._try(lambda: self.session.rollback(version)):
                self.say(f"rolled back to {version}: learning is held, p resumes it")
            self.refresh_all()

        self.app.push_screen(VersionsScreen(self.session.versions(), self.session.standing.acting[0]), chosen)

    async def action_restart(self) -> None:
        if self.session.engine_state is EngineState.DEAD:
            self.say("restarting the engine")
            await self._try(self.session.restart_engine)
            self.refresh_all()

    def action_help(self) -> None:
        from tamer_tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())


def _revealed(view: SetView) -> str:
    base = next((c.letter for c in view.candidates if c.policy == "base"), None)
    return f" · {base} was the base" if base else ""


def _loading(session: Session) -> str:
    loading = session.loading
    if loading is None:
        return "Starting the engine …"
    if session.ready is not None:
        return "Opening the first prompt …"
    share = f" {100 * loading.done / loading.total:.0f} %" if loading.total else ""
    left = f", {duration(loading.seconds_left)} left" if loading.seconds_left else ""
    return f"Loading {session.settings.model}: {loading.what}{share}{left} …"
