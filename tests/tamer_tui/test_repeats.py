"""A set that was judged long ago comes again: silently, once, and never as a second lesson."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from learners import protocol
from storage import repeats
from storage.queries import Record
from storage.records import Critique
from tamer_tui import dealing
from tamer_tui.session import Session
from tamer_tui.widgets.details import detailed_lines
from tests.tamer_tui.fake_engine import FakeEngine
from tests.tamer_tui.table import table
from tests.tamer_tui.test_session import sitting, uids


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be repeated is, after two more sets."""
    monkeypatch.setattr(dealing, "REPEAT_SHARE", 1.0)
    monkeypatch.setattr(repeats, "LONG_AGO", 2)


async def judge(session: Session, order: str = "abcd") -> None:
    """Rank by the texts' order, or against it."""
    by_text = sorted(session.set.candidates, key=lambda c: c.text, reverse=order == "dcba")
    await session.judging.rank({c.uid: i for i, c in enumerate(by_text, 1)})


def told(engine: FakeEngine) -> list[int]:
    return [command.lesson.seq for command in engine.received if isinstance(command, protocol.AddJudgement)]


async def test_an_old_set_comes_again_and_teaches_nothing_twice(tmp_path: Path) -> None:
    engine, path = FakeEngine(), tmp_path / "a.db"
    async with sitting(path, engine) as session:
        first = session.set
        await judge(session)
        for _ in range(2):
            await session.sets.open_next()
            assert session.set.purpose == "judge"
            await session.sets.wait_ended()
            await judge(session)
        taught = told(engine)
        await session.sets.open_next()
        again = session.set
        assert again.purpose == "repeat" and again.prompt == first.prompt and not set(uids(session)) & {c.uid for c in first.candidates}
        session.sets.repeats.finish()
        assert sorted(c.text for c in again.candidates) == sorted(c.text for c in first.candidates) and again.ended
        await judge(session, "dcba")
        assert told(engine) == taught, "the engine hears nothing of it"
        with Record(path) as record:
            assert len(list(record.lessons())) == len(taught) and record.counts().sets == 3
            agreement = record.agreement()
            assert agreement.comparisons > 0 and agreement.agree == 0.0
            assert record.repeatable(0.0) is None, "the newest set is a repeat"
        await session.sets.open_next()
        assert session.set.purpose == "judge", "never two in a row"
        await session.judging.skip()
        await session.judging.undo()
        await session.judging.undo()
        assert session.set.uid == again.uid and told(engine) == taught
        assert not any(isinstance(command, protocol.Retract) for command in engine.received)
    with Record(path) as record:
        assert record.agreement().comparisons == 0, "undone"


async def test_judging_it_while_it_appears_shows_all_of_it_first(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db") as session:
        for _ in range(3):
            await judge(session)
            await session.sets.open_next()
            await session.sets.wait_ended()
        assert session.set.purpose == "repeat"
        await session.judging.rank({uids(session)[0]: 1})
        assert all(c.ended and c.text for c in session.set.candidates)


async def test_it_can_be_criticised_as_any_set(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        for _ in range(3):
            await t.press("a", "enter", "enter")
        assert t.session.set.purpose == "repeat"
        uid = t.session.set.uid
        await t.press("semicolon", "h", "i", "enter")
        assert any(isinstance(each, Critique) and each.set_uid == uid for each in t.live()) and "follow it" in t.arena.said


async def test_programs_are_not_asked_again(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db", metered=True) as session:
        for _ in range(4):
            await judge(session)
            await session.sets.open_next()
            await session.sets.wait_ended()
            assert session.set.purpose == "judge"


async def test_the_ceiling_stands_beside_the_accuracy_in_the_figures(tmp_path: Path) -> None:
    async with sitting(tmp_path / "a.db", engine := FakeEngine()) as session:
        for _ in range(3):
            await judge(session)
            await session.sets.open_next()
            await session.sets.wait_ended()
        engine.emit(protocol.Metrics(stage="reward", step=10, of=10, seconds_left=0.0, loss=0.4, accuracy=0.83))
        await asyncio.sleep(0)
        assert not any("you yourself" in line.plain for line in detailed_lines(session)), "judged no two answers twice yet"
        await judge(session)
        await session.sets.open_next()
        await session.settle()
        lines = [line.plain for line in detailed_lines(session)]
        place = next(i for i, line in enumerate(lines) if "pairs 0.83" in line)
        assert lines[place + 1] == "  you yourself would: pairs 1.00"
