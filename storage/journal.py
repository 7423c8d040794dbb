"""The one writer. A thread owns the only read-write connection; everybody else hands it records and gets futures.

A future resolves after COMMIT under WAL and `synchronous=FULL`: what it acknowledges survives a crash and a power cut. Records that
are waiting together share a transaction, each in a savepoint of its own, so that one bad record fails alone. Callbacks of a future
run in that thread: they must not wait for another future of the journal.
"""

from __future__ import annotations

import atexit
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from storage import judgements, provenance
from storage.database import JournalError, Lock, explain, open_writer
from storage.records import BaseModel, Judgement, Sitting

__all__ = ["Journal", "JournalError"]

MAX_BATCH = 64
"""Records in one transaction at most: bounds what waits for one COMMIT."""

_RECORD_ERRORS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What SQLite raises for the fault of one record. Anything else from it is the fault of the transaction."""

T = TypeVar("T")


class _Job(NamedTuple):
    future: Future[Any]
    work: Callable[[sqlite3.Connection], Any]


class _Outcome(NamedTuple):
    value: Any = None
    error: BaseException | None = None


class Journal:
    """Writes one database. Threads may share it; only one process may have it open."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: Lock) -> None:
        self.path = path
        self.abandoned = lock.abandoned  # whoever wrote last was cut short
        self._connection = connection
        self._lock = lock
        self._sitting_id: int | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._gate = threading.Lock()  # no record may follow the end of the queue
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @staticmethod
    def open(path: Path, create: bool = True) -> Journal:
        """Opens a database for writing, makes it and its folder if `create`, and brings it up to date.

        Raises JournalError when it is in use, read-only, locked, damaged, of a newer version or of another program, when the
        disk is full, and, without `create`, when there is none.
        """
        path = path.expanduser().resolve()
        if not create and not path.exists():
            raise JournalError(f"there is no database at {path}", "check the path")
        if path.is_dir():
            raise JournalError(f"{path} is a folder", "give the path of a file")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = Lock.acquire(path)
        except OSError as error:
            raise explain(error, path) from error
        try:
            return Journal(path, open_writer(path), lock)
        except BaseException:
            lock.release()
            raise

    def bind(self, base: BaseModel | None, sitting: Sitting) -> None:
        """Begins a sitting, or goes on with it. Raises JournalError when the database belongs to another base model.

        An import loads no model: its base is None, and its sitting's base_hash is empty.
        """
        if sitting.base_hash != (base.base_hash if base is not None else ""):
            raise JournalError("the sitting names another base model than the one given")
        self._sitting_id = self._submit(lambda connection: provenance.bind(connection, base, sitting)).result()

    def append(self, judgement: Judgement) -> Future[int]:
        """The seq of the judgement, once it is on disk; or a JournalError for one that does not fit the log."""
        return self._submit(lambda connection: judgements.append(connection, self._sitting_id, judgement))

    def write(self, record: provenance.Entry) -> Future[None]:
        """Resolves once the record is on disk. What a record refers to must have been written before, or be waiting."""
        return self._submit(lambda connection: provenance.write(connection, self._sitting_id, record))

    def together(self, records: Iterable[Judgement | provenance.Entry]) -> Future[list[int]]:
        """All of them on disk in one transaction, or none. The seqs of the judgements among them, in order.

        They are taken one by one in the writer's thread, so that memory does not grow with a long iterator; what that raises
        comes back as a JournalError with its cause.
        """

        def write_all(connection: sqlite3.Connection) -> list[int]:
            seqs = []
            for record in records:
                if isinstance(record, provenance.Entry):
                    provenance.write(connection, self._sitting_id, record)
                else:
                    seqs.append(judgements.append(connection, self._sitting_id, record))
            return seqs

        return self.run(write_all)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Something else in the writer's thread, in a transaction: all of it or nothing. For the store itself (restoring, imports)."""
        return self._submit(work)

    def new_version_id(self) -> str:
        """The id that the next version gets, after everything that is waiting."""
        return self._submit(provenance.new_version_id).result()

    def flush(self) -> None:
        """Returns when everything handed in so far is on disk or has failed."""
        self._submit(lambda connection: None).result()

    def close(self) -> None:
        """Writes what is waiting, folds the write-ahead log into the file, and lets other processes open it."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        atexit.unregister(self.close)
        with suppress(sqlite3.Error):  # a reader in its way, or a full disk: the log is folded in by the next opening
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- the writer's thread ------------------------------------------------------------------------------------------

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._gate:
            if not self._closed:
                self._jobs.put(_Job(future, work))
                return future
        future.set_exception(JournalError("the journal is closed"))
        return future

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._jobs.get()]
            while len(batch) < MAX_BATCH and not self._jobs.empty():  # nobody else takes
                batch.append(self._jobs.get())
            ended = None in batch
            self._commit([job for job in batch if job and job.future.set_running_or_notify_cancel()])

    def _commit(self, jobs: list[_Job]) -> None:
        """Settles every future, each after the fate of its record is certain."""
        try:
            outcomes = self._transaction(jobs)
        except sqlite3.Error as error:  # the whole transaction is lost: what does not fit may have sunk what does
            if len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
                return
            outcomes = [_Outcome(error=error)] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.error is None:
                job.future.set_result(outcome.value)
            else:
                job.future.set_exception(self._explained(outcome.error))

    def _explained(self, error: BaseException) -> JournalError:
        clear = explain(error, self.path)
        clear.__cause__ = error if clear is not error else None  # for the traceback of a fault of ours
        return clear

    def _transaction(self, jobs: list[_Job]) -> list[_Outcome]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job) for job in jobs]
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return outcomes

    def _attempt(self, job: _Job) -> _Outcome:
        """One record in its savepoint. Raises sqlite3.Error where the transaction, not the record, is at fault."""
        self._connection.execute("SAVEPOINT record")
        try:
            outcome = _Outcome(job.work(self._connection))
        except Exception as error:  # the thread outlives whatever is handed in
            if isinstance(error, sqlite3.Error) and not isinstance(error, _RECORD_ERRORS):
                raise
            self._connection.execute("ROLLBACK TO record")
            outcome = _Outcome(error=error)
        self._connection.execute("RELEASE record")
        return outcome
