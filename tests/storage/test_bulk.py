"""Many sets at once are the rows that they would have been one by one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage import bulk
from storage.database import JournalError
from storage.exchange.lossless import TABLES
from storage.journal import Journal
from storage.queries import Record
from storage.records import (
    Comment,
    Correction,
    Critique,
    Demonstration,
    Import,
    ImportedItem,
    Judgement,
    KeptRow,
    Message,
    Prompt,
    Ranking,
    Rating,
    Response,
    SampleSet,
    Sitting,
    Skip,
    Span,
)
from storage.verification import problems

TALK = Prompt((Message("system", "Sys"), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why?")), "hh")
SHORT = Prompt(TALK.messages[:2], "hh")  # the same conversation up to there
SAID: list[tuple[Prompt, tuple[str, ...], tuple[Judgement, ...]]] = [
    (TALK, ("one", "two"), (Ranking("s0", {"s00": 1, "s01": 2}, strength=2), Comment("s0", None, "note"), Comment("s0", "s01", "why"))),
    (SHORT, ("Yes?", "No."), (Ranking("s1", {"s10": 1, "s11": 1}), Rating("s1", "s10", 2), Rating("s1", "s10", 6, "truthful"))),
    (TALK, ("two",), (Correction("s2", "s20", "one"), Span("s2", "s20", 0, 2, "step", -1.0))),
    (SHORT, (), (Demonstration("s3", "Yes?"),)),
    (Prompt.of("new", source="hh"), ("two", "two", "three"), (Ranking("s4", {"s41": 1}),)),
    (TALK, ("again",), (Rating("s5", "s50", 2), Rating("s5", "s50", 6), Rating("s5", "s50", 6, "useful"), Correction("s5", "s50", "1"),
                        Correction("s5", "s50", "2"), Demonstration("s5", "3"), Demonstration("s5", "4"), Critique("s5", "s50", "shorter"),
                        Critique("s5", "s50", "shorter", strength=2), Critique("s5", None, "shorter"),
                        Comment("s5", None, "a"), Comment("s5", None, "a"))),
]  # fmt: skip
MADE_ANEW = {"uid", "utc", "sha256"}
"""Of events and their chain, and times: never the same twice."""


def tables(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        found = {}
        for table in (*TABLES, "tallies", "judged_prompts"):
            kept = MADE_ANEW if table in ("events", "chain") else {"utc"}
            rows = [{name: value for name, value in dict(row).items() if name not in kept} for row in connection.execute(f"SELECT * FROM {table}")]
            found[table] = sorted((row for row in rows if row.get("n") != 0), key=repr)
        return found


@pytest.fixture
def begun(tmp_path: Path, empty_database: Path) -> Path:
    """A sitting, an import, and a first set that others share messages with."""
    path = Path(shutil.copy(empty_database, tmp_path / "begun.db"))
    with Journal.open(path) as journal:
        journal.bind(None, Sitting("i1", "", "0", "{}", operator="import hh"))
        journal.write(Import("f1", "a" * 64, "hh", "f", 1))
        journal.write(SampleSet("s", "i1", TALK, 1, "imported"))
        journal.write(Response.written_elsewhere("sa", "s", 0, "two", "hh"))
        journal.append(Rating("s", "sa", 3)).result()
        journal.append(Skip("s")).result()
    return path


def one_by_one(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.bind(None, Sitting("i1", "", "0", "{}", operator="import hh"))
        records: list[Any] = []
        for place, (prompt, texts, judgements) in enumerate(SAID):
            uid = f"s{place}"
            records.append(SampleSet(uid, "i1", prompt, max(1, len(texts)), "imported"))
            records += [Response.written_elsewhere(f"{uid}{slot}", uid, slot, text, "hh") for slot, text in enumerate(texts)]
            records += [*judgements, ImportedItem(f"{place}" * 64, "f1", uid)]
            records += [KeptRow(uid, '{"margin": 2}', place != 2)] if place in (1, 2) else []
        journal.together(records).result()


def at_once(path: Path) -> bulk.Written:
    with Journal.open(path) as journal:

        def work(connection: sqlite3.Connection) -> bulk.Written:
            (sitting,) = connection.execute("SELECT id FROM sittings").fetchone()
            sets = [
                bulk.JudgedSet(
                    (sitting, "i1"), f"s{place}", prompt, [(f"s{place}{slot}", text) for slot, text in enumerate(texts)], judgements, f"{place}" * 64,
                    '{"margin": 2}' if place in (1, 2) else None, place != 2,
                )
                for place, (prompt, texts, judgements) in enumerate(SAID)
            ]  # fmt: skip
            return bulk.write(connection, 1, [*sets, sets[0]])

        return journal.run(work).result()


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_the_rows_are_those_of_one_by_one(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(bulk, "BATCH", batch)
    slow, fast = (Path(shutil.copy(begun, tmp_path / name)) for name in ("slow.db", "fast.db"))
    one_by_one(slow)
    assert at_once(fast) == (len(SAID), sum(len(judgements) for *_, judgements in SAID))
    one, other = tables(slow), tables(fast)
    for table in one:
        assert other[table] == one[table], table
    assert list(problems(fast)) == list(problems(slow)) == []
    assert at_once(fast) == (0, 0)


def test_what_fails_in_the_middle_leaves_nothing_and_the_guards_stand(begun: Path) -> None:
    before = tables(begun)
    with Journal.open(begun) as journal:

        def work(connection: sqlite3.Connection) -> None:
            bulk.write(connection, 1, [bulk.JudgedSet((1, "i1"), "s", SHORT, [], [Demonstration("s", "x")], "e" * 64)])

        with pytest.raises(JournalError):  # there is a set of that name
            journal.run(work).result()
    assert tables(begun) == before
    with closing(sqlite3.connect(begun)) as other, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute("INSERT OR REPLACE INTO nodes SELECT * FROM nodes")
    assert list(problems(begun)) == []


def test_an_old_database_that_counted_two_scores_by_one_criterion_tells_the_right_number_before_and_after_it_is_mended(begun: Path) -> None:
    at_once(begun)
    with Record(begun) as record:
        right = record.counts()
    with closing(sqlite3.connect(begun)) as connection:  # as earlier versions left it
        connection.execute("DELETE FROM tallies WHERE name = 'counted anew'")
        connection.execute("UPDATE tallies SET n = n + 1 WHERE name IN ('live rating', 'live correction')")
        connection.commit()

    def kept() -> dict[str, int]:
        with closing(sqlite3.connect(begun)) as connection:
            return {name: n for name, n in connection.execute("SELECT name, n FROM tallies") if n}

    wrong = kept()
    with Record(begun) as record:
        assert record.counts() == right and wrong["live rating"] == right.ratings + 1
    assert list(problems(begun)) == []
    Journal.open(begun).close()
    assert kept() == wrong | {"live rating": right.ratings, "live correction": right.corrections}
    with Record(begun) as record:
        assert record.counts() == right
    with closing(sqlite3.connect(begun)) as connection:
        connection.execute("UPDATE tallies SET n = n + 1 WHERE name = 'live rating'")
        connection.commit()
    assert len(list(problems(begun))) == 2, "from then on a count that is wrong is told"
