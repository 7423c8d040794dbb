"""The databases that there are: what was taught in each, when it was used last; renamed and deleted whole, with their versions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage.blind import BlindCount
from storage.database import Lock, OlderDatabase
from storage.journal import Journal, JournalError
from storage.queries import Record
from tamer_tui.session_store import SessionError, SessionStore

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite may have left beside a database."""


@dataclass(frozen=True)
class Known:
    """One database, as far as it can be read."""

    path: Path
    used: float  # seconds since the epoch
    model: str = ""
    judged: int = 0
    acting: str = ""
    blind: BlindCount | None = None
    adapter: str = ""  # somebody's, with which the model was taught
    problem: str = ""
    older: bool = False  # `renew` makes it readable


def known(folder: Path) -> list[Known]:
    """Those of a folder, the one that was used last first."""
    paths = [path for path in folder.glob("*.db") if path.is_file()] if folder.is_dir() else []
    return sorted((_look(path) for path in paths), key=lambda each: -each.used)


def renew(path: Path) -> Known:
    """Bring a database of an older version up to date. Raises SessionError."""
    try:
        with Journal.open(path, create=False):
            pass
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    return _look(path)


def rename(path: Path, name: str) -> Path:
    """With its versions. Raises SessionError."""
    name = name.strip().removesuffix(".db")
    if not name or Path(name).name != name or name.startswith("."):
        raise SessionError("a name is letters, digits and such, without a folder")
    target = path.with_name(f"{name}.db")
    if target.exists() or SessionStore.root_of(target).exists():
        raise SessionError(f"there is a {target.name} already")
    with _unused(path):
        path.with_name(path.name + "-shm").unlink(missing_ok=True)  # made anew from the -wal, which goes where its file goes
        for end in ("", "-wal", "-journal"):
            if (each := path.with_name(path.name + end)).exists():
                each.rename(target.with_name(target.name + end))
        root = SessionStore.root_of(path)
        if root.exists():
            root.rename(SessionStore.root_of(target))
    return target


def delete(path: Path) -> None:
    """With its versions, for good. Raises SessionError."""
    with _unused(path):
        shutil.rmtree(SessionStore.root_of(path), ignore_errors=True)
        for each in (path, *(path.with_name(path.name + end) for end in BESIDE)):
            each.unlink(missing_ok=True)


def _look(path: Path) -> Known:
    used = max(each.stat().st_mtime for each in (path, path.with_name(path.name + "-wal")) if each.exists())
    try:
        with Record(path) as record:
            base, acting = record.base(), record.acting_version()
            return Known(path, used, base.name if base else "", record.counts().judged, acting.id if acting else "base", record.blind_count(),
                         record.settings().get("peft_adapter") or "")  # fmt: skip
    except JournalError as error:
        return Known(path, used, problem=error.message, older=isinstance(error, OlderDatabase))


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """While no other program has it. Raises SessionError."""
    try:
        lock = Lock.acquire(path)
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    try:
        yield
    except OSError as error:
        raise SessionError(f"{path.name}: {error.strerror}") from error
    finally:
        lock.release()
