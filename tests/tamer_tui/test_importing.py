"""`tamer import` as a person runs it: what it shows, when it asks, and what it leaves behind."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tamer_tui.cli import main


def tamer(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


PAIRS = [{"prompt": f"What is {i}?", "chosen": "A number.", "rejected": "No \x1b[31midea", "source": "x"} for i in range(5)]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
TOOLS = {"prompt": [{"role": "user", "content": "Look."}], "chosen": [CALL], "rejected": [{"role": "assistant", "content": "No."}]}


def test_it_shows_what_it_understood_and_takes_it_over_when_told_to(tmp_path: Path) -> None:
    database, file = tmp_path / "new.db", written(tmp_path / "pairs.jsonl", *PAIRS, "oops", TOOLS)
    for words in (("--dry-run",), ()):  # without a terminal nobody can be asked
        shown = tamer("import", database, file, *words)
        assert "nothing was imported" in shown.output and not database.exists()
    done = tamer("import", database, file, "--yes")
    assert done.output.splitlines() == [
        "pairs.jsonl: comparisons: chosen and rejected",
        "  1. user: What is 0?", "     better: A number.", "     worse: No [31midea",
        "  2. user: What is 1?", "     better: A number.", "     worse: No [31midea",
        "  3. user: What is 2?", "     better: A number.", "     worse: No [31midea",
        "6 comparisons in 6 rows",
        "1 has tool calls: shown and kept, not learned from",
        "kept beside them: source",
        "1 row left out: line 6: no JSON",
        "6 judgements added",
    ]  # fmt: skip
    assert tamer("import", database, file, "--yes").output.endswith("0 judgements added, 6 were there before\n")
    stats = tamer("stats", database).output
    assert "1 imported sets are shown and kept, and not learned from" in stats
    assert tamer("verify", database).exit_code == 0


def test_a_critique_is_shown_as_what_it_is_and_a_bad_one_alone_is_left_out(tmp_path: Path) -> None:
    row = {"prompt": "What is 0?", "response": "A number.", "critique": "say which"}
    file = written(tmp_path / "said.jsonl", row, row | {"critique": "be warm", "scope": "all", "strength": 2}, row | {"scope": "everyone"})
    assert tamer("import", tmp_path / "new.db", file, "--yes").output.splitlines() == [
        "said.jsonl: what should be otherwise, in words",
        "  1. user: What is 0?", "     answer: A number.", "     critique of the answer: say which",
        "  2. user: What is 0?", "     answer: A number.", "     critique for every prompt (strength +2): be warm",
        "2 critiques in 3 rows",
        "1 row left out: line 3: the scope is neither prompt nor all",
        "2 judgements added",
    ]  # fmt: skip


def test_what_it_does_not_know_is_told_with_the_map_to_try_and_leaves_nothing(tmp_path: Path) -> None:
    database, file = tmp_path / "new.db", written(tmp_path / "votes.csv", "Question,Better one,Worse one,who", "Why?,Because.,No.,jo")
    found = tamer("import", database, file, "--yes")
    assert found.exit_code == 1 and not list(tmp_path.glob("new.db*"))
    assert found.output == (
        "Error: votes.csv has rows of a shape that is not known, with Question (text), Better one (text), Worse one (text), who (text):"
        " try --map 'prompt=Question' 'chosen=Better one' 'rejected=Worse one'\n"
    )
    done = tamer("import", database, file, "--yes", "--map", "prompt=Question", "chosen=Better one", "rejected=Worse one", "--operator", "kim")
    assert "better: Because." in done.output and done.output.endswith("1 judgement added\n")
    assert tamer("import", database, file, "--yes", "--map", "wizard=x").output.startswith("Error: --map does not understand wizard=x")


@pytest.mark.parametrize("words", [("--skip-bad",), ("--format", "hh", "--skip-bad"), ("--yes",)])
def test_a_file_of_nothing_leaves_no_database(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = tamer("import", tmp_path / "new.db", written(tmp_path / "x.jsonl", "no", "rows"), *words)
    assert found.exit_code == 1 and found.output.count("\n") == 1 and "Traceback" not in found.output
    assert not list(tmp_path.glob("new.db*"))


def test_two_people_in_one_database_are_told_apart(tmp_path: Path) -> None:
    kim, lee = tmp_path / "kim.db", tmp_path / "lee.db"
    ours = [{"prompt": f"What is {i}?", "response_a": "A number.", "response_b": "No idea", "winner": "a"} for i in range(4)]
    theirs = [row | {"winner": "ab"[i % 2]} for i, row in enumerate(ours)]
    assert tamer("import", kim, written(tmp_path / "a.jsonl", *ours), "--yes", "--operator", "kim").exit_code == 0
    assert tamer("import", lee, written(tmp_path / "b.jsonl", *theirs), "--yes", "--operator", "lee").exit_code == 0
    assert tamer("import", kim, lee, "--dry-run").output == "4 judgements would be added (4 of lee)\n"
    assert tamer("import", kim, lee).output == "4 judgements added (4 of lee)\n"
    assert tamer("import", kim, lee).output == "0 judgements added, 4 were there before\n"
    lines = tamer("stats", kim).output.splitlines()
    assert "lee: 4 rankings; ranked what stood first first in 50%; preferred the longer answer in 50%" in lines
    assert any(line.startswith("kim and lee compared 4 alike in 50%, kappa ") for line in lines)
    told = json.loads(tamer("stats", kim, "--json").output)["people"]
    assert [each["name"] for each in told["operators"]] == ["kim", "lee"] and told["between"][0]["comparisons"] == 4


def test_a_dry_run_of_anything_into_anything_changes_nothing(tmp_path: Path) -> None:
    rows, database, copy, export = written(tmp_path / "pairs.jsonl", *PAIRS), *(tmp_path / name for name in ("mine.db", "copy.db", "export.jsonl"))
    (tmp_path / "folder").mkdir()
    written(tmp_path / "folder" / "pairs.jsonl", *PAIRS[:3])
    other, new = tmp_path / "other.db", tmp_path / "new" / "new.db"
    one = written(tmp_path / "x.jsonl", {"prompt": "?", "chosen": "a", "rejected": "b"})
    for words in (
        ("import", database, rows, "--yes"), ("import", other, one, "--yes"), ("backup", database, copy),
        ("export", database, "--format", "tamer", "--out", export),
    ):  # fmt: skip
        assert tamer(*words).exit_code == 0

    def files() -> dict[Path, bytes]:
        return {each: content for each in tmp_path.rglob("*") if each.is_file() and not each.name.endswith("-shm") and (content := each.read_bytes())}

    before = files()
    sources = [(rows, ""), (rows, "trl-preference"), (export, ""), (export, "tamer"), (copy, ""), (tmp_path / "folder", "preference")]
    for (source, format), target in product(sources, (new, database, other)):
        found = tamer("import", target, source, "--dry-run", "--skip-bad", *(["--format", format] if format else []))
        if source == export and target == other:
            assert found.exit_code == 1 and "two histories" in found.output
        else:
            words = f"{0 if target == database else 5} judgements would be added" if source in (export, copy) else "nothing was imported"
            assert found.exit_code == 0 and words in found.output
        assert files() == before and not new.parent.exists()


@pytest.mark.parametrize("name", ["a:b", "", "import me", "\x1b[31m"])
def test_a_name_is_one_of_a_person(tmp_path: Path, name: str) -> None:
    for words in (("import", tmp_path / "new.db", written(tmp_path / "x.jsonl", *PAIRS), "--operator", name), ("run", "--name", name)):
        found = tamer(*words)
        assert found.exit_code == 2 and "no name of a person" in found.output and not (tmp_path / "new.db").exists()
