"""A copy of a database that is whole and compact, made while the program runs."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from storage.database import JournalError, explain, open_reader, unfinished
from storage.progress import CancelledError, Step, unwatched

STEP_INSTRUCTIONS = 100_000
"""Of SQLite, between two looks at whether to go on: some milliseconds."""


def back_up(database: Path, copy: Path, step: Step = unwatched) -> int:
    """Write the database as it is at this moment to a new file, by way of a temporary one. Its size in bytes. Raises JournalError.

    `step` is told the bytes that are there of those that it will be, about.
    """
    copy = copy.expanduser().absolute()
    if there := copy if copy.exists() else unfinished(copy):
        raise JournalError(f"{there} is there already", "give another name, or remove it")
    made = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        made.unlink(missing_ok=True)
        with closing(open_reader(database)) as connection:
            connection.execute("PRAGMA query_only = OFF")  # the copy is written over this connection; the file itself is open read-only
            connection.set_progress_handler(lambda: _watched(step, made, database), STEP_INSTRUCTIONS)
            connection.execute("VACUUM INTO ?", (str(made),))
        made.chmod(0o600)
        _sync(made)
        os.link(made, copy)  # unlike a rename it replaces nothing
        _sync(copy.parent)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise JournalError("cancelled", "nothing was copied") from error
        raise explain(error, database) from error
    except FileExistsError:
        raise JournalError(f"{copy} is there already", "give another name, or remove it") from None
    except (sqlite3.Error, OSError) as error:
        raise explain(error, copy if isinstance(error, OSError) else database) from error
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)
    return copy.stat().st_size


def _watched(step: Step, made: Path, database: Path) -> int:
    """What SQLite asks between instructions: not 0 ends them."""
    try:
        step(made.stat().st_size if made.exists() else 0, database.stat().st_size)
    except CancelledError:
        return 1
    return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
