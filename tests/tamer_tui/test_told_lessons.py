"""A log that is too long to be told before the first answer is told in parts, and each judgement once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from learners.protocol import AddJudgement, Command, Generate, Replay, Retract
from storage.journal import Journal
from storage.lessons import Teaching
from storage.queries import Record
from storage.records import (
    Activation,
    BaseModel,
    Critique,
    Prompt,
    Ranking,
    Rating,
    Redo,
    Response,
    Run,
    SampleSet,
    Sitting,
    Undo,
    Version,
)
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


def test_a_sample_has_of_every_kind_its_share_spread_over_the_log() -> None:
    listed = [Teaching(seq, "rating" if seq % 3 else "ranking", False) for seq in range(1, 61)]
    found = stratified(listed, 20)
    assert len(found) == len(set(found)) == 20 and found == stratified(listed, 20) != sorted(found)
    kinds = [listed[seq - 1].kind for seq in found]
    assert kinds.count("rating") in (13, 14) and min(found) <= 6 and max(found) >= 55
    assert sorted(stratified(listed, 100)) == list(range(1, 61))


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 imported rankings and a critique that came with them, between 5 rankings of the operator's own."""
    monkeypatch.setattr(told_lessons, "SAMPLE", 10)
    monkeypatch.setattr(told_lessons, "REPLAY_CHUNK", 8)
    path = tmp_path / "mixed.db"
    with Journal.open(path) as journal:
        journal.bind(BASE, Sitting("s", BASE.base_hash, "0", "{}"))
        for i in range(45):
            purpose = "judge" if i % 10 == 0 else "imported"
            journal.write(SampleSet(f"x{i}", "s", Prompt.of(f"prompt {i}"), 2, purpose))
            for slot in (0, 1):
                journal.write(Response.written_elsewhere(f"x{i}/{slot}", f"x{i}", slot, f"text {slot}", "hh"))
            journal.append(Ranking(f"x{i}", {f"x{i}/0": 1, f"x{i}/1": 2})).result()
        journal.append(Critique("x1", "x1/0", "shorter")).result()
    return path


OWN = [1, 11, 21, 31, 41, 46]
"""Of `mixed`, the critique too: words have no answers to be looked at."""


def test_nothing_imported_is_told_before_the_first_answer(mixed: Path) -> None:
    with Record(mixed) as record:
        told = ToldLessons(record)
        first, rest = list(told.begin(whole=False)), list(told.rest())
        assert seqs(first) == OWN
        assert [(line.sample, line.last, line.of) for line in first if isinstance(line, Replay)] == [(True, True, 46)]
        sample = [line for line in rest if isinstance(line, Replay) and line.sample]
        assert len(seqs(sample)) == 10 and sample == rest[: len(sample)] and [line.last for line in sample] == [False, True]
        assert sorted(seqs(first) + seqs(rest)) == list(range(1, 47))
        assert seqs(list(ToldLessons(record).begin(whole=True))) == list(range(1, 47)), "a metered run waits for all"


def test_an_engine_that_went_on_is_told_what_was_imported_since_while_nobody_waits(mixed: Path) -> None:
    with Record(mixed) as record:
        told = ToldLessons(record)
        first, rest = list(told.go_on([(1, 20), (60, 61)])), list(told.rest())
        assert [command.seq for command in first if isinstance(command, Retract)] == [60, 61]
        assert seqs(first) == [21, 31, 41, 46] and sorted(seqs(first) + seqs(rest)) == list(range(21, 47))


def test_the_engine_hears_whether_the_version_that_acts_learned_from_what_was_undone(mixed: Path) -> None:
    with Journal.open(mixed) as journal, Record(mixed) as record:
        journal.bind(BASE, Sitting("t", BASE.base_hash, "0", "{}"))
        journal.write(Run("r", "distill", (2,), 0, 1, 1.0, "{}"))
        journal.write(Version("v1", "a" * 64, "base", "distill", True, "better", "published", ("r",), 0, 1.0, 0.6, 1))
        journal.write(Activation("v1", "published")).result()

        def stale() -> set[bool]:
            return {line.stale for line in ToldLessons(record).begin(whole=False) if isinstance(line, Replay)}

        assert stale() == {False}
        journal.append(Undo(2)).result()
        assert stale() == {True}


async def test_a_sitting_asks_for_its_first_answers_before_it_tells_what_was_imported(mixed: Path) -> None:
    engine = FakeEngine()
    session = Session(SessionSettings("toy", (Prompt.of("Hello"),)), lambda: engine, mixed)
    await session.start()
    await session.wait_ready()
    async with asyncio.timeout(30):
        while len(engine.lessons) < 46:
            await session.settle()
            await asyncio.sleep(0)
    asked = next(i for i, command in enumerate(engine.received) if isinstance(command, Generate))
    assert seqs(engine.received[:asked]) == OWN
    await session.close()


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
