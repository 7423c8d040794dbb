"""A program that replicates a live database as Litestream does: it keeps a read transaction open, makes checkpoints, and writes to tables of its own.

What it does is taken from its source (db.go): `_litestream_seq` and `_litestream_lock`, a read lock, PASSIVE and TRUNCATE checkpoints between two
writes of its own, copies of the file while the write-ahead log is empty.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from storage.journal import Journal
from storage.queries import Record
from storage.records import Prompt, Ranking, SampleSet
from storage.verification import problems
from tests.storage.conftest import BASE, SITTING, answer

JUDGEMENTS = 120
EVERY = 10


class Replicator:
    def __init__(self, database: Path, copy: Path) -> None:
        self._database, self._copy = database, copy
        self._connection = sqlite3.connect(database, isolation_level=None, timeout=5, check_same_thread=False)
        self._connection.execute("CREATE TABLE IF NOT EXISTS _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
        self._connection.execute("CREATE TABLE IF NOT EXISTS _litestream_lock (id INTEGER)")
        self._reader = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self._hold()
        self.checkpoints = 0

    def _hold(self) -> None:
        """So that nobody else begins the log anew under its eyes."""
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT count(*) FROM _litestream_seq").fetchone()

    def sync(self) -> None:
        """A checkpoint, as it makes one of a log that has grown, and a snapshot of what is then in the file."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._reader.execute("ROLLBACK")
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            self.checkpoints += 1
            self._connection.execute("BEGIN IMMEDIATE")  # nobody writes while the file is copied
            shutil.copy(self._database, self._copy)
            self._connection.execute("COMMIT")
        self._connection.execute("INSERT INTO _litestream_seq VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET seq = seq + 1")
        self._hold()

    def close(self) -> None:
        self._reader.close()
        self._connection.close()


def test_a_replicator_beside_a_live_database_breaks_neither_its_log_nor_its_chain(tmp_path: Path, empty_database: Path) -> None:
    database, copy = Path(shutil.copy(empty_database, tmp_path / "tamer.db")), tmp_path / "copy.db"
    due, done = threading.Semaphore(0), threading.Event()
    with Journal.open(database) as journal:
        journal.bind(BASE, SITTING)
        replicator = Replicator(database, copy)

        def replicate() -> None:
            while due.acquire() and not done.is_set():
                replicator.sync()

        thread = threading.Thread(target=replicate)
        thread.start()
        for n in range(1, JUDGEMENTS + 1):
            journal.write(SampleSet(f"x{n}", SITTING.uid, Prompt.of(f"prompt {n}"), 2))
            for slot in range(2):
                journal.write(answer(f"x{n}", slot))
            assert journal.append(Ranking(f"x{n}", {f"x{n}a": 1, f"x{n}b": 2})).result() == n
            if n % EVERY == 0:
                due.release()  # it works while the next ones are written
        done.set()
        due.release()
        thread.join()
        replicator.sync()
        replicator.close()
        assert replicator.checkpoints > 1
    assert list(problems(database)) == [] and list(problems(copy)) == []
    with Record(database) as record, Record(copy) as replica:
        assert record.last_seq() == replica.last_seq() == JUDGEMENTS
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    Journal.open(database).close()
