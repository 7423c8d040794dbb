"""Two databases over one base become one record: who judged what stays, and nothing comes in twice."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from storage.backup import back_up
from storage.database import JournalError
from storage.journal import Journal
from storage.merging import merge
from storage.queries import Record
from storage.records import (
    BaseModel,
    Comment,
    Correction,
    Critique,
    Demonstration,
    Judgement,
    Prompt,
    Ranking,
    Rating,
    SampleSet,
    Sitting,
    Skip,
    Undo,
)
from storage.verification import problems
from tests.storage.conftest import BASE, Desk, answer

from .exchange.conftest import ask


def operators(path: Path) -> dict[str, int]:
    """Live judgements by who made them."""
    with closing(sqlite3.connect(path)) as connection:
        sql = "SELECT i.operator, count(*) FROM v_live e JOIN sittings i ON i.id = e.sitting_id GROUP BY 1"
        return dict(connection.execute(sql).fetchall())


def payloads(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return sorted(payload for (payload,) in connection.execute("SELECT payload FROM v_live"))


@pytest.fixture
def theirs(tmp_path: Path, empty_database: Path) -> Iterator[Desk]:
    """Of another person: a ranking, a rating that was changed, a correction, a demonstration, a skip, and a ranking that was undone."""
    desk = Desk(tmp_path / "theirs.db", empty_database)
    desk.journal.bind(BASE, Sitting("i-theirs", BASE.base_hash, "0", "{}", operator="kim"))
    for uid in ("t1", "t2", "t3", "t4", "t5"):
        desk.journal.write(_set(uid)).result()
        for slot, text in enumerate((f"good {uid}", f"bad {uid}")):
            desk.journal.write(answer(uid, slot, text=text)).result()
    desk.say(Ranking("t1", {"t1a": 1, "t1b": 2}, 3.5, "ab"))
    desk.say(Rating("t2", "t2a", 2))
    desk.say(Rating("t2", "t2a", 6))
    desk.say(Correction("t3", "t3b", "better"))
    desk.say(Demonstration("t4", "ideal"))
    desk.say(Skip("t5"))
    desk.say(Undo(desk.say(Ranking("t5", {"t5a": 1, "t5b": 2}))))
    yield desk
    desk.close()


def _set(uid: str) -> SampleSet:
    return SampleSet(uid, "i-theirs", Prompt.of(f"prompt of {uid}"), 2, blind_base=f"{uid}a", blind_acting=f"{uid}b")


def test_what_is_live_comes_over_with_its_people_and_twice_adds_nothing(desk: Desk, theirs: Desk) -> None:
    ask(desk, "s1", "one", "two")
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    counted = desk.record.blind_count()
    done = merge(desk.journal, theirs.path, "0")
    assert (done.added, done.known, done.by) == (5, 0, {"kim": 5})
    assert operators(desk.path) == {"operator": 1, "kim": 5}
    assert set(payloads(theirs.path)) <= set(payloads(desk.path))
    lessons = {taught.logged.judgement.set_uid: taught for taught in desk.record.lessons()}  # type: ignore[union-attr]
    assert [answer.text for answer in lessons["t1"].responses] == ["good t1", "bad t1"]
    theirs_now = theirs.record.responses("t1")[0]
    ours = lessons["t1"].responses[0]
    assert (ours.token_ids, ours.logprobs, ours.seed, ours.origin, ours.version) == (
        theirs_now.token_ids, theirs_now.logprobs, theirs_now.seed, "theirs.db", f"theirs.db:{theirs_now.version}"
    )  # fmt: skip
    assert desk.record.blind_count() == counted  # their versions are not ours
    assert merge(desk.journal, theirs.path, "0")[:2] == (0, 5)
    assert list(problems(desk.path)) == []


def test_what_was_judged_once_more_there_is_no_second_lesson_here(desk: Desk, theirs: Desk) -> None:
    theirs.journal.write(SampleSet("t6", "i-theirs", Prompt.of("prompt of t1"), 2, "repeat")).result()
    for slot, text in enumerate(("bad t1", "good t1")):
        theirs.journal.write(answer("t6", slot, text=text)).result()
    theirs.say(Ranking("t6", {"t6a": 1, "t6b": 2}))
    merge(desk.journal, theirs.path, "0.1")
    rankings = [lesson.logged.judgement for lesson in desk.record.lessons() if isinstance(lesson.logged.judgement, Ranking)]
    assert [ranking.set_uid for ranking in rankings] == ["t1"]
    assert desk.record.agreement().comparisons == 1 and desk.record.agreement().agree == 0.0


def test_both_directions_end_with_the_same_judgements(desk: Desk, theirs: Desk) -> None:
    ask(desk, "s1", "one", "two")
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    merge(desk.journal, theirs.path, "0")
    assert merge(theirs.journal, desk.path, "0").added == 1
    assert merge(desk.journal, theirs.path, "0").added == 0
    assert payloads(desk.path) == payloads(theirs.path)
    assert operators(theirs.path) == {"kim": 5, "operator": 1}


def test_people_without_a_name_are_told_apart(desk: Desk, theirs: Desk) -> None:
    theirs.journal.bind(BASE, Sitting("i-more", BASE.base_hash, "0", "{}"))
    theirs.say(Rating("t3", "t3a", 5))
    assert merge(desk.journal, theirs.path, "0").by == {"kim": 5, "operator of theirs": 1}
    theirs.journal.bind(BASE, Sitting("i-most", BASE.base_hash, "0", "{}"))
    theirs.say(Rating("t4", "t4a", 5))
    assert merge(desk.journal, theirs.path, "0", operator="lee").by == {"lee": 1}


def test_what_was_said_anew_there_is_taken_over_and_what_was_undone_here_stays_undone(desk: Desk, theirs: Desk) -> None:
    merge(desk.journal, theirs.path, "0")
    ranking = next(logged.seq for logged in desk.record.live() if isinstance(logged.judgement, Ranking))
    correction = next(logged.seq for logged in desk.record.live() if isinstance(logged.judgement, Correction))
    desk.say(Undo(correction))
    first = next(logged.seq for logged in theirs.record.live() if isinstance(logged.judgement, Ranking))
    theirs.say(Undo(first))
    theirs.say(Ranking("t1", {"t1a": 2, "t1b": 1}))
    theirs.say(Rating("t2", "t2a", 7))
    assert merge(desk.journal, theirs.path, "0").added == 2
    live = {logged.seq: logged.judgement for logged in desk.record.live()}
    assert ranking not in live and correction not in live
    assert Ranking("t1", {"t1a": 2, "t1b": 1}) in live.values() and Rating("t2", "t2a", 7) in live.values()


SAID_IN_TURN: dict[str, Callable[[int], Judgement]] = {
    "rating": lambda n: Rating("t1", "t1a", 2 + n), "ranking": lambda n: Ranking("t1", {"t1a": 1 + n, "t1b": 2 - n}),
    "correction": lambda n: Correction("t1", "t1a", f"text {n}"), "demonstration": lambda n: Demonstration("t1", f"text {n}"),
    "wish": lambda n: Critique("t1", None, "be brief", "all", n),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID_IN_TURN)
@pytest.mark.parametrize("merged", [range(5), (0, 3, 4)], ids=str)
def test_what_was_changed_back_is_taken_over(desk: Desk, tmp_path: Path, empty_database: Path, kind: str, merged: Sequence[int]) -> None:
    """After some of the changes it is merged, twice; then what is live there is live here, and merging it back adds nothing."""
    theirs, say = Desk(tmp_path / "theirs.db", empty_database), SAID_IN_TURN[kind]
    theirs.journal.bind(BASE, Sitting("kim", BASE.base_hash, "0", "{}", operator="kim"))
    ask(theirs, "t1", "one", "two")
    last: int | None = None
    for place, n in enumerate((1, 0, 1, 0, 1)):
        if last is not None and kind == "ranking":
            theirs.say(Undo(last))
        last = theirs.say(say(n))
        if place in merged:
            merge(desk.journal, theirs.path, "0")
            assert merge(desk.journal, theirs.path, "0").added == 0
            assert [logged.judgement for logged in desk.record.live()] == [say(n)]
    assert merge(theirs.journal, desk.path, "0").added == 0
    theirs.close()
    desk.say(Undo(desk.record.last_seq()))
    assert merge(desk.journal, theirs.path, "0").added == 0, "what was undone here stays undone"
    assert list(problems(desk.path)) == []


def test_answers_that_two_people_judged_are_judged_twice(desk: Desk, tmp_path: Path) -> None:
    ask(desk, "s1", "one", "two")
    desk.journal.flush()
    copy = Path(shutil.copy(desk.path, tmp_path / "copy.db"))
    for suffix in ("-wal",):
        shutil.copy(f"{desk.path}{suffix}", f"{copy}{suffix}")
    with Journal.open(copy) as journal:
        journal.bind(BASE, Sitting("i-copy", BASE.base_hash, "0", "{}", operator="kim"))
        journal.append(Ranking("s1", {"s1a": 2, "s1b": 1})).result()
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    assert merge(desk.journal, copy, "0").added == 1
    assert merge(desk.journal, copy, "0").added == 0
    assert operators(desk.path) == {"operator": 1, "kim": 1}
    rankings = [taught for taught in desk.record.lessons() if isinstance(taught.logged.judgement, Ranking)]
    orders = [[taught.logged.judgement.ranks[answer.uid] for answer in taught.responses] for taught in rankings]
    assert orders == [[1, 2], [2, 1]] and [[a.text for a in t.responses] for t in rankings] == [["one", "two"]] * 2
    assert list(problems(desk.path)) == []


@pytest.mark.parametrize("kind", [*SAID_IN_TURN, "comment"])
def test_two_people_who_say_the_same_have_both_said_it(desk: Desk, tmp_path: Path, kind: str) -> None:
    said = Comment("t1", None, "note") if kind == "comment" else SAID_IN_TURN[kind](1)
    ask(desk, "t1", "one", "two")
    back_up(desk.path, tmp_path / "before.db")  # from before either of them judged
    theirs = Desk(tmp_path / "theirs.db", tmp_path / "before.db")
    theirs.journal.bind(BASE, Sitting("kim", BASE.base_hash, "0", "{}", operator="kim"))
    theirs.say(said)
    desk.say(said)
    assert merge(desk.journal, theirs.path, "0").added == 1
    assert merge(desk.journal, theirs.path, "0").added == 0
    assert operators(desk.path) == {"operator": 1, "kim": 1}
    assert list(problems(desk.path)) == []
    theirs.close()


def test_a_database_over_another_base_is_refused_and_changes_nothing(desk: Desk, tmp_path: Path, empty_database: Path) -> None:
    other = Path(shutil.copy(empty_database, tmp_path / "other.db"))
    with Journal.open(other) as journal:
        journal.bind(BaseModel("c" * 64, "elsewhere", "none"), Sitting("i9", "c" * 64, "0", "{}"))
    before = desk.record.counts()
    with pytest.raises(JournalError, match="belong to two models"):
        merge(desk.journal, other, "0")
    with pytest.raises(JournalError, match="cannot be merged with itself"):
        merge(desk.journal, desk.path, "0")
    assert desk.record.counts() == before


def test_a_dry_run_counts_and_writes_nothing(desk: Desk, theirs: Desk) -> None:
    before = desk.record.counts()
    assert merge(desk.journal, theirs.path, "0", dry_run=True).added == 5
    assert desk.record.counts() == before


def test_an_empty_database_takes_the_base_too(fresh_journal: Journal, theirs: Desk) -> None:
    assert merge(fresh_journal, theirs.path, "0").added == 5
    with Record(fresh_journal.path) as record:
        found = record.base()
        assert found is not None and found.base_hash == BASE.base_hash


@pytest.fixture
def fresh_journal(tmp_path: Path, empty_database: Path) -> Iterator[Journal]:
    with Journal.open(Path(shutil.copy(empty_database, tmp_path / "empty.db"))) as journal:
        yield journal
