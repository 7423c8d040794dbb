"""verify, backup and log, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from learners.versions.blobs import write_directory
from storage.journal import Journal
from storage.records import BaseModel, Comment, Prompt, Ranking, Response, SampleSet, Sampling, Sitting, Version
from tamer_tui.cli import main


def tamer(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """One ranking, and one version with its files."""
    path = tmp_path / "a.db"
    folder = write_directory({"adapter.safetensors": b"weights"}, tmp_path / "a.db.versions")
    with Journal.open(path) as journal:
        journal.bind(BaseModel("b" * 64, "toy", "none"), Sitting("i1", "b" * 64, "0", "{}"))
        journal.write(SampleSet("s1", "i1", Prompt.of("Say \x1b[31mhello"), 2))
        for slot, text in enumerate(("hello", "go away")):
            journal.write(Response(f"r{slot}", "s1", slot, "base", "base", 0, 0.0, 1, Sampling(), (), (), text, (), (), (), "eos", 0.0))
        journal.append(Ranking("s1", {"r0": 1, "r1": 2})).result()
        journal.append(Comment("s1", None, "=cmd()")).result()
        journal.write(Version("v1", folder.name, "base", "distill", True, "better", "published", (), 0)).result()
    return path


def test_verify_says_that_all_is_well(database: Path) -> None:
    found = tamer("verify", database)
    assert (found.exit_code, found.output) == (0, f"{database}: 2 events and 1 version, all as they were written\n")
    assert json.loads(tamer("verify", database, "--json").output) == {"database": str(database), "events": 2, "versions": 1, "problems": []}


def test_verify_says_what_is_wrong_with_a_version_and_fails(database: Path) -> None:
    (weights,) = database.parent.rglob("adapter.safetensors")
    weights.write_bytes(b"other weights")
    found = tamer("verify", database)
    assert found.exit_code == 1 and "v1: the files in " in found.output and "are damaged" in found.output
    weights.unlink()
    weights.parent.rmdir()
    assert "v1: its files cannot be read" in json.loads(tamer("verify", database, "--json").output)["problems"][0]


def test_backup_copies_the_database_with_its_versions(database: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.db"
    found = tamer("backup", database, copy)
    assert (found.exit_code, "1 version beside it" in found.output) == (0, True)
    assert tamer("verify", copy).exit_code == 0
    again = tamer("backup", database, copy)
    assert again.exit_code == 1 and again.output == f"Error: {copy} is there already: give another name, or remove it\n"


def test_backup_keeps_what_it_can_and_says_what_it_could_not(database: Path, tmp_path: Path) -> None:
    (weights,) = database.parent.rglob("adapter.safetensors")
    weights.write_bytes(b"other weights")
    found = tamer("backup", database, tmp_path / "copy.db")
    assert found.exit_code == 0 and "0 versions beside it\nv1 was left out: " in found.output


def test_log_shows_a_line_for_each_event_with_nothing_that_a_terminal_obeys(database: Path) -> None:
    found = tamer("log", database)
    first, second = found.output.splitlines()
    assert "\x1b" not in found.output
    assert first.split()[3:] == ["ranking", "a", ">", "b", "«Say", "[31mhello»"]
    assert second.split()[3:5] == ["comment", "=cmd()"]


def test_log_as_json_is_narrowed_by_kind_number_time_and_words(database: Path) -> None:
    (line,) = tamer("log", database, "--json", "--kind", "ranking").output.splitlines()
    said = json.loads(line)["judgement"]
    assert (said["type"], said["set_uid"], said["ranks"]) == ("ranking", "s1", {"r0": 1, "r1": 2})
    assert len(tamer("log", database, "--since", "2").output.splitlines()) == 1
    assert tamer("log", database, "--since", "2999-01-01T10:00").output == ""
    assert len(tamer("log", database, "--since", "2001-01-01").output.splitlines()) == 2
    assert len(tamer("log", database, "--search", "away").output.splitlines()) == 2
    assert tamer("log", database, "--search", "nowhere").output == ""


@pytest.mark.parametrize("words", [("verify",), ("log",), ("backup", "copy.db"), ("stats",)])
@pytest.mark.parametrize("content", [None, b"no database at all, whatever it is", b"SQLite format 3\0" + b"x" * 5000])
def test_what_is_no_database_is_one_line(tmp_path: Path, words: tuple[str, ...], content: bytes | None) -> None:
    path = tmp_path / "some.db"
    if content is not None:
        path.write_bytes(content)
    command, *rest = words
    found = tamer(command, path, *(tmp_path / word for word in rest))
    assert found.exit_code == 1 and found.output.startswith("Error: ") and found.output.count("\n") == 1
    assert not (tmp_path / "copy.db").exists()


def test_a_time_that_is_none_is_one_line(database: Path) -> None:
    found = tamer("log", database, "--since", "yesterday")
    assert found.exit_code == 2 and "'yesterday' is neither a number of the log nor a time" in found.output
