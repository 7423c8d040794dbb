"""What the Arena tells its operator: the one line about what to do now, and the keys that work now, the most needed first."""

from __future__ import annotations

from dataclasses import dataclass

from tamer_tui.ballot import Ballot
from tamer_tui.keys import LETTERS
from tamer_tui.session import Session
from tamer_tui.text import duration
from tamer_tui.views import EngineState, SetView

MACHINE = ("learn.pause", "learn.now", "machine.versions", "learn.bias", "learn.nats", "screen.palette", "screen.settings", "screen.leader")
READING = (
    "focus.next", "scroll.down", "show.tint", "show.differences", "show.freeze", "show.slower", "show.faster", "note.flag", "note.comment",
    "copy.answer", "copy.code", "copy.export", "show.markdown", "show.fold", "show.details",
)  # fmt: skip


@dataclass(frozen=True)
class Guidance:
    """Of one moment."""

    session: Session
    ballot: Ballot
    criterion: str
    frozen: bool
    undoable: bool

    @property
    def view(self) -> SetView | None:
        return self.session.current

    @property
    def dead(self) -> bool:
        return self.session.engine_state is EngineState.DEAD

    # --- what to do ----------------------------------------------------------------------------------------------------

    def todo(self) -> str:
        """One line."""
        if self.view is None:
            return "The engine stopped: R restarts it." if self.dead else _loading(self.session)
        line = self._todo(self.view)
        if self.session.engine.away:
            return f"{line} The link to the engine is down; it comes back by itself."
        return f"{line} The engine stopped: R restarts it." if self.dead else line

    def _todo(self, view: SetView) -> str:
        if self.frozen:
            return "Frozen: space goes on."
        if view.purpose == "compare":
            return "Your model's answer is a, the untouched model's b; not counted. Enter goes back."
        if view.committed:
            return "✓ on disk. Enter opens the next prompt."
        if view.purpose == "tap":
            return self._tap_moves(view)
        if not self.ballot.empty:
            return f"{self.ballot.in_words()}   (enter commits, backspace takes back)"
        if self.dead:
            return "Judging goes on."
        if self.session.sets.best_of.choosing(view):
            return f"Drawing {self.session.settings.best_of} answers; the best {len(view.candidates)} are shown, the untouched model's among them."
        return self._first_move(view)

    def _tap_moves(self, view: SetView) -> str:
        answer = view.candidates[0]
        if answer.ended is None or len(answer.shown) < len(answer.pieces):
            return f"Tap + or - as the words appear; < > change the pace, k leaves.{' Silence counts.' if self.session.taps.silence else ''}"
        return "Taps soon are about the whole answer. Enter opens the next."

    def _first_move(self, view: SetView) -> str:
        held = " p learns on." if self.session.status.held else ""
        if len(view.candidates) == 1:
            return f"Score it 1-7 ({self.criterion}), or r to rewrite it, then enter.{held}"
        if len(view.candidates) == 2:
            return f"Which is better? Type its letter (t: equal), then enter.{held}"
        return f"Best first: type letters, then enter. Or score 1-7 ({self.criterion}).{held}"

    # --- keys that work now ----------------------------------------------------------------------------------------------

    def spans(self) -> list[tuple[str, str]]:
        """Keys of one kind: ('a-d', 'rank'), ('1-7', 'score')."""
        if not judgeable(self.view):
            return []
        assert self.view is not None
        k = len(self.view.candidates)
        if self.view.purpose == "tap":
            return [("+ -", "tap"), ("1-7", "score")]
        letters = [(f"{LETTERS[0]}-{LETTERS[k - 1]}", "rank" if k > 2 else "choose")] if k > 1 else []
        return [*letters, ("1-7", "score")]

    def keys(self) -> list[str]:
        """Bindings by id."""
        leave = ["screen.help", "screen.quit"]
        undo = ["set.undo"] if self.undoable else []
        restart = ["machine.restart"] if self.dead else []
        view = self.view
        if view is None:
            early = [] if self.dead else ["prompt.new"]
            return [*restart, *leave, *early, "machine.versions", "screen.palette"] if self.session.database else [*restart, *leave, *early]
        if not judgeable(view):
            opening = [] if self.dead else ["prompt.new", "prompt.continue", *(["prompt.compare"] if view.committed else [])]
            return [*restart, "set.commit", *undo, *leave, *opening, *READING, *MACHINE, "set.redo"]
        opening = [] if self.dead else ["prompt.new", "prompt.continue", "prompt.compare"]
        typed = ["rank.back"] if not self.ballot.empty else []
        peel = ["screen.peel"] if typed or self.frozen or not view.ended else []
        tie = ["rank.tie"] if len(view.candidates) > 1 else []
        silence = ["learn.silence"] if view.purpose == "tap" else []
        return [*restart, *tie, "set.commit", *undo, "edit.critique", *leave, "set.skip", *silence, *typed, "edit.rewrite", "edit.ideal", *peel,
                "tap.view", "focus.next", *opening, "rank.bad", "score.clear", "score.criterion", "edit.wishes", *READING[1:], *MACHINE,
                "set.redo"]  # fmt: skip


def judgeable(view: SetView | None) -> bool:
    """Whether judging keys mean something now."""
    return view is not None and not view.committed and view.purpose in ("judge", "repeat", "tap")


def _loading(session: Session) -> str:
    loading = session.loading
    if loading is None:
        return "Starting the engine …"
    if session.ready is not None:
        return "Opening the first prompt …"
    share = f" {100 * loading.done / loading.total:.0f} %" if loading.total else ""
    left = f", {duration(loading.seconds_left)} left" if loading.seconds_left else ""
    return f"Loading {session.settings.model}: {loading.what}{share}{left} …"
