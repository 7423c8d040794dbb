"""How a database file is opened: by the one process that writes, or by any number of readers; and what can go wrong.

Every failure becomes a JournalError: one line that says what is wrong, and a hint that says what to do.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from storage import schema, state
from storage.migration import migrate

try:
    import fcntl
except ImportError:  # as on Windows
    fcntl = None  # type: ignore[assignment]

OPEN_TIMEOUT = 0.25
"""Seconds to wait at opening for another program's write lock: long enough for one commit."""
BUSY_MILLISECONDS = 5000
"""The same while running: another program's long write delays a judgement rather than losing it."""
ROOM_TO_OPEN = 65_536
"""Bytes; with fewer there is none for SQLite's shared memory and the first pages of its log."""
OLDEST_SQLITE = (3, 37, 0)  # STRICT tables


class JournalError(Exception):
    """What went wrong with a database, in one line, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class OlderDatabase(JournalError):
    """It can be read once it was brought up to date, by opening it to write."""


def now() -> str:
    """The time as it is written everywhere: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def explain(error: BaseException, path: Path) -> JournalError:
    """The clear line for what SQLite or the system said about the database at `path`."""
    if isinstance(error, JournalError):
        return error
    if isinstance(error, sqlite3.Error):
        return _explain_sqlite(error, path)
    if isinstance(error, OSError):
        return JournalError(f"cannot open {path}: {error.strerror or error}", "choose a folder that you may write to")
    if isinstance(error, UnicodeEncodeError):
        return JournalError("the text has characters that are not Unicode", "remove them and try again")
    return JournalError(f"the record does not fit the database: {error}")


def _explain_sqlite(error: sqlite3.Error, path: Path) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code; the rest is detail
    if code == sqlite3.SQLITE_IOERR and _disk_is_full(path):
        code = sqlite3.SQLITE_FULL  # no room for the memory that connections share is told as any failure
    readable = {
        sqlite3.SQLITE_FULL: (f"the disk of {path} is full", "free some space; nothing written before is lost"),
        sqlite3.SQLITE_READONLY: (f"{path} is read-only", "make the file and its folder writable, or copy it"),
        sqlite3.SQLITE_BUSY: (f"{path} is locked by another program", "close the program that is writing to it"),
        sqlite3.SQLITE_NOTADB: (f"{path} is not a database", "give the path of a tamer database, or of none yet"),
        sqlite3.SQLITE_CORRUPT: (f"{path} is damaged", "restore it from a backup"),
        sqlite3.SQLITE_CANTOPEN: (
            f"cannot open {path}",
            "check that it is a file and that you may write to its folder",
        ),
        sqlite3.SQLITE_IOERR: (f"cannot read or write {path}: {error}", "check the disk, then try again"),
    }
    return JournalError(*readable.get(code, (f"the record does not fit the database: {error}", "")))


def _disk_is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < ROOM_TO_OPEN
    except OSError:
        return False


class Lock:
    """`<database>.lock`, held by the one process that may write. The system frees it however that process ends."""

    def __init__(self, path: Path, descriptor: int, abandoned: bool = False) -> None:
        """`abandoned`: its last holder ended without releasing it, as after a kill or a power cut."""
        self._path = path
        self._descriptor = descriptor
        self.abandoned = abandoned

    @staticmethod
    def acquire(database: Path) -> Lock:
        """Raises JournalError naming the process that holds it, and OSError where the file cannot be made."""
        if fcntl is None:
            raise JournalError("this system cannot lock a database", "use Linux, macOS or WSL; reading works here")
        path = database.with_name(database.name + ".lock")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise _in_use(database, holder) from None
            if _is_still(path, descriptor):
                break
            os.close(descriptor)  # its last holder removed it between our open and our lock: take the new one
        lock = Lock(path, descriptor, abandoned=os.fstat(descriptor).st_size > 0)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError:
            lock.release()
            raise
        return lock

    def release(self) -> None:
        """Removes the file while it is still held, so that nobody can hold a lock on a removed one."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _in_use(database: Path, holder: str) -> JournalError:
    who = f"PID {holder}" if holder else "another process"
    return JournalError(f"{database} is in use by {who}", "close that program first; reading works meanwhile")


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def open_writer(path: Path) -> sqlite3.Connection:
    """The read-write connection, checked, migrated and set to survive a power cut. The caller holds the lock.

    Raises JournalError, and leaves no file behind that was not there.
    """
    created = _create_private(path)
    try:
        connection = _connect(path, "rw")
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except BaseException as error:
        if created:
            remove(path)
        if isinstance(error, Exception):
            raise explain(error, path) from error
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection that works while another process writes. Raises JournalError."""
    path = path.expanduser().resolve()
    if not path.exists():
        raise JournalError(f"there is no database at {path}", "check the path")
    try:
        return _checked_reader(path, "ro")
    except sqlite3.Error as error:
        wal = path.with_name(path.name + "-wal")
        no_room = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if error.sqlite_errorcode & 0xFF not in no_room or wal.exists():
            raise explain(error, path) from error
    try:  # read-only folder: no room for SQLite's shared memory, but also nobody who writes
        return _checked_reader(path, "ro&immutable=1")
    except sqlite3.Error as error:
        raise explain(error, path) from error


def _create_private(path: Path) -> bool:
    """Makes an empty file that only its owner may read, as its companions (-wal, -shm) then are. True if it was not there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise explain(error, path) from error
    return True


def remove(path: Path) -> None:
    """A database that nobody has open, with its companions."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def unfinished(path: Path) -> Path | None:
    """What says that somebody has the database open, or was cut short in it. SQLite would read such a log into another file of that name."""
    beside = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal", ".lock"))
    return next((each for each in beside if each.exists() and each.stat().st_size), None)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # The threads that share a connection take turns: the opening one hands it over once. SQLite itself is in serialized mode.
    return sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=OPEN_TIMEOUT, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise JournalError(f"SQLite {sqlite3.sqlite_version} is too old", "use a Python with SQLite 3.37 or newer")
    version = _identify(connection, path)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA recursive_triggers = ON")  # so that REPLACE meets the append-only triggers
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise JournalError(f"the file system of {path} cannot share memory", "keep the database on a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")  # says now if writing is impossible
    connection.execute("ROLLBACK" if version else "COMMIT")
    migrate(connection, schema.MIGRATIONS)
    state.mend(connection)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")


def _checked_reader(path: Path, mode: str) -> sqlite3.Connection:
    connection = _connect(path, mode)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        version = _identify(connection, path)
        if version < schema.VERSION:
            raise OlderDatabase(f"{path} was made by an older version", "open it once with `tamer` to bring it up to date")
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    except BaseException:
        connection.close()
        raise
    return connection


def _identify(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of one of our databases, 0 for an empty file. Raises JournalError for anybody else's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != schema.APPLICATION_ID and (application or tables):
        raise JournalError(f"{path} is the database of another program", "give the path of a tamer database")
    if version > schema.VERSION:
        raise JournalError(f"{path} was made by a newer version (schema {version}, this one knows {schema.VERSION})", "update tamer")
    return int(version)


def sqlite_version() -> str:
    """Of the library that Python is linked with."""
    return sqlite3.sqlite_version
