"""How learning stands, in plain words, at the side of the answers (or in two lines below them on a narrow screen)."""

from __future__ import annotations

import time

from textual.content import Content
from textual.reactive import var
from textual.widgets import Static

from storage.records import BASE_VERSION
from tamer_tui.session import Session, StageView
from tamer_tui.text import duration, one_line
from tamer_tui.views import EngineState
from tamer_tui.widgets.charts import interval
from tamer_tui.widgets.details import DOING, ROOM, bar, detailed_lines, engine_in_words, hanging, label, number, paragraphs, replay
from tamer_tui.wins import proof, wins

UNITS = {"gate": "prompts"}
REPAINT_SECONDS = 0.2
"""Between two paintings while figures arrive."""


class Rail(Static):
    """Wide: a column. Narrow: two lines."""

    DEFAULT_CSS = """
    Rail { width: 42; height: 1fr; padding: 0 2; border: round $foreground 30%; border-title-color: $foreground 70%; }
    Rail.narrow { width: 1fr; height: 2; border: none; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    narrow: var[bool] = var(False, toggle_class="narrow", init=False)
    detailed: var[bool] = var(False, init=False)  # figures and names of the papers
    revision: var[int] = var(0, init=False)  # of what the session says

    def __init__(self, session: Session, id: str | None = None) -> None:
        super().__init__(id=id)
        self._session = session
        self._painted = 0.0  # monotonic seconds
        self._lines: list[Content] = []

    def on_mount(self) -> None:
        self.border_title = "learning"
        self.set_interval(1.0, self.repaint)  # some figures are times

    def watch_narrow(self) -> None:
        self.repaint()

    def watch_detailed(self) -> None:
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
        lines = narrow_lines(self._session) if self.narrow else detailed_lines(self._session) if self.detailed else wide_lines(self._session)
        if lines != self._lines:
            self._lines = lines
            self.update(Content("\n").join(lines), layout=False)


def wide_lines(session: Session) -> list[Content]:
    """A paragraph each: what was learned and who answers, the next version, the count, and the machine."""
    return paragraphs([_taught(session), _next_version(session), _wins(session), _machine(session)])


def narrow_lines(session: Session) -> list[Content]:
    """What fits two rows."""
    status = session.status
    active = _active(session)
    training = f"next: {_doing(active)}{_left(active)}" if active else ""
    idle = "" if status.adapted else "no version of your own yet"
    quiet = idle if session.engine_state is EngineState.READY else engine_in_words(session)
    doing = replay(status.replay) if status.replay else training or _waiting(session) or quiet
    won = wins(session.blind_all).replace("your model", "yours")
    who = answering(session).partition(", steered")
    answers = f"answering: {who[0]}{who[1]}" if session.engine_state is EngineState.READY else ""
    upper = [_follows(session), answers, status.refused and _refused(session)]
    lower = [won, doing, _moved(session)]
    return [Content(one_line(" · ".join(part for part in upper if part))), label(one_line(" · ".join(part for part in lower if part)))]


# --- in plain words ------------------------------------------------------------------------------------------------------


def _follows(session: Session) -> str:
    learned = session.status.learned
    if session.status.held:
        return f"{_on_disk(session)}; what you say waits"
    if session.judged and not session.status.bias:
        return f"{_on_disk(session)}; nothing steers: B"
    if learned is None or not session.status.followed:
        waits = session.judged and session.engine_state is not EngineState.READY
        return _on_disk(session) if waits else "nothing learned yet"
    counts = {"ranking": learned.rankings, "score": learned.ratings, "rewritten answer": learned.corrections, "tap": learned.taps}
    counts["critique"] = learned.critiques
    named = [f"{n} {name}{'s' if n != 1 else ''}" for name, n in counts.items() if n]
    return "answers follow your " + " and ".join(", ".join(named).rsplit(", ", 1))


def answering(session: Session) -> str:
    """Who answers now, for an operator."""
    status = session.status
    who = f"your version {status.acting[0]}" if status.adapted else "the untouched model"
    if status.bias and status.followed and not status.held:
        return f"{who}, steered by what you said since" if status.adapted else f"{who}, steered by what you said"
    return who


def _moved(session: Session) -> str:
    status = session.status
    return f"moved {number(status.spent, 1)} of the {status.nats:g} units you allow" if status.spent is not None else ""


def _refused(session: Session) -> str:
    version, _, reason = session.status.refused.partition(" refused: ")
    return f"{version} was not taken: {reason}"


def _doing(view: StageView) -> str:
    steps = f" ({view.step} of {view.of} {UNITS[view.stage]})" if view.stage in UNITS and view.of > 1 else ""
    return DOING.get(view.stage, one_line(view.stage)) + steps


def _left(view: StageView) -> str:
    return f", {duration(view.seconds_left)} left" if view.seconds_left else ""


def _active(session: Session) -> StageView | None:
    if session.status.paused:
        return None
    return next((view for view in session.status.learning.values() if view.active), None)


def _waiting(session: Session) -> str:
    status = session.status
    if status.held:
        return "learning is held: p resumes it"
    return "learning is paused: p resumes it" if status.paused else ""


# --- the paragraphs ------------------------------------------------------------------------------------------------------


def _taught(session: Session) -> list[Content]:
    follows = _follows(session)
    lines = hanging(follows[0].upper() + follows[1:])
    if session.engine_state is EngineState.READY:
        lines += hanging(one_line(f"Answering now: {answering(session)}"))
    if moved := _moved(session):
        lines += [label(line.plain) for line in hanging(f"It has {moved}. More is bolder, less is safer: N")]
    if session.taps.dropped:
        lines.append(label(f"{session.taps.dropped} taps were about nothing"))
    return lines


def _next_version(session: Session) -> list[Content]:
    status, active = session.status, _active(session)
    lines = [Content.styled(replay(status.replay), "bold"), bar(status.replay)] if status.replay else []
    if active is not None:
        lines += [Content.styled(line.plain, "bold") for line in hanging(f"Next version: {_doing(active)}")]
        lines += [bar(active)] if active.of > 1 else []
        lines += [label(f"  {duration(active.seconds_left)} left · p pauses")] if active.seconds_left else []
    if waiting := _waiting(session):
        lines.append(Content(waiting[0].upper() + waiting[1:]))
    if status.refused:
        lines += [label(line.plain) for line in hanging(one_line(_refused(session)))]
    if status.acting[0] == BASE_VERSION and not lines:
        lines = [label("No version of your own yet")]
    return lines


def _wins(session: Session) -> list[Content]:
    every, late = session.blind_all, session.blind
    if (rate := every.rate) is None:
        return [Content("Your model against the untouched one:"), label("  nothing counted yet")]
    told = wins(every)
    lines = [Content.styled(told[0].upper() + told[1:], "bold"), label(f"  {interval(every.low, rate, every.high, ROOM - 2)}")]
    lines += [label(f"  {line.plain.strip()}") for line in hanging(proof(every))]
    return lines + ([label(f"  the last {late.n}: {late.wins + late.ties / 2:g}")] if late.n < every.n else [])


def _machine(session: Session) -> list[Content]:
    return [label(_on_disk(session)), label(engine_in_words(session)), label("D shows figures and names")]


def _on_disk(session: Session) -> str:
    return f"{session.judged} judgement{'s' if session.judged != 1 else ''} on disk"
