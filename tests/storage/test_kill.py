"""`kill -9` at a random moment: everything acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from storage.journal import Journal
from storage.queries import Record
from storage.verification import problems

KILLS = 20


def killed_while_writing(database: Path, after: int) -> list[str]:
    """What a child acknowledged until it was killed, which is after so many lines or a few more."""
    command = [sys.executable, "-m", "tests.storage.writing_child", str(database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        child.kill()
        return [line.strip() for line in [*lines, *child.stdout]]


def test_every_acknowledged_judgement_and_answer_survives_being_killed(tmp_path: Path, empty_database: Path) -> None:
    database = Path(shutil.copy(empty_database, tmp_path / "tamer.db"))
    acknowledged: set[str] = set()
    for seed in range(KILLS):
        lines = killed_while_writing(database, after=random.Random(seed).randrange(1, 120))
        assert all(lines)
        assert acknowledged.isdisjoint(lines)
        acknowledged |= set(lines)
        assert acknowledged <= stored(database)
        assert list(problems(database)) == []
    with closing(sqlite3.connect(database)) as connection:
        whole = "SELECT count(*) FROM responses r WHERE (SELECT count(*) FROM tokens t WHERE t.response_id = r.id) <> 40"
        assert connection.execute(whole).fetchone() == (0,)
    Journal.open(database).close()


def stored(database: Path) -> set[str]:
    """The same lines, read from the file that the killed process left."""
    with Record(database) as record:
        seqs = {f"s {logged.seq}" for logged in record.log()}
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return seqs | {f"r {uid}" for (uid,) in connection.execute("SELECT uid FROM responses")}
