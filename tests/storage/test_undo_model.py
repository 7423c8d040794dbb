"""Undo, redo and replacement against a model of the log in plain Python, over random histories."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.journal import JournalError
from storage.records import Correction, Demonstration, Judgement, Peek, Ranking, Rating, Redo, Skip, Undo

from .conftest import Desk

SETS = ("s1", "s2")
sets = st.sampled_from(SETS)
slots = st.sampled_from("ab")
targets = st.integers(0, 12)
judgements = st.one_of(
    st.builds(lambda uid, slot: Ranking(uid, {uid + slot: 1}), sets, slots),
    st.builds(lambda uid, slot, value: Rating(uid, uid + slot, value), sets, slots, st.integers(0, 7)),
    st.builds(lambda uid, slot: Rating(uid, uid + slot, 4, "useful"), sets, slots),
    st.builds(lambda uid, slot: Correction(uid, uid + slot, "text"), sets, slots),
    st.builds(lambda uid: Demonstration(uid, "text"), sets),
    st.builds(Skip, sets),
    st.builds(Peek, sets),
    st.builds(Undo, targets),
    st.builds(Undo, targets),
    st.builds(Redo, targets),
)


@dataclass
class Model:
    """The log as a list, and the undone seqs as a stack."""

    log: list[Judgement] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)

    def accepts(self, judgement: Judgement) -> bool:
        match judgement:
            case Ranking():
                return not self.rivals(judgement)
            case Rating(value=value):
                return value >= 1
            case Undo(target=target):
                return target in self.standing() and not isinstance(self.log[target - 1], Peek)
            case Redo(target=target):
                return target in self.undone and self.accepts_again(target)
        return True

    def accepts_again(self, seq: int) -> bool:
        judgement = self.log[seq - 1]
        return not isinstance(judgement, Ranking) or not self.rivals(judgement)

    def add(self, judgement: Judgement) -> None:
        self.log.append(judgement)
        match judgement:
            case Undo(target=target):
                self.undone.append(target)
            case Redo(target=target):
                self.undone.remove(target)

    def standing(self) -> list[int]:
        said = (seq for seq, judgement in enumerate(self.log, start=1) if not isinstance(judgement, Undo | Redo))
        return [seq for seq in said if seq not in self.undone]

    def rivals(self, judgement: Judgement) -> list[int]:
        """What stands on the same subject; a ranking's is its set, a rating's its answer and criterion, and so on."""
        about = subject(judgement)
        return [seq for seq in self.standing() if about and subject(self.log[seq - 1]) == about]

    def live(self) -> list[int]:
        newest = {subject(self.log[seq - 1]) or seq: seq for seq in self.standing()}
        return sorted(newest.values())

    def last_undoable(self) -> int | None:
        return max((seq for seq in self.standing() if not isinstance(self.log[seq - 1], Peek)), default=None)

    def last_redoable(self) -> int | None:
        for seq in reversed(self.undone):
            newer = [rival for rival in self.rivals(self.log[seq - 1]) if rival > seq]
            if self.accepts_again(seq) and not newer:
                return seq
        return None


def subject(judgement: Judgement) -> tuple[str, ...] | None:
    """What two judgements must share for the newer to replace the older, or for it to be refused."""
    match judgement:
        case Ranking(set_uid=uid) | Demonstration(set_uid=uid):
            return (type(judgement).__name__, uid)
        case Rating(response_uid=uid, criterion=criterion):
            return ("Rating", uid, criterion)
        case Correction(response_uid=uid):
            return ("Correction", uid)
    return None


@settings(max_examples=60, deadline=None)
@given(st.lists(judgements, max_size=12))
def test_any_history_leaves_live_what_the_model_says(shown_database: Path, history: list[Judgement]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "tamer.db", shown_database)
        model = Model()
        for judgement in history:
            try:
                seq = desk.say(judgement)
            except JournalError:
                assert not model.accepts(judgement)
                continue
            assert model.accepts(judgement)
            model.add(judgement)
            assert seq == len(model.log)
            assert [logged.seq for logged in desk.record.live()] == model.live()
            assert desk.record.last_undoable() == model.last_undoable()
            assert desk.record.last_redoable() == model.last_redoable()
        assert [logged.judgement for logged in desk.record.log()] == model.log
        desk.close()
