"""How learning stands, at the side of the answers (or in two lines below them on a narrow screen)."""

from __future__ import annotations

import math
import time
from collections import deque

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from storage.blind import BlindCount
from tamer_tui.session import Session
from tamer_tui.text import one_line, wrap
from tamer_tui.views import EngineState, StageView
from tamer_tui.widgets.charts import interval, progress, sparkline

STAGES = {"sft": "imitate", "distill": "distil", "reward": "reward model", "ppo": "PPO", "gate": "gate"}
CURVES = {"sft": "loss", "distill": "loss", "reward": "accuracy", "ppo": "reward"}
"""Which figure of a stage is drawn over time."""
CURVE_CELLS = 12
REPAINT_SECONDS = 0.2
"""Between two paintings while figures arrive."""
ROOM = 36
"""Cells in a line of the column."""
Curves = dict[str, deque[float]]


class Rail(Static):
    """Wide: a column. Narrow: two lines."""

    DEFAULT_CSS = """
    Rail { width: 42; height: 1fr; padding: 0 2; border: round $foreground 30%; border-title-color: $foreground 70%; }
    Rail.narrow { width: 1fr; height: 2; border: none; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    narrow: var[bool] = var(False, toggle_class="narrow", init=False)
    revision: var[int] = var(0, init=False)  # of what the session says

    def __init__(self, session: Session, id: str | None = None) -> None:
        super().__init__(id=id)
        self._session = session
        self.curves: Curves = {}
        self._drawn: dict[str, tuple[int, int]] = {}
        self._painted = 0.0  # monotonic seconds

    def on_mount(self) -> None:
        self.border_title = "learning"
        self.set_interval(1.0, self.repaint)  # some figures are times

    def watch_narrow(self) -> None:
        self.repaint()

    def watch_revision(self) -> None:
        self.repaint()

    def follow(self) -> None:
        """Figures have come; they may come faster than anybody reads."""
        if time.monotonic() - self._painted >= REPAINT_SECONDS:
            self.repaint()

    def repaint(self) -> None:
        """As it stands now."""
        self._painted = time.monotonic()
        self._follow(self._session)
        lines = narrow_lines(self._session) if self.narrow else wide_lines(self._session, self.curves)
        self.update(Content("\n").join(lines), layout=False)

    def _follow(self, session: Session) -> None:
        """A point for each new step of each stage."""
        for stage, view in session.status.learning.items():
            value = getattr(view, CURVES.get(stage, ""), None)
            if value is not None and self._drawn.get(stage) != (view.step, view.of):
                self._drawn[stage] = (view.step, view.of)
                self.curves.setdefault(stage, deque(maxlen=2 * CURVE_CELLS)).append(value)


def wide_lines(session: Session, curves: Curves) -> list[Content]:
    """A paragraph each for the policy, the stages, the count and the machine."""
    parts = [_policy(session), _learning(session, curves), _won(session), _machine(session)]
    return [line for part in parts for line in [*part, Content("")]][:-1]


def narrow_lines(session: Session) -> list[Content]:
    """What fits two rows: the sentence; the busiest stage and the count."""
    status = session.status
    active = next((view for view in status.learning.values() if view.active), None)
    doing = f"{STAGES.get(active.stage, active.stage)} {_steps(active)}" if active else _engine(session)
    doing = _replay(status.replay) if status.replay else doing
    count = f"won {session.blind.in_words()}" if session.blind.n else "nothing counted yet"
    return [Content(one_line(status.sentence)), _label(f"{doing} · {status.nats:g} nats · {count}")]


# --- the paragraphs ----------------------------------------------------------------------------------------------------


def _policy(session: Session) -> list[Content]:
    """What the judgements did, and who answers now."""
    status = session.status
    lines = [line for part in status.sentence.split(" · ") for line in _hanging(one_line(part))]
    spent = f"{number(status.spent, 1)} of {status.nats:g} nats" if status.spent is not None else f"{status.nats:g} nats"
    lines.append(_label(f"{spent} · β {number(status.acting[1], 2)}" + ("" if status.bias else " · steering off")))
    if status.acting[2]:
        lines.append(_label(f"Ĥ {status.acting[2]}" + (f" · {session.taps.dropped} taps about nothing" if session.taps.dropped else "")))
    if (since := status.seconds_since_change) is not None:
        lines.append(_label(f"policy changed {duration(since)} ago"))
    return lines


def _learning(session: Session, curves: Curves) -> list[Content]:
    """Every stage that has worked; the one at work in bold, with a bar."""
    status = session.status
    shown = [stage for stage in STAGES if stage in status.learning]
    lines = [Content.styled(_replay(status.replay), "bold"), _bar(status.replay)] if status.replay else []
    lines += [line for stage in shown for line in _stage(STAGES[stage], status.learning[stage], curves.get(stage))]
    if status.paused and not status.held:  # the sentence says what is held
        lines.append(Content("learning is paused: p resumes it"))
    return lines or [_label("the adapter has not learned yet")]


def _stage(name: str, view: StageView, curve: deque[float] | None) -> list[Content]:
    steps = _steps(view)
    left = f" · {duration(view.seconds_left)} left" if view.active and view.seconds_left else ""
    lines = [Content.styled(f"{'▸' if view.active else '·'} {name} {steps}{left}", "bold" if view.active else "")]
    if view.active and view.of:
        lines.append(_bar(view))
    figures = {"loss": (view.loss, 3), "pairs": (view.accuracy, 2), "reward": (view.reward, 2), "KL": (view.kl, 1)}
    shown = "  ".join(f"{label} {number(value, digits)}" for label, (value, digits) in figures.items() if value is not None)
    if shown:
        drawn = sparkline(curve, (ROOM - 3 - cell_len(shown))) if curve and len(curve) > 2 else ""
        lines.append(_label(f"  {shown} {drawn}".rstrip()))
    if view.note:
        lines += [_label(f"  {line.rstrip()}") for line in wrap(one_line(view.note), ROOM - 2)[:2]]
    return lines


def _replay(view: StageView) -> str:
    left = f" · {duration(view.seconds_left)} left" if view.seconds_left else ""
    return f"learning from the log {view.step:,} of {view.of:,}{left}"


def _bar(view: StageView) -> Content:
    return Content.styled(f"  {progress(view.step / max(1, view.of), ROOM - 2)}", "$accent")


def _won(session: Session) -> list[Content]:
    """The operator's own measure."""
    counts = [("last 30", session.blind), ("all", session.blind_all)]
    if session.blind_adapter.n:
        counts.append(("adapter alone", session.blind_adapter))
    lines = [Content("won against the base, blind")]
    if not session.blind_all.n:
        return [*lines, _label("  nothing counted yet")]
    for name, count in counts:
        lines += _count(name, count)
    return lines


