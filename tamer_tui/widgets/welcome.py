"""What stands in the place of the answers while the model is loaded, or could not be: the name, how far it is, and how teaching goes."""

from __future__ import annotations

import math

from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from tamer_tui.session import Session
from tamer_tui.text import duration, one_line
from tamer_tui.views import EngineState
from tamer_tui.widgets.charts import progress

BAR_CELLS = 40
HOW_IT_GOES = (
    "Answers will stream here, side by side.",
    "Say which are better: type their letters, best first, and enter.",
    'Or say it in words: ; and a line, such as "use simple words".',
    "The very next answer is already different.",
)
OTHERS = "Pocket is small, and ships with tamer: `tamer models` lists larger ones that fit this machine."


class Welcome(Static):
    """Painted before anything is loaded."""

    DEFAULT_CSS = "Welcome { width: 1fr; height: 1fr; content-align: center middle; text-align: center; padding: 0 2; }"

    revision: var[int] = var(0, init=False)  # of what the session says

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._steps: list[str] = []

    def watch_revision(self) -> None:
        """How far the loading is."""
        session = self._session
        if session.current is not None:
            return
        dead = session.engine_state is EngineState.DEAD
        lines = [Content.styled("t a m e r", "bold $text-accent"), Content("teach a language model by hand, and see it learn"), Content("")]
        lines += _stopped(session) if dead else self._loading(session)
        self.update(Content("\n").join(lines), layout=False)

    def _loading(self, session: Session) -> list[Content]:
        loading = session.loading
        if loading is not None and loading.what not in self._steps:
            self._steps.append(one_line(loading.what))
        steps = [f"{'▸' if last else '✓'} {step}" for step, last in zip(self._steps, [False] * (len(self._steps) - 1) + [True])]
        lines = [Content(one_line(session.settings.model)), _label("   ".join(steps) or "starting the engine")]
        share = loading.done / loading.total if loading is not None and loading.total > 0 else 0.0
        left = loading.seconds_left if loading is not None else None
        figures = f"{100 * share:.0f} %" if loading is not None and loading.total > 0 else ""
        if left is not None and math.isfinite(left):
            figures += f" · {duration(left)} left"
        lines += [Content.styled(progress(share, BAR_CELLS), "$text-accent"), _label(figures), Content("")]
        more = ["", OTHERS] if session.settings.model == "pocket" else []
        return lines + [_label(line) for line in (*HOW_IT_GOES, *more)]


def _stopped(session: Session) -> list[Content]:
    why = one_line(session.notice) or "the engine stopped"
    return [Content.styled(why, "bold"), Content(""), _label("R starts it again; what was judged is on disk")]


def _label(text: str) -> Content:
    return Content.styled(text, "$foreground 70%")
