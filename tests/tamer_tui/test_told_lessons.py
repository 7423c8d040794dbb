"""A log that is too long to be told before the first answer is told in parts, and each judgement once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from learners.protocol import AddJudgement, Command, Replay, Retract
from storage.journal import Journal
from storage.lessons import Teaching
from storage.queries import Record
from storage.records import BaseModel, Critique, Prompt, Ranking, Rating, Redo, Response, SampleSet, Sitting, Undo
from tamer_tui import told_lessons
from tamer_tui.session import Session
from tamer_tui.told_lessons import ToldLessons, stratified
from tamer_tui.views import SessionSettings
from tests.tamer_tui.fake_engine import FakeEngine

SETS = 60
BASE = BaseModel("f" * 64, "toy", "none")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 rankings, which is a long log here."""
    monkeypatch.setattr(told_lessons, "LONG_LOG", 20)
    monkeypatch.setattr(told_lessons, "SAMPLE", 10)
    monkeypatch.setattr(told_lessons, "REPLAY_CHUNK", 8)
    path = tmp_path / "long.db"
    with Journal.open(path) as journal:
        journal.bind(BASE, Sitting("s", BASE.base_hash, "0", "{}"))
        for i in range(SETS):
            journal.write(SampleSet(f"x{i}", "s", Prompt.of(f"prompt {i}"), 2))
            for slot in (0, 1):
                journal.write(Response.written_elsewhere(f"x{i}/{slot}", f"x{i}", slot, f"text {slot}", "hh"))
            journal.append(Ranking(f"x{i}", {f"x{i}/0": 1, f"x{i}/1": 2})).result()
    return path


@pytest.fixture
def record(database: Path) -> Iterator[Record]:
    with Record(database) as record:
        yield record


def seqs(commands: list[Command]) -> list[int]:
    return [lesson.seq for command in commands if isinstance(command, Replay) for lesson in command.lessons]


def test_a_sample_comes_first_and_the_rest_has_what_it_lacks(record: Record) -> None:
    told = ToldLessons(record)
    sample, rest = list(told.begin(whole=False)), list(told.rest())
    assert len(seqs(sample)) == 10 and sorted(seqs(sample) + seqs(rest)) == list(range(1, SETS + 1))
    assert all(isinstance(line, Replay) and line.sample and line.of == SETS for line in sample)
    assert [line.last for line in rest if isinstance(line, Replay)] == [False] * (len(rest) - 1) + [True]
    assert seqs(list(ToldLessons(record).begin(whole=False))) == seqs(sample), "the same log, the same sample"
    assert seqs(list(told.begin(whole=True))) == list(range(1, SETS + 1)) and list(told.rest()) == []


def test_what_was_said_in_between_is_told_once(database: Path, record: Record) -> None:
    told = ToldLessons(record)
    sample = seqs(list(told.begin(whole=False)))
    first, second = _untold(sample)
    rest = told.rest()
    lines = [next(rest)]
    with Journal.open(database) as journal:
        journal.bind(BASE, Sitting("t", BASE.base_hash, "0", "{}"))
        journal.append(Undo(first)).result()
        journal.append(Rating(f"x{second - 1}", f"x{second - 1}/0", 7)).result()
    assert list(told.changes(f"x{first - 1}")) == []  # the engine never knew it
    added = [command.lesson.seq for command in told.changes(f"x{second - 1}") if isinstance(command, AddJudgement)]
    assert added == [second, SETS + 2]
    lines += rest
    assert sorted(seqs(lines) + sample + added) == sorted({*range(1, SETS + 1), SETS + 2} - {first})
    assert [type(command) for command in _undone(database, told, second)] == [Retract]


def _untold(sample: list[int]) -> tuple[int, int]:
    """Two judgements near the end of the log that are not in the sample."""
    first, second, *_ = (seq for seq in range(SETS, 0, -1) if seq not in sample)
    return first, second


def _undone(database: Path, told: ToldLessons, seq: int) -> list[Command]:
    with Journal.open(database) as journal:
        journal.bind(BASE, Sitting("u", BASE.base_hash, "0", "{}"))
        journal.append(Undo(seq)).result()
    return list(told.changes(f"x{seq - 1}"))


def test_a_sample_has_as_much_of_the_operators_own_as_of_the_imported_and_of_every_kind_its_share() -> None:
    own = [Teaching(seq, "rating" if seq % 3 else "ranking", False) for seq in range(1, 61)]
    imported = [Teaching(seq, "ranking", True) for seq in range(100, 1100)]
    found = stratified([*own, *imported], 40)
    assert len(found) == len(set(found)) == 40 and sum(seq < 100 for seq in found) == 20
    kinds = [own[seq - 1].kind for seq in found if seq < 100]
    assert kinds.count("rating") in (13, 14) and max(found) > 1000
    assert sorted(stratified(own, 100)) == list(range(1, 61)) and len(stratified(imported, 40)) == 40


async def test_a_sitting_tells_a_long_log_while_nobody_waits(database: Path) -> None:
    engine = FakeEngine()
    session = Session(SessionSettings("toy", (Prompt.of("Hello"),)), lambda: engine, database)
    await session.start()
    await session.wait_ready()
    assert len(seqs(list(engine.received))) == 10, "the sitting begins with the sample"
    async with asyncio.timeout(30):
        while len(engine.lessons) < SETS:
            await session.settle()
            await asyncio.sleep(0)
    assert sorted(seqs(list(engine.received))) == list(range(1, SETS + 1))
    await session.close()


def test_a_critique_that_is_taken_back_takes_back_what_a_later_ranking_beat_by_it(tmp_path: Path) -> None:
    path = tmp_path / "critique.db"
    with Journal.open(path) as journal, Record(path) as record:
        journal.bind(BASE, Sitting("s", BASE.base_hash, "0", "{}"))

        def show(uid: str) -> None:
            journal.write(SampleSet(uid, "s", Prompt.of("prompt"), 2)).result()
            for slot in (0, 1):
                response = Response.written_elsewhere(f"{uid}/{slot}", uid, slot, f"text {slot}", "shown")
                journal.write(replace(response, policy="acting", version="base")).result()

        told = ToldLessons(record)
        assert seqs(list(told.begin(whole=True))) == []
        show("x0")
        critique = journal.append(Critique("x0", "x0/1", "shorter")).result()
        show("x1")
        ranking = journal.append(Ranking("x1", {"x1/0": 1, "x1/1": 2})).result()

        def over() -> list[tuple[int, list[str]]]:
            """Of the judgements that the engine is told of now."""
            told_now = [command for uid in ("x0", "x1") for command in told.changes(uid)]
            return [(c.lesson.seq, [a.uid for a in c.lesson.over]) if isinstance(c, AddJudgement) else (-c.seq, []) for c in told_now]  # type: ignore[union-attr]

        assert over() == [(critique, []), (ranking, ["x0/1"])]
        assert over() == []
        journal.append(Undo(critique)).result()
        assert over() == [(-critique, []), (-ranking, []), (ranking, [])]
        journal.append(Redo(critique)).result()
        assert over() == [(critique, []), (-ranking, []), (ranking, ["x0/1"])]
        (line,) = ToldLessons(record).begin(whole=True)
        assert isinstance(line, Replay) and [[a.uid for a in lesson.over] for lesson in line.lessons] == [[], ["x0/1"]]
