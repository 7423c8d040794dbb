"""The writer: what a future promises, and what one record's failure costs the others."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path

import pytest

from storage.journal import Journal, JournalError
from storage.queries import Record
from storage.records import Activation, Prompt, Rating, Run, SampleSet, Skip
from storage.verification import problems

from .conftest import SITTING, Desk, a_version, answer


@pytest.fixture
def shown(desk: Desk) -> Desk:
    desk.show("s1")
    return desk


def held(desk: Desk) -> threading.Event:
    """Keeps the writer busy until the event is set, so that what follows shares one transaction."""
    begun, gate = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        begun.set()
        gate.wait()

    desk.journal._submit(hold)
    begun.wait()
    return gate


def limit_pages(desk: Desk, spare: int) -> None:
    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + spare}")

    desk.journal._submit(limit).result()


def test_what_a_future_has_acknowledged_another_connection_sees(shown: Desk) -> None:
    seen: list[int] = []
    for seq in range(1, 21):
        future = shown.journal.append(Skip("s1"))
        future.add_done_callback(lambda done: seen.append(count_events(shown.path)))
        assert future.result() == seq
    shown.journal.flush()
    assert seen == list(range(1, 21))


def count_events(path: Path) -> int:
    with Record(path) as record:
        return len(record.log())


def test_records_that_wait_together_share_a_transaction_and_fail_alone(shown: Desk) -> None:
    gate = held(shown)
    futures = [shown.journal.append(Rating("s1", "s1a", value)) for value in (1, 9, 2, 0, 3)]
    gate.set()
    wait(futures)
    assert [future.exception() is None for future in futures] == [True, False, True, False, True]
    assert [future.result() for future in futures[::2]] == [1, 2, 3]


def test_the_writer_goes_on_after_an_error_that_nobody_foresaw(shown: Desk) -> None:
    class Unforeseen(Exception):
        pass

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO operators VALUES ('half', 'person', '')")
        raise Unforeseen

    error = shown.journal._submit(fail).exception()
    assert isinstance(error, JournalError)
    assert isinstance(error.__cause__, Unforeseen)
    shown.journal._submit(lambda connection: connection.execute("INSERT INTO operators VALUES ('half', 'person', '')")).result()


def test_a_record_may_refer_to_one_that_is_still_waiting(desk: Desk) -> None:
    gate = held(desk)
    desk.journal.write(SampleSet("s1", SITTING.uid, Prompt.of("hello"), 1))
    desk.journal.write(answer("s1", 0))
    rated = desk.journal.append(Rating("s1", "s1a", 7))
    gate.set()
    assert rated.result() == 1


def test_threads_may_share_the_journal(shown: Desk) -> None:
    with ThreadPoolExecutor(8) as pool:
        seqs = list(pool.map(lambda _: shown.say(Skip("s1")), range(80)))
    assert sorted(seqs) == list(range(1, 81))


def test_a_judgement_given_up_before_its_turn_is_not_written(shown: Desk) -> None:
    gate = held(shown)
    given_up = shown.journal.append(Skip("s1"))
    assert given_up.cancel()
    gate.set()
    assert shown.say(Rating("s1", "s1a", 7)) == 1


def test_a_full_disk_fails_one_write_and_loses_nothing_else(shown: Desk) -> None:
    limit_pages(shown, spare=20)
    gate = held(shown)
    before = shown.journal.append(Rating("s1", "s1a", 1))
    too_big: Future[None] = shown.journal.write(answer("s1", 4, text="x" * 400_000))
    after = shown.journal.append(Rating("s1", "s1a", 2))
    gate.set()
    error = too_big.exception()
    assert isinstance(error, JournalError)
    assert (error.message, error.hint) == (
        f"the disk of {shown.path} is full",
        "free some space; nothing written before is lost",
    )
    assert (before.result(), after.result()) == (1, 2)
    assert len(shown.record.responses("s1")) == 4

    limit_pages(shown, spare=1000)
    shown.journal.write(answer("s1", 4, text="x" * 400_000)).result()
    assert len(shown.record.responses("s1")[4].text) == 400_000
    assert shown.say(Rating("s1", "s1e", 3)) == 3


def test_a_disk_that_fills_up_under_small_judgements_refuses_them_until_there_is_room(shown: Desk) -> None:
    limit_pages(shown, spare=0)
    results = [shown.journal.append(Rating("s1", "s1a", 1 + n % 7)).exception() for n in range(200)]
    kept = results.count(None)
    assert kept < 200
    assert all(isinstance(error, JournalError) and "is full" in error.message for error in results[kept:])
    assert len(shown.record.log()) == kept
    assert list(problems(shown.path)) == []
    limit_pages(shown, spare=100)
    assert shown.say(Rating("s1", "s1a", 7)) == kept + 1
    assert list(problems(shown.path)) == []


def test_while_another_program_holds_the_lock_nothing_is_lost_nor_there_by_half(shown: Desk) -> None:
    shown.journal._submit(lambda connection: connection.execute("PRAGMA busy_timeout = 50")).result()
    assert shown.say(Rating("s1", "s1a", 1)) == 1
    with closing(sqlite3.connect(shown.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = [shown.journal.append(Rating("s1", "s1b", value)).exception() for value in (2, 3)]
        assert all(isinstance(error, JournalError) and "is locked by another program" in error.message for error in refused)
        other.execute("ROLLBACK")
    assert shown.say(Rating("s1", "s1b", 4)) == 2
    assert [logged.judgement for logged in shown.record.log()] == [Rating("s1", "s1a", 1), Rating("s1", "s1b", 4)]
    assert list(problems(shown.path)) == []


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (SampleSet("s1", SITTING.uid, Prompt.of("hello"), 4), "the record does not fit the database: sample_sets"),
        (SampleSet("s2", "nobody", Prompt.of("hello"), 4), "there is no sitting nobody"),
        (SampleSet("s2", SITTING.uid, Prompt.of("hello"), 0), "the record does not fit the database: CHECK"),
        (
            SampleSet("s2", SITTING.uid, Prompt.of("hello"), 2, blind_base="x"),
            "the record does not fit the database: CHECK",
        ),
        (answer("s9", 0), "there is no set s9"),
        (answer("s1", 0), "the record does not fit the database: responses"),
        (answer("s1", 4, stop="bored"), "the record does not fit the database: CHECK"),
        (answer("s1", 4, seed=2**64), "the record does not fit the database"),
        (answer("s1", 4, times=(0.1,)), "answer s1e has 3 tokens but [3, 3, 1] measurements"),
        (answer("s1", 4, kl=float("nan")), "the record does not fit the database: CHECK"),
        (answer("s1", 4, text="\ud800"), "the text has characters that are not Unicode"),
        (Run("r", "sft", (1, 99), 0, 1, 0.1, "{}"), "there is no judgement 99"),
        (Run("r", "sft", (), 0, 1, 0.1, "not json"), "the settings are not JSON"),
        (a_version("v1", parent="v0"), "there is no version v0"),
        (a_version("v1", runs=("nothing",)), "there is no run nothing"),
        (Activation("v1", "rollback"), "there is no version v1"),
    ],
)
def test_a_record_that_does_not_fit_leaves_no_part_of_itself(shown: Desk, record: object, line: str) -> None:
    shown.say(Skip("s1"))
    before = contents(shown.path)
    error = shown.journal.write(record).exception()  # type: ignore[arg-type]
    assert isinstance(error, JournalError)
    assert error.message.startswith(line)
    assert contents(shown.path) == before


def contents(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def test_a_refused_version_has_a_number_and_cannot_act(desk: Desk) -> None:
    assert desk.journal.new_version_id() == desk.record.new_version_id() == "v1"
    desk.journal.write(a_version("v1", published=False)).result()
    error = desk.journal.write(Activation("v1", "rollback")).exception()
    assert str(error) == "nothing was kept of the refused version v1"
    assert desk.journal.new_version_id() == desk.record.new_version_id() == "v2"


def test_version_ids_are_counted_not_sorted_as_text(desk: Desk) -> None:
    for n in range(1, 12):
        desk.journal.write(a_version(f"v{n}"))
    assert desk.journal.new_version_id() == "v12"


def test_nothing_is_judged_outside_a_sitting(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "tamer.db") as journal:
        assert str(journal.append(Skip("s1")).exception()) == "no sitting has begun"


def test_a_rollback_needs_no_sitting(desk: Desk) -> None:
    desk.journal.write(a_version("v1")).result()
    desk.close()
    with Journal.open(desk.path) as journal:
        journal.write(Activation("v1", "rollback")).result()
        journal.write(Activation("base", "rollback")).result()


def test_closing_writes_what_is_waiting_and_refuses_what_comes_later(shown: Desk) -> None:
    gate = held(shown)
    waiting = [shown.journal.append(Skip("s1")) for _ in range(100)]
    closing = threading.Thread(target=shown.journal.close)
    closing.start()
    gate.set()
    closing.join()
    assert [future.result() for future in waiting] == list(range(1, 101))
    assert str(shown.journal.append(Skip("s1")).exception()) == "the journal is closed"
    shown.journal.close()
    assert len(shown.record.log()) == 100


def test_readers_see_each_commit_while_the_journal_is_open(shown: Desk) -> None:
    with Record(shown.path) as early:
        assert early.live() == []
        shown.say(Skip("s1"))
        assert len(early.live()) == len(shown.record.live()) == 1


def test_a_reader_cannot_write(shown: Desk) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        shown.record._connection.execute("INSERT INTO prompts (uid) VALUES ('x')")


def test_a_damaged_file_is_reported_by_readers_and_writer(shown: Desk) -> None:
    shown.close()
    content = bytearray(shown.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    shown.path.write_bytes(content)
    with pytest.raises(JournalError, match="is damaged"), Record(shown.path) as record:
        record.counts()
    with pytest.raises(JournalError, match="is damaged"):
        Journal.open(shown.path)
