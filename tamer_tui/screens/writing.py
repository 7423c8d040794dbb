"""What the operator writes: prompts, messages, rewritten and ideal answers, and a number. Drafts survive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from textual.app import App

from tamer_tui.screens.attempt import Attempt
from tamer_tui.screens.critique import CritiqueScreen, Draft, about
from tamer_tui.screens.editor import EditorScreen, NumberScreen, PromptScreen, WrittenText
from tamer_tui.session import CandidateView, Session, SessionError, SetView
from tamer_tui.text import editable, one_line

Use = Callable[[str], Awaitable[object]]


class Writing:
    """Opens editors over the screens of an app, and keeps what was typed until it has been used."""

    def __init__(self, session: Session, app: App[None], attempt: Attempt) -> None:
        self._session, self._app, self._attempt = session, app, attempt
        self._drafts: dict[str, str] = {}
        self._critiques: dict[str, Draft] = {}  # that were left, by their sets

    def rewrite(self, view: SetView, candidate: CandidateView) -> None:
        """A whole answer, in the operator's words."""
        original = editable(candidate.said)

        async def correct(written: str) -> None:
            if written == original:
                raise SessionError("nothing was changed")
            await self._session.judging.correct(candidate.uid, written)

        title, name = f"rewrite answer {candidate.letter}", f"rewrite {candidate.uid}"
        self._edit(EditorScreen, title, name, original, view.prompt.text, correct, "✓ rewritten answer on disk")

    def ideal(self, view: SetView) -> None:
        """What should have been answered."""
        name, use = f"ideal {view.uid}", self._session.judging.demonstrate
        self._edit(EditorScreen, "the ideal answer", name, "", view.prompt.text, use, "✓ ideal answer on disk")

    def prompt(self, pasted: str = "") -> None:
        """A prompt of the operator's; what was pasted comes after what there is of one."""
        if pasted.strip():
            draft = self._drafts.get("prompt", "")
            self._drafts["prompt"] = f"{draft}\n{pasted}" if draft.strip() else pasted
        loading = self._session.ready is None
        done = "your prompt opens as soon as the model is loaded" if loading else ""
        recent = self._session.record.typed_prompts() if self._session.store is not None else []
        self._edit(partial(PromptScreen, recent=recent), "your prompt", "prompt", "", "", self._session.sets.open_prompt, done)

    def message(self, view: SetView, candidate: CandidateView) -> None:
        """The conversation goes on from an answer."""

        async def go_on(text: str) -> None:
            await self._session.sets.continue_from(candidate.uid, text)

        above = f"{view.prompt.text}\n\n{candidate.said}"
        title, name = f"go on from answer {candidate.letter}: your next message", f"continue {candidate.uid}"
        self._edit(EditorScreen, title, name, "", above, go_on, "")

    def comment(self, view: SetView, candidate: CandidateView) -> None:
        """A note on an answer."""

        async def keep(text: str) -> None:
            await self._session.sets.end_current()
            await self._session.judging.comment(view.uid, candidate.uid, text)

        title, name = f"comment on answer {candidate.letter}", f"comment {candidate.uid}"
        self._edit(EditorScreen, title, name, "", candidate.text, keep, "✓ comment on disk")

    def critique(self, view: SetView, candidate: CandidateView) -> None:
        """What should be otherwise. The same prompt is answered anew."""
        judging = self._session.judging
        choices = about([each.letter for each in view.candidates], f"answer {candidate.letter}")
        screen = CritiqueScreen(choices, self._critiques.pop(view.uid, Draft()))

        async def said(result: WrittenText | None) -> None:
            if result is None:
                return
            one_answer, scope = screen.about[1:]
            if result.saved and await self._attempt(lambda: judging.criticise(candidate.uid if one_answer else None, result.text, scope), ""):
                follow = judging.follow(f"{'all answers' if scope == 'all' else 'answers to this prompt'} follow it")
                await self._attempt(self._session.sets.open_again, f"✓ on disk: {follow}; u takes it back")
            else:
                self._critiques[view.uid] = Draft(result.text, screen.chosen)

        self._app.push_screen(screen, said)

    def nats(self) -> None:
        """The budget."""

        async def change(text: str) -> None:
            try:
                nats = float(text)
            except ValueError:
                raise SessionError(f"{one_line(text)[:20] or 'nothing'} is not a number of nats") from None
            await self._session.machine.set_nats(nats)

        now = f"{self._session.status.nats:g}"
        self._edit(NumberScreen, "budget in nats per 64 tokens, 0 to 1000", "nats", now, "", change, "the budget is set")

    def _edit(self, screen: Callable[[str, str, str], EditorScreen], title: str, name: str, text: str, above: str, use: Use, done: str) -> None:
        async def written(result: WrittenText | None) -> None:
            if result is None:
                return
            self._drafts[name] = result.text
            if (result.saved and await self._attempt(lambda: use(result.text), done)) or (not result.saved and result.text == text):
                del self._drafts[name]

        self._app.push_screen(screen(title, self._drafts.get(name, text), above), written)
