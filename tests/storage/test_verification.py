"""What verification notices: a database is lived in, then somebody changes it behind the program's back."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.journal import Journal, JournalError
from storage.records import Comment, Correction, Demonstration, Flag, Pace, Prompt, SampleSet, Tap, new_uid
from storage.verification import MOST_OF_A_KIND, problems

from .conftest import SITTING, Desk
from .dump import lived_in


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lived") / "tamer.db"
    lived_in(path)
    return path


def tampered(lived: Path, tmp_path: Path, *statements: str) -> list[str]:
    """Problems after another program got around the triggers and put them back."""
    path = Path(shutil.copy(lived, tmp_path / "tampered.db"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)
    return list(problems(path))


def test_a_database_that_was_lived_in_has_no_problems(lived: Path) -> None:
    assert list(problems(lived)) == []


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("UPDATE events SET payload = replace(payload, 'rewritten', 'forged') WHERE seq = 5", "the hash chain breaks at event 5"),
        ("UPDATE events SET utc = '2020-01-01T00:00:00.000Z' WHERE seq = 3", "the hash chain breaks at event 3"),
        ("UPDATE events SET kind = 'skip' WHERE seq = 2", "the hash chain breaks at event 2"),
        ("DELETE FROM chain WHERE seq = 4", "event 4 has no link in the hash chain"),
        ("UPDATE chain SET sha256 = upper(sha256) WHERE seq = 7", "the hash chain breaks at event 7"),
        ("UPDATE ranking_items SET rank = 1 WHERE seq = 1", "event 1 (ranking) and its rows in ranking_items disagree"),
        ("DELETE FROM ranking_items WHERE seq = 1 AND rank = 1", "event 1 (ranking) and its rows in ranking_items disagree"),
        ("UPDATE ratings SET value = 1 WHERE seq = 2", "event 2 (rating) and its row in ratings disagree"),
        ("DELETE FROM ratings WHERE seq = 3", "event 3 (rating) has no row in ratings"),
        ("INSERT INTO ratings VALUES (5, 1, 'overall', 4)", "ratings has a row for event 5, which is no rating"),
        ("UPDATE corrections SET node_id = 1", "event 5 (correction) and its row in corrections disagree"),
        ("UPDATE demonstrations SET node_id = 1", "event 6 (demonstration) and its row in demonstrations disagree"),
        ("UPDATE taps SET value = -value", "(tap) and its row in taps disagree"),
        ("UPDATE taps SET seconds = seconds + 0.001", "(tap) and its row in taps disagree"),
        ("DELETE FROM arms", "(arm) has no row in arms"),
        ("UPDATE paces SET tokens_per_second = 60", "(pace) and its row in paces disagree"),
        ("UPDATE spans SET value = NULL", "(span) and its row in spans disagree"),
        ("UPDATE comments SET text = 'else'", "(comment) and its row in comments disagree"),
        ("UPDATE flags SET label = 'else'", "(flag) and its row in flags disagree"),
        ("UPDATE calibrations SET high = 3", "(calibration) and its row in calibrations disagree"),
        ("UPDATE presentations SET position = 9 - position", "(present) and its rows in presentations disagree"),
        ("UPDATE events SET target_seq = 7 WHERE seq = 9", "event 9 (undo) and its target disagree"),
        ("UPDATE nodes SET content = content || '!' WHERE id = 1", "message 1 is not what its hash says"),
        ("UPDATE prompts SET node_id = (SELECT max(id) FROM nodes) WHERE id = 1", "is not what its name says"),
        ("UPDATE events SET set_id = 2 WHERE seq = 3", "event 3 (rating) names another set than the one it is about"),
        ("UPDATE tallies SET n = n + 1 WHERE name = 'live ranking'", "what is counted along is wrong: tallies"),
        ("DELETE FROM judged_prompts", "what is counted along is wrong: judged_prompts"),
        ("UPDATE responses SET node_id = 999", "row 1 of responses refers to a row of nodes that is not there"),
        ("DELETE FROM search WHERE rowid = 1", "message 1 cannot be found by its words"),
        ("DROP VIEW v_live", "v_live is missing in the schema"),
        ("CREATE TABLE mine (x)", "mine does not belong to the schema"),
        ("DROP INDEX nodes_parent", "nodes_parent is missing in the schema"),
    ],
)  # fmt: skip
def test_it_says_what_was_changed(lived: Path, tmp_path: Path, statement: str, line: str) -> None:
    assert any(line in problem for problem in tampered(lived, tmp_path, statement)), tampered(lived, tmp_path, statement)


def test_a_trigger_that_is_gone_is_a_problem(lived: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(lived, tmp_path / "tampered.db"))
    with closing(sqlite3.connect(path)) as connection:
        (name,) = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events' LIMIT 1").fetchone()
        connection.execute(f"DROP TRIGGER {name}")
    assert list(problems(path)) == [f"{name} is missing in the schema"]


def test_an_event_that_is_taken_out_of_the_end_is_missed(lived: Path, tmp_path: Path) -> None:
    last = "(SELECT max(seq) FROM chain)"
    found = tampered(lived, tmp_path, f"DELETE FROM flags WHERE seq = {last}", f"DELETE FROM events WHERE seq = {last}")
    assert any("of chain refers to a row of events that is not there" in line for line in found)


def test_a_flood_of_problems_is_cut_short_and_counted(desk: Desk, tmp_path: Path) -> None:
    desk.show("s1", k=2)
    seqs = [desk.say(Tap("s1", "s1a", 1.0, "+", float(i))) for i in range(MOST_OF_A_KIND + 5)]
    desk.journal.flush()
    desk.close()
    found = tampered(desk.path, tmp_path, "UPDATE taps SET value = 2")
    assert len(found) == MOST_OF_A_KIND + 1 and len(seqs) == MOST_OF_A_KIND + 5
    assert found[-1] == "… and 5 more of this kind"


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_truncated_file_is_told_and_never_raises_anything_else(lived: Path, tmp_path: Path, keep: float) -> None:
    path = Path(shutil.copy(lived, tmp_path / "cut.db"))
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep))
    try:
        assert list(problems(path))
    except JournalError as error:
        assert "\n" not in error.message


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(text=texts, value=st.floats(-10, 10).filter(bool), seconds=st.floats(0, 1e9), pace=st.floats(1e-3, 1e3))
def test_whatever_is_said_verifies(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory, text: str, value: float, seconds: float, pace: float
) -> None:
    desk = Desk(tmp_path_factory.mktemp("said") / "tamer.db", empty_database)
    uid = new_uid()
    desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(text), 1)).result()
    desk.show("s1", k=1, blind=False)
    for judgement in (
        Demonstration(uid, text), Correction("s1", "s1a", text), Comment(uid, None, text), Flag("s1", "s1a", text),
        Tap(uid, "x", value, text, seconds), Pace(uid, pace, seconds),
    ):  # fmt: skip
        desk.say(judgement)
    desk.close()
    assert list(problems(desk.path)) == []


def test_it_reads_while_the_program_writes(lived: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(lived, tmp_path / "open.db"))
    with Journal.open(path):
        assert list(problems(path)) == []
