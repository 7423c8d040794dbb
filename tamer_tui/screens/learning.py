"""How learning goes, as charts, with what each figure means."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.containers import Grid
from textual.screen import Screen
from textual.widgets import Static

from storage.journal import JournalError
from storage.queries import Record
from storage.statistics import Agreement
from storage.verdict import Verdict
from tamer_tui.keys import LEARNING_KEYS, painted_all
from tamer_tui.learning_status import sampling_in_words
from tamer_tui.screens.observing import observe
from tamer_tui.session import Change, Session
from tamer_tui.text import duration, one_line, size_of
from tamer_tui.widgets.charts import interval
from tamer_tui.widgets.details import DOING, number
from tamer_tui.widgets.foot import Foot
from tamer_tui.widgets.lines import Line
from tamer_tui.widgets.plot import Plot
from tamer_tui.wins import equal_length, own_agreement, proof, wins

EVERY_SECONDS = 0.25
MOST_NOTES = 6
"""Of the engine, in full, the last ones."""
CHARTS = (
    ("taught", "distill", "loss", "taking it in: loss", "falls as the version comes to answer like your judgements", None, None),
    ("imitated", "sft", "loss", "practising what you wrote: loss", "falls as it could have written your texts", None, None),
    ("agrees", "reward", "accuracy", "judging as you do", "share of pairs it orders as you did, before it learned them", 0.0, 1.0),
    ("rewarded", "ppo", "reward", "practising: reward", "rises as answers please the judge that learned from you", None, None),
    ("moved", "ppo", "kl", "practising: how far it moved", "units away from where it began (KL)", 0.0, None),
)
"""Id, stage, figure, title, meaning, and the ends of the axis."""


class LearningScreen(Screen[None]):
    """Painted four times a second while it is looked at, and not otherwise."""

    CSS_PATH = "learning.tcss"
    BINDINGS = list(LEARNING_KEYS)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._verdict: Verdict | None = None
        self._agreement: Agreement | None = None

    def compose(self) -> ComposeResult:
        yield Line(id="now")
        with Grid(id="charts"):
            for name, _, _, title, note, low, high in CHARTS:
                yield Plot(title, note, low, high).add_class(name)
            yield Plot("answers: tokens a second", "how fast each answer came", 0.0).add_class("speed")
        yield Line(id="won")
        yield Static(id="notes", markup=False)
        yield Foot(painted_all("learn.nats", "learn.pause", "learn.now", "learn.bias"))

    def on_screen_resume(self) -> None:
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        """What takes the whole record to say, beside the loop."""
        if (path := self.session.database) is not None:
            with suppress(JournalError):
                self._verdict, self._agreement = await asyncio.to_thread(_proven, path)
                self._paint()

    def on_mount(self) -> None:
        observe(self.session, self, self._changed)
        self.set_interval(EVERY_SECONDS, self._paint)
        self._paint()

    def say(self, line: str) -> None:
        """One line, at the bottom."""
        self.query_one(Foot).say(line)

    def _changed(self, change: Change) -> None:
        if change is Change.COMMITTED and self.is_current:
            self._read()

    def _paint(self) -> None:
        if not self.is_current:
            return
        status = self.session.status
        for name, stage, figure, *_ in CHARTS:
            self.query_one(f".{name}", Plot).values = tuple(status.curve(stage, figure))
        self.query_one(".speed", Plot).values = tuple(status.speeds)
        self.query_one("#now", Line).show(_now(self.session))
        self.query_one("#won", Line).show(_won(self.session, self._verdict))
        notes = self.query_one("#notes", Static)
        notes.display = bool(self.session.notes)
        notes.update("\n".join(one_line(note) for note in self.session.notes[-MOST_NOTES:]))
        self.query_one(".agrees", Plot).note = own_agreement(self._agreement)


def _now(session: Session) -> str:
    """What goes on, and what it takes."""
    status, ready = session.status, session.ready
    active = next((view for view in status.learning.values() if view.active), None)
    doing = f"now: {DOING.get(active.stage, one_line(active.stage))}" if active else "now: waiting for judgements"
    left = f", {duration(active.seconds_left)} left" if active is not None and active.seconds_left else ""
    moved = f"moved {number(status.spent, 1)} of {status.nats:g} units" if status.spent is not None else f"may move {status.nats:g} units"
    memory = f"memory {size_of(ready.memory_bytes)} on {ready.device}" if ready is not None else "no model yet"
    drawn = sampling_in_words(session.sampling, ready.from_model) if ready is not None else ""
    fitted = (
        f"steering fits {status.learned.accuracy:.0%} of your pairs" if status.learned is not None and status.learned.accuracy is not None else ""
    )
    agreement = session.sets.repeats.agreement
    ceiling = f"you yourself would {agreement.ceiling:.0%}" if fitted and agreement is not None and agreement.ceiling is not None else ""
    return " · ".join(part for part in (doing + left, fitted, ceiling, moved, memory, drawn) if part)


def _won(session: Session, verdict: Verdict | None) -> str:
    """The operator's own measure."""
    count = session.blind_all
    if (rate := count.rate) is None:
        return "Your model against the untouched one, blind: nothing counted yet"
    told = wins(count)
    sure = f"{told[0].upper()}{told[1:]} {interval(count.low, rate, count.high, 20)} {proof(count)}"
    return " · ".join(part for part in (sure, equal_length(verdict)) if part)


def _proven(path: Path) -> tuple[Verdict, Agreement]:
    with Record(path) as record:
        return record.verdict(), record.habits().agreement
