"""Makes the fixture of the present version: `python -m tests.storage.dump > tests/storage/fixtures/vN.sql`, before a migration is added.

Older fixtures were made by the code of their time and are never made again.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from storage import schema
from storage.journal import Journal
from storage.records import Activation, Correction, Demonstration, Judgement, Peek, Prompt, Ranking, Rating, Redo, SampleSet, Shown, Skip, Undo

from .conftest import SITTING, WATCHING, Desk, a_version, answer

SAID: tuple[Judgement, ...] = (
    Ranking("s1", {"s1b": 1, "s1c": 2, "s1d": 2}, 4.5, "bc=d"),
    Rating("s1", "s1a", 3),
    Rating("s1", "s1a", 5),
    Rating("s1", "s1b", 6, "truthful"),
    Correction("s1", "s1c", "rewritten, with 'quotes' and a ü"),
    Demonstration("s2", "the ideal answer\nin two lines"),
    Peek("s2"),
    Ranking("s2", {"s2a": 1, "s2b": 2}),
    Undo(8),
    Skip("s3"),
    Undo(10),
    Redo(10),
)


def lived_in(path: Path) -> None:
    """A database with a row in every table, judgements of every kind, and a version that learned from what is undone since."""
    Journal.open(path).close()
    desk = Desk(path.with_name("lived-in.db"), path)
    for uid, k in (("s1", 4), ("s2", 2), ("s3", 2)):
        blind = (f"{uid}a", f"{uid}b") if uid != "s3" else (None, None)
        desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(f"prompt of {uid}"), k, "judge", *blind))
        for slot in range(k):  # no control characters: a dump would lose them
            text = "[/b] = ü; said it's" if slot else "[/b] = [31m"
            desk.journal.write(answer(uid, slot, "acting" if slot else "base", text=text, seed=2**40)).result()
    for judgement in (*SAID, *WATCHING):
        desk.say(judgement)
    desk.journal.write(Shown("s1", "s1a", 0, (7, 8), ("On", "ce"), (1.0, 1.125), (2, 2), (0.25, 0.25)))
    desk.train("v1", "base", 1, 3)
    desk.train("v2", "v1", 8)
    desk.journal.write(a_version("v3", "v2", published=False))
    desk.journal.write(Activation("v1", "published")).result()
    desk.close()
    desk.path.replace(path)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tamer.db"
        lived_in(path)
        with closing(sqlite3.connect(path)) as connection:
            (search,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'search'").fetchone()
            connection.execute("DROP TABLE search")  # a dump of it is none that can be read again
            lines = [*connection.iterdump(), f"{search};", "INSERT INTO search(search) VALUES ('rebuild');"]
    lines += [f"PRAGMA application_id = {schema.APPLICATION_ID};", f"PRAGMA user_version = {schema.VERSION};"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