def _count(name: str, count: BlindCount) -> list[Content]:
    lines = [Content(f"  {name}: {count.in_words()}")]
    if (rate := count.rate) is not None:
        lines.append(_label(f"  {interval(count.low, rate, count.high, ROOM - 2)}"))
    return lines


def _machine(session: Session) -> list[Content]:
    judged = session.judged
    return [_label(f"{judged} judgement{'s' if judged != 1 else ''} on disk"), _label(_engine(session))]


# --- small things ------------------------------------------------------------------------------------------------------


def _steps(view: StageView) -> str:
    return f"{view.step}/{view.of}" if view.of else ""


def _engine(session: Session) -> str:
    if session.engine_state is EngineState.READY and session.ready is not None:
        ready = session.ready
        size = f"{ready.parameters / 1e6:.1f}M" if ready.parameters < 1e9 else f"{ready.parameters / 1e9:.1f}B"
        paused = " · held" if session.status.held else " · paused" if session.status.paused else ""
        return f"{size} parameters on {ready.device}, {ready.quantize}{paused}"
    return {"starting": "engine starting", "loading": "loading the model", "dead": "engine stopped: R restarts it"}.get(
        session.engine_state.value, ""
    )


def _hanging(line: str) -> list[Content]:
    """Wrapped, with what follows the first line set in."""
    first, *rest = wrap(line, ROOM)
    if not rest:
        return [Content(first)]
    return [Content(first), *(Content(f"  {part.rstrip()}") for part in wrap(line[len(first) :], ROOM - 2))]


def number(value: float, digits: int) -> str:
    """× for what is no number; powers of ten for what would not fit."""
    if not math.isfinite(value):
        return "×"
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.0e}"


def duration(seconds: float) -> str:
    """'4 s', '3 min', '2 h'."""
    if not math.isfinite(seconds):
        return "×"
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _label(text: str) -> Content:
    return Content.styled(text, "$foreground 60%")
