"""What the operator writes in the Arena: prompts, messages, rewritten and ideal answers, and a number. Drafts survive."""

from __future__ import annotations

from collections.abc import Callable

from textual import events

from tamer_tui.screens.arena_view import ArenaView
from tamer_tui.screens.editor import EditorScreen, NumberScreen, WrittenText
from tamer_tui.session import SessionError
from tamer_tui.text import editable, one_line
from tamer_tui.views import CandidateView


class WritingArena(ArenaView):
    """The keys that open an editor."""

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

    async def action_rewrite(self) -> None:
        candidate, view = self._focused(), self._judgeable()
        if candidate is None or view is None:
            return
        if candidate.ended is None:  # what is rewritten is a whole answer, as it was read
            await self.session.sets.stop()
            await self.session.sets.wait_ended()
        self.complete_display()
        original = editable(candidate.text)

        async def correct(written: str) -> None:
            if written == original:
                raise SessionError("nothing was changed")
            await self.session.judging.correct(candidate.uid, written)

        title, name = f"rewrite answer {candidate.letter}", f"rewrite {candidate.uid}"
        self._edit(EditorScreen, title, name, original, view.prompt.text, correct, "✓ rewritten answer on disk")

    def action_write(self) -> None:
        view = self._judgeable()
        if view is not None:
            above, use = view.prompt.text, self.session.judging.demonstrate
            self._edit(EditorScreen, "the ideal answer", f"ideal {view.uid}", "", above, use, "✓ ideal answer on disk")

    def action_new_prompt(self) -> None:
        if self.session.ready is not None:
            self._edit(EditorScreen, "your prompt", "prompt", "", "", self.session.sets.open_prompt, "")

    def action_continue(self) -> None:
        candidate, view = self._focused(), self.session.current
        if candidate is None or view is None or not candidate.ended:
            return

        async def go_on(text: str) -> None:
            await self.session.sets.continue_from(candidate.uid, text)

        above = f"{view.prompt.text}\n\n{candidate.text}"
        self._edit(EditorScreen, f"go on from answer {candidate.letter}: your next message", f"continue {candidate.uid}", "", above, go_on, "")

    def on_paste(self, event: events.Paste) -> None:
        """A paste outside an editor is a prompt, after what there is of one."""
        event.stop()
        if self.session.ready is not None and event.text.strip():
            draft = self._drafts.get("prompt", "")
            self._drafts["prompt"] = f"{draft}\n{event.text}" if draft.strip() else event.text
            self.action_new_prompt()

    def action_nats(self) -> None:
        async def change(text: str) -> None:
            try:
                nats = float(text)
            except ValueError:
                raise SessionError(f"{one_line(text)[:20] or 'nothing'} is not a number of nats") from None
            await self.session.machine.set_nats(nats)

        now = f"{self.session.status.nats:g}"
        self._edit(NumberScreen, "budget in nats per 64 tokens, 0 to 1000", "nats", now, "", change, "the budget is set")

    def _edit(self, screen: type[EditorScreen], title: str, name: str, text: str, above: str, use: Callable[[str], object], done: str) -> None:
        async def written(result: WrittenText | None) -> None:
            if result is None:
                return
            self._drafts[name] = result.text
            if result.saved and await self._try(lambda: use(result.text)):
                del self._drafts[name]
                self.say(done)
            elif not result.saved and result.text == text:
                del self._drafts[name]
            self.refresh_all()

        self.app.push_screen(screen(title, self._drafts.get(name, text), above), written)
