"""How learning stands in the words and figures of the papers: what `D` shows in place of the plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content

from storage.blind import BlindCount
from tamer_tui.session import Session
from tamer_tui.text import duration, one_line, wrap
from tamer_tui.views import EngineState, StageView
from tamer_tui.widgets.charts import interval, progress, sparkline
from tamer_tui.wins import proof

STAGES = {"sft": "imitate", "distill": "distil", "reward": "reward model", "ppo": "PPO", "gate": "gate"}
DOING = {
    "sft": "practising what you wrote",
    "distill": "taking in your judgements for good",
    "reward": "learning to judge as you do",
    "ppo": "practising for your judgement",
    "gate": "being checked",
}
"""What a stage does, for an operator."""
CURVES = {"sft": "loss", "distill": "loss", "reward": "accuracy", "ppo": "reward"}
"""Which figure of a stage is drawn over time."""
ROOM = 36
"""Cells in a line of the column."""


def detailed_lines(session: Session) -> list[Content]:
    """A paragraph each for the policy, the stages, the count and the machine."""
    return paragraphs([_policy(session), _learning(session), _won(session), _machine(session), GLOSSARY])


def paragraphs(parts: Sequence[Sequence[Content]]) -> list[Content]:
    """With an empty line between two of them."""
    return [line for part in parts if part for line in [*part, Content("")]][:-1]


# --- the paragraphs ----------------------------------------------------------------------------------------------------


def _policy(session: Session) -> list[Content]:
    """What the judgements did, and who answers now."""
    status = session.status
    lines = [line for part in status.sentence.split(" · ") for line in hanging(one_line(part))]
    spent = f"{number(status.spent, 1)} of {status.nats:g} nats" if status.spent is not None else f"{status.nats:g} nats"
    lines.append(label(f"{spent} · β {number(status.acting[1], 2)}" + ("" if status.bias else " · steering off")))
    if status.acting[2]:
        lines.append(label(f"Ĥ {status.acting[2]}" + (f" · {session.taps.dropped} taps about nothing" if session.taps.dropped else "")))
    if (since := status.seconds_since_change) is not None:
        lines.append(label(f"policy changed {duration(since)} ago"))
    return lines


def _learning(session: Session) -> list[Content]:
    """Every stage that has worked; the one at work in bold, with a bar."""
    status = session.status
    shown = [stage for stage in STAGES if stage in status.learning]
    lines = [Content.styled(replay(status.replay), "bold"), bar(status.replay)] if status.replay else []
    agreement = session.sets.repeats.agreement
    ceiling = agreement.ceiling if agreement is not None else None
    lines += [line for stage in shown for line in _stage(STAGES[stage], status.learning[stage], status.curve(stage, CURVES.get(stage, "")), ceiling)]
    if status.paused and not status.held:  # the sentence says what is held
        lines.append(Content("learning is paused: p resumes it"))
    return lines or [label("the adapter has not learned yet")]


def _stage(name: str, view: StageView, curve: Sequence[float], ceiling: float | None) -> list[Content]:
    """`ceiling`: of the pairs' accuracy, beside which it stands."""
    steps = _steps(view)
    left = f" · {duration(view.seconds_left)} left" if view.active and view.seconds_left else ""
    lines = [Content.styled(f"{'▸' if view.active else '·'} {name} {steps}{left}", "bold" if view.active else "")]
    if view.active and view.of:
        lines.append(bar(view))
    figures = {"loss": (view.loss, 3), "pairs": (view.accuracy, 2), "reward": (view.reward, 2), "KL": (view.kl, 1)}
    shown = "  ".join(f"{label} {number(value, digits)}" for label, (value, digits) in figures.items() if value is not None)
    if shown:
        drawn = sparkline(curve, (ROOM - 3 - cell_len(shown))) if len(curve) > 2 else ""
        lines.append(label(f"  {shown} {drawn}".rstrip()))
    if view.accuracy is not None and ceiling is not None:
        lines.append(label(f"  you yourself would: pairs {number(ceiling, 2)}"))
    if view.note:
        lines += [label(f"  {line.rstrip()}") for line in wrap(one_line(view.note), ROOM - 2)[:2]]
    return lines


def replay(view: StageView) -> str:
    left = f" · {duration(view.seconds_left)} left" if view.seconds_left else ""
    return f"learning from the log {view.step:,} of {view.of:,}{left}"


def bar(view: StageView) -> Content:
    return Content.styled(f"  {progress(view.step / max(1, view.of), ROOM - 2)}", "$text-accent")


def _won(session: Session) -> list[Content]:
    """The operator's own measure."""
    counts = [("last 30", session.blind), ("all", session.blind_all)]
    if session.blind_adapter.n:
        counts.append(("adapter alone", session.blind_adapter))
    lines = [Content("won against the base, blind")]
    if not session.blind_all.n:
        return [*lines, label("  nothing counted yet")]
    for name, counted in counts:
        lines += count(name, counted)
    return [*lines, *(label(f"  {line.plain.strip()}") for line in hanging(proof(session.blind_all)))]


def count(name: str, count: BlindCount) -> list[Content]:
    lines = [Content(f"  {name}: {count.in_words()}")]
    if (rate := count.rate) is not None:
        lines.append(label(f"  {interval(count.low, rate, count.high, ROOM - 2)}"))
    if count.chosen:
        lines.append(label(f"  {count.chosen} of them the best of several"))
    return lines


def _machine(session: Session) -> list[Content]:
    judged = session.judged
    return [label(f"{judged} judgement{'s' if judged != 1 else ''} on disk"), label(engine_in_words(session))]


# --- small things ------------------------------------------------------------------------------------------------------


def _steps(view: StageView) -> str:
    return f"{view.step}/{view.of}" if view.of else ""


def engine_in_words(session: Session) -> str:
    if session.engine.away:
        return "the link is down: judging goes on"
    if session.engine_state is EngineState.READY and session.ready is not None:
        ready = session.ready
        size = f"{ready.parameters / 1e6:.1f}M" if ready.parameters < 1e9 else f"{ready.parameters / 1e9:.1f}B"
        paused = " · held" if session.status.held else " · paused" if session.status.paused else ""
        stored = f", {ready.quantize}" if ready.quantize != "none" else ""
        return f"{size} parameters on {ready.device}{stored}{paused}"
    return {"starting": "engine starting", "loading": "loading the model", "dead": "engine stopped: R restarts it"}.get(
        session.engine_state.value, ""
    )


def hanging(line: str) -> list[Content]:
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


def label(text: str) -> Content:
    return Content.styled(text, "$foreground 60%")


GLOSSARY = [
    label(line)
    for line in (
        "Ĥ    what you said, as a reward",
        "β    how strongly Ĥ steers",
        "nats how far from the base: KL of",
        "     64 tokens; N sets the limit",
        "PPO  practice against a learned judge",
        "gate checks a version before it acts",
    )
]
"""What the names of the papers mean."""
