"""The tour of a first sitting: a few lines, one at a time, that go on by what the operator does. It holds up no key, and is told once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tamer_tui.ballot import Ballot
from tamer_tui.config import tour_note
from tamer_tui.keys import painted
from tamer_tui.session import Session
from tamer_tui.wins import wins


@dataclass(frozen=True)
class Moment:
    """What the operator has done by now."""

    session: Session
    ballot: Ballot
    tapped: bool  # the tap view has been looked at


@dataclass(frozen=True)
class Step:
    """What is said, and when it has been done."""

    says: Callable[[Moment], str]
    done: Callable[[Moment], bool]


def _judged(n: int) -> Callable[[Moment], bool]:
    return lambda moment: moment.session.judged >= n


STEPS = (
    Step(
        lambda m: "A few answers to one question, some of them wrong or rude. Read them, then type the letter of the best one.",
        lambda m: not m.ballot.empty or m.session.judged > 0,
    ),
    Step(lambda m: "Now enter. That goes to disk, and the very next answer is drawn by a model that has learned it.", _judged(1)),
    Step(lambda m: f"Judge three more, strict about one thing: truth, say, or kindness. ({min(3, m.session.judged - 1)} of 3)", _judged(4)),
    Step(
        lambda m: f"{painted('edit.critique')[0]} says in words what should be otherwise. Larger models follow at once; Pocket learns by letters.",
        lambda m: m.session.status.followed > m.session.status.known or m.session.judged >= 6,
    ),
    Step(
        lambda m: "It learns for good while you read: what it does stands beside the answers, or below. Judge on; a version of your own comes.",
        lambda m: m.session.status.adapted or m.session.judged >= 8,
    ),
    Step(
        lambda m: "k shows one answer at reading pace: + praises the words that you just read, - blames them, and the rest bends. k comes back.",
        lambda m: m.tapped or m.session.judged >= 12,
    ),
    Step(
        lambda m: (
            f"Some answers are the untouched model's, unmarked: {wins(m.session.blind_all) or 'nothing counted yet'}."
            " f5 chats, f7 draws it all, ? has every key."
        ),
        _judged(15),
    ),
)


class Tour:
    """Where it stands."""

    def __init__(self, session: Session) -> None:
        self._session = session
        first = session.settings.model == "pocket" and session.judged == 0 and not tour_note().exists()
        self._at = 0 if first else len(STEPS)
        self._tapped = False

    @property
    def on(self) -> bool:
        """Whether anything is still to be told."""
        return self._at < len(STEPS)

    def line(self, ballot: Ballot, tap_view: bool) -> str:
        """What to tell now, '' after the end."""
        self._tapped = self._tapped or tap_view
        moment = Moment(self._session, ballot, self._tapped)
        while self.on and STEPS[self._at].done(moment):
            self._at += 1
            if not self.on:
                self.end()
        return f"Tour {self._at + 1}/{len(STEPS)} (esc ends it): {STEPS[self._at].says(moment)}" if self.on else ""

    def begin(self) -> None:
        """From the beginning, because the operator asks for it."""
        self._at, self._tapped = 0, False

    def end(self) -> None:
        """It will not come again by itself."""
        self._at = len(STEPS)
        with suppress(OSError):
            tour_note().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            tour_note().touch()
