"""How learning stands, at the side of the answers (or in two lines below them on a narrow screen)."""

from __future__ import annotations

import math

from textual.content import Content
from textual.widgets import Static

from storage.blind import BlindCount
from tamer_tui.session import Session
from tamer_tui.text import one_line
from tamer_tui.views import EngineState, StageView

STAGES = {"sft": "imitate", "distill": "distil", "reward": "reward model", "ppo": "PPO", "gate": "gate"}


class Rail(Static):
    """Wide: a column. Narrow: two lines."""

    DEFAULT_CSS = """
    Rail { width: 42; height: 1fr; padding: 0 1; border: round $foreground 30%; border-title-color: $foreground 70%; }
    """

    def on_mount(self) -> None:
        self.border_title = "learning"

    def show(self, session: Session, narrow: bool) -> None:
        """As it stands now."""
        lines = narrow_lines(session) if narrow else wide_lines(session)
        self.update(Content("\n").join(lines), layout=False)


def wide_lines(session: Session) -> list[Content]:
    """A paragraph each for the policy, the stages and the count."""
    standing = session.standing
    lines = [_label(_engine(session)), Content("")]
    lines += [Content(one_line(part)) for part in standing.sentence.split(" · ")]
    lines.append(_label(f"budget {standing.nats:g} nats · β {number(standing.acting[1], 2)}" + ("" if standing.bias else " · steering off")))
    if (since := standing.seconds_since_change) is not None:
        lines.append(_label(f"policy changed {duration(since)} ago"))
    lines.append(Content(""))
    for stage, name in STAGES.items():
        if stage in standing.learning:
            lines += _stage(name, standing.learning[stage])
    lines += [Content(""), _label("won against the base, blind")]
    lines += [_count("last 30", session.blind), _count("all", session.blind_all)]
    if session.blind_adapter.n:
        lines.append(_count("adapter alone", session.blind_adapter))
    lines.append(_label(f"{session.judged} judgements on disk"))
    return lines


def narrow_lines(session: Session) -> list[Content]:
    """What fits two rows: the sentence; the busiest stage and the count."""
    standing = session.standing
    active = next((view for view in standing.learning.values() if view.active), None)
    doing = f"{STAGES.get(active.stage, active.stage)} {_steps(active)}" if active else _engine(session)
    count = f"won {session.blind.in_words()}" if session.blind.n else "nothing counted yet"
    return [Content(one_line(standing.sentence)), _label(f"{doing} · {standing.nats:g} nats · {count}")]


def _stage(name: str, view: StageView) -> list[Content]:
    mark = "▸ " if view.active else "  "
    left = f" · {duration(view.seconds_left)} left" if view.active and view.seconds_left else ""
    figures = {"loss": (view.loss, 3), "pairs": (view.accuracy, 2), "reward": (view.reward, 2), "KL": (view.kl, 1)}
    shown = " ".join(f"{label} {number(value, digits)}" for label, (value, digits) in figures.items() if value is not None)
    lines = [Content.styled(f"{mark}{name} {_steps(view)}{left}", "bold" if view.active else "")]
    if shown:
        lines.append(_label(f"    {shown}"))
    if view.note:
        lines.append(_label(f"    {one_line(view.note)}"))
    return lines


def _steps(view: StageView) -> str:
    return f"{view.step}/{view.of}" if view.of else ""


def _engine(session: Session) -> str:
    if session.engine_state is EngineState.READY and session.ready is not None:
        ready = session.ready
        size = f"{ready.parameters / 1e6:.1f}M" if ready.parameters < 1e9 else f"{ready.parameters / 1e9:.1f}B"
        paused = " · held" if session.standing.held else " · paused" if session.standing.paused else ""
        return f"{size} parameters on {ready.device}, {ready.quantize}{paused}"
    return {"starting": "engine starting", "loading": "loading the model", "dead": "engine stopped: R restarts it"}.get(
        session.engine_state.value, ""
    )


def _count(name: str, count: BlindCount) -> Content:
    line = f"  {name}: {count.in_words()}"
    return Content(line) if count.n else _label(line)


def number(value: float, digits: int) -> str:
    """× for what is no number."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "×"


def duration(seconds: float) -> str:
    """'4 s', '3 min', '2 h'."""
    if not math.isfinite(seconds):
        return "×"
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _label(text: str) -> Content:
    return Content.styled(text, "$foreground 60%")
