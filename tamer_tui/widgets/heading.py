"""What stands above the answers: who answers, how much was judged, and the prompt."""

from __future__ import annotations

from pathlib import Path

from textual.reactive import var

from tamer_tui.dealing import Dealer
from tamer_tui.session import Session, SessionError
from tamer_tui.widgets.lines import Line, PromptBox

PURPOSES = {"compare": " · compared with the base, not counted", "tap": " · tap view"}


class Heading(Line):
    """Follows the session."""

    revision: var[int] = var(0, init=False)

    def __init__(self, session: Session, id: str | None = None) -> None:
        super().__init__(id=id)
        self._session = session

    def watch_revision(self) -> None:
        session, status = self._session, self._session.status
        place = _shortened(session.database) if session.database else session.settings.model
        learning = " · learning is held" if status.held else " · learning is paused" if status.paused else ""
        steered = ", steered" if status.bias and status.followed and not status.held else ""
        acting = f"acting: {status.acting[0]}{steered}" if session.ready is not None else "no model yet"
        self.show(f"· {acting}{learning} · {session.judged} judged · {place}", "tamer ")


class CurrentPrompt(PromptBox):
    """The prompt of the set that is open; before there is one, the first that will be."""

    revision: var[int] = var(0, init=False)

    def __init__(self, session: Session, id: str) -> None:
        super().__init__(id)
        self._session = session
        self._first = _first_prompt(session)

    def watch_revision(self) -> None:
        view = self._session.current
        if view is not None:
            self.show("prompt" + PURPOSES.get(view.purpose, ""), view.prompt.text)
        elif (typed := self._session.sets.typed_early) is not None:
            self.show("your prompt", typed.text)
        else:
            self.show("first prompt" if self._first else "prompt", self._first)


def _first_prompt(session: Session) -> str:
    """What will be asked first, as far as that is known before the model is there."""
    try:
        judged = session.record.judged_prompts()
    except SessionError:
        judged = set()
    prompt = Dealer(session.split.train, session.settings.k, session.settings.seed, judged, 0).peek()
    return prompt.text if prompt is not None else ""


def _shortened(path: Path) -> str:
    try:
        return f"~/{path.resolve().relative_to(Path.home())}"
    except ValueError:
        return str(path)
