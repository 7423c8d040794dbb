"""What screens and learners read back."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from storage.counts import Counts, Refusals
from storage.lessons import Taught
from storage.records import (
    BASE_VERSION,
    Activation,
    Correction,
    Demonstration,
    Judgement,
    Logged,
    Message,
    Peek,
    Prompt,
    Ranking,
    Rating,
    Redo,
    Run,
    SampleSet,
    Skip,
    Undo,
)

from .conftest import SITTING, Desk, a_version, answer


def test_a_set_comes_back_as_it_was_written(desk: Desk) -> None:
    turns = (Message("system", ""), Message("user", "é\r\n"), Message("assistant", "[b]"), Message("user", "\0"))
    written = SampleSet("s1", SITTING.uid, Prompt(turns, "continued"), 2, "judge", "x", "y")
    desk.journal.write(written).result()
    assert desk.record.sample_set("s1") == written
    with pytest.raises(KeyError):
        desk.record.sample_set("s2")


def test_the_same_conversation_is_one_prompt_wherever_it_came_from(desk: Desk) -> None:
    for uid, source in (("s1", "set"), ("s2", "typed")):
        desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of("hello", "be kind", source), 1)).result()
        desk.say(Skip(uid))
    assert desk.record.judged_prompts() == {Prompt.of("hello", "be kind").uid}
    assert [desk.record.sample_set(uid).prompt.source for uid in ("s1", "s2")] == ["set", "typed"]


def test_answers_come_back_to_the_last_bit_in_the_order_of_their_slots(desk: Desk) -> None:
    desk.journal.write(SampleSet("s1", SITTING.uid, Prompt.of("hello"), 3))
    written = [
        answer("s1", 0, "base"),
        answer("s1", 1, "adapter", version="v7", stop="stopped", token_ids=(), logprobs=(), unbiased_logprobs=(), times=()),
        answer("s1", 2, logprobs=(), unbiased_logprobs=(), times=(0.0, 0.1, 1e300), prompt_ids=(), text=""),
    ]
    for response in reversed(written):
        desk.journal.write(response).result()
    assert desk.record.responses("s1") == written
    assert desk.record.responses("s2") == []


def test_tokens_can_be_read_by_any_tool(desk: Desk) -> None:
    desk.show("s1", k=1)
    with closing(sqlite3.connect(desk.path)) as other:
        rows = other.execute("SELECT token_id, logprob, unbiased_logprob, seconds FROM tokens ORDER BY position").fetchall()
    assert rows[1] == (8, -2.5, -2.25, 0.2)


def test_a_lesson_carries_the_answers_that_its_judgement_speaks_of(desk: Desk) -> None:
    desk.show("s1", k=3)
    desk.show("s2", k=1)
    desk.show("s3", k=2)
    taught: list[Judgement] = [
        Ranking("s1", {"s1c": 1}),
        Rating("s1", "s1b", 4),
        Correction("s3", "s3a", "text"),
        Demonstration("s2", "text"),
    ]
    for judgement in (Skip("s3"), Peek("s3"), *taught):
        desk.say(judgement)
    lessons = desk.record.lessons()
    assert [lesson.logged.judgement for lesson in lessons] == taught
    assert [lesson.logged.seq for lesson in lessons] == [3, 4, 5, 6]
    s1, s2, s3 = (desk.record.responses(uid) for uid in ("s1", "s2", "s3"))
    assert len(s2) == 1
    assert [list(lesson.responses) for lesson in lessons] == [s1, [s1[1]], [s3[0]], []]
    assert [lesson.sample_set for lesson in lessons] == [desk.record.sample_set(uid) for uid in ("s1", "s1", "s3", "s2")]


def test_only_what_is_live_is_taught(desk: Desk) -> None:
    desk.show("s1")
    desk.say(Rating("s1", "s1a", 1))
    desk.say(Rating("s1", "s1a", 2))
    desk.say(Skip("s1"))
    assert [lesson.logged.seq for lesson in desk.record.lessons()] == [2]
    desk.say(Undo(2))
    first = desk.record.lesson(1)
    assert isinstance(first, Taught)
    assert isinstance(first.logged, Logged)
    assert first.responses == (desk.record.responses("s1")[0],)
    for seq in (2, 3, 4, 99):
        with pytest.raises(KeyError):
            desk.record.lesson(seq)
    desk.say(Redo(2))
    assert desk.record.lesson(2).logged.judgement == Rating("s1", "s1a", 2)


def test_a_prompt_is_judged_while_a_judgement_or_a_skip_of_it_stands(desk: Desk) -> None:
    desk.show("s1")
    desk.show("s2")
    desk.say(Peek("s1"))
    assert desk.record.judged_prompts() == set()
    desk.say(Rating("s1", "s1a", 3))
    desk.say(Skip("s2"))
    uids = {name: desk.record.sample_set(name).prompt.uid for name in ("s1", "s2")}
    assert desk.record.judged_prompts() == set(uids.values())
    desk.say(Undo(3))
    assert desk.record.judged_prompts() == {uids["s1"]}


def test_runs_and_versions_come_back_as_they_were_written(desk: Desk) -> None:
    desk.show("s1")
    for _ in range(3):
        desk.say(Skip("s1"))
    runs = [Run("r1", "sft", (1, 3), 7, 10, 1.25, '{"rank": 8}'), Run("r2", "ppo", (), 8, 0, 0.0, "{}")]
    for run in runs:
        desk.journal.write(run)
    written = [a_version("v1", runs=("r2", "r1")), a_version("v2", parent="v1", published=False)]
    for version in written:
        desk.journal.write(version).result()
    assert desk.record.runs() == runs
    newest, oldest = desk.record.versions()
    assert newest.utc.endswith("Z")
    for version, read in zip(written, (oldest, newest), strict=True):
        assert all(getattr(read, name) == getattr(version, name) for name in version.__struct_fields__ if name != "utc")
    assert oldest.published is True
    assert newest.published is False


def test_the_last_activation_says_which_version_acts(desk: Desk) -> None:
    assert desk.record.acting_version() is None
    for uid, parent in (("v1", BASE_VERSION), ("v2", "v1")):
        desk.journal.write(a_version(uid, parent))
    assert desk.record.acting_version() is None
    for activation in (Activation("v1", "published"), Activation("v2", "published"), Activation("v1", "rollback")):
        desk.journal.write(activation).result()
    acting = desk.record.acting_version()
    assert acting is not None
    assert acting.id == "v1"
    assert [(version.id, version.acting) for version in desk.record.versions()] == [("v2", False), ("v1", True)]
    desk.journal.write(Activation(BASE_VERSION, "rollback")).result()
    assert desk.record.acting_version() is None


def test_a_version_is_stale_while_something_it_or_an_ancestor_learned_from_is_undone(desk: Desk) -> None:
    desk.show("s1")
    for _ in range(4):
        desk.say(Skip("s1"))
    desk.train("v1", "base", 1, 2)
    desk.train("v2", "v1", 3)
    desk.train("v3", "v2")
    desk.train("v4", "base", 3)

    def stale() -> list[str]:
        return [version.id for version in reversed(desk.record.versions()) if version.stale]

    assert stale() == []
    desk.say(Undo(4))
    assert stale() == []
    desk.say(Undo(2))
    assert stale() == ["v1", "v2", "v3"]
    desk.say(Undo(3))
    assert stale() == ["v1", "v2", "v3", "v4"]
    desk.say(Redo(2))
    assert stale() == ["v2", "v3", "v4"]
    desk.say(Redo(3))
    assert stale() == []


def test_pairs_are_what_beat_what_with_ranked_over_unranked_and_no_pair_for_a_tie(desk: Desk) -> None:
    desk.show("s1")
    desk.say(Ranking("s1", {"s1a": 2, "s1b": 1, "s1c": 2}))
    pairs = {("s1b", "s1a"), ("s1b", "s1c"), ("s1b", "s1d"), ("s1a", "s1d"), ("s1c", "s1d")}

    def stored() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(desk.path)) as other:
            return other.execute("SELECT chosen, rejected FROM v_pairs WHERE set_uid = 's1'").fetchall()

    assert sorted(stored()) == sorted(pairs)
    desk.say(Undo(1))
    assert stored() == []


def test_counts_are_of_what_is_live(desk: Desk) -> None:
    desk.show("s1", k=2)
    desk.show("s2", k=1, blind=False, purpose="compare")
    said: list[Judgement] = [
        *(Ranking("s1", {"s1a": 1}), Rating("s1", "s1a", 1), Rating("s1", "s1a", 2), Rating("s1", "s1b", 2)),
        *(Correction("s1", "s1a", "x"), Demonstration("s1", "x"), Skip("s1"), Peek("s1"), Skip("s2"), Undo(9)),
    ]
    for judgement in said:
        desk.say(judgement)
    desk.train("v1", "base", 1)
    desk.journal.write(a_version("v2", published=False))
    desk.journal.write(a_version("v3", published=False)).result()
    counts = desk.record.counts()
    assert counts == Counts(
        rankings=1,
        ratings=2,
        corrections=1,
        demonstrations=1,
        taps=0,
        critiques=0,
        skips=1,
        peeks=1,
        undone=1,
        sittings=1,
        sets=1,
        responses=3,
        tokens=9,
        runs=1,
        published=1,
        refused=(Refusals("worse", 2),),
    )
    assert (counts.judged, counts.versions) == (5, 3)


def test_an_empty_database_answers_every_question(desk: Desk) -> None:
    record = desk.record
    assert (record.live(), record.lessons(), record.versions(), record.runs(), record.log()) == ([], [], [], [], [])
    assert (record.last_undoable(), record.last_redoable(), record.acting_version()) == (None, None, None)
    assert record.judged_prompts() == set()
    assert record.counts().judged == record.counts().versions == 0
    assert record.blind_count().rate is None
