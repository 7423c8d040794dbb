"""Where an export goes. It never touches the database that it is of, and what it replaces is an earlier export, or the very file that was named.

An export's manifest lies beside it and names its files: what a folder holds beyond those was put there by somebody, and the folder stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from storage.database import JournalError, unfinished
from storage.exchange.sinks import sha256_of

COMPANIONS = ("", "-wal", "-shm", "-journal", ".lock", ".versions")
"""Of a database, by what follows its name: what goes with it."""
_OTHER = "give another --out"


def resolved(out: Path) -> Path:
    """Without `~`, `..` and links: what is compared and what is written are one path."""
    try:
        return out.expanduser().resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a home that nobody has
        raise JournalError(f"{out} is no place for an export: {error}", _OTHER) from error


def manifest_of(out: Path) -> Path:
    return out.with_name(out.name + ".manifest.json")


def check(database: Path, targets: Iterable[Path], force: bool) -> None:
    """That an export of the database may be written there; `targets` are resolved. Raises JournalError."""
    guarded = {path.with_name(path.name + end) for path in (database.expanduser().absolute(), resolved(database)) for end in COMPANIONS}
    for target in targets:
        if any(_is(target, each) or _within(target, each) or _within(each, target) for each in guarded):
            raise JournalError(f"{target} is, holds or belongs to the database: it is no place for its export", _OTHER)
        if not os.path.lexists(target):
            continue
        if not force:
            raise JournalError(f"{target} is there already", f"{_OTHER}, or --force to replace it")
        _check_replaceable(target)


def _is(one: Path, other: Path) -> bool:
    """Also where a file system does not tell upper case from lower."""
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False


def _within(inner: Path, outer: Path) -> bool:
    return any(_is(parent, outer) for parent in inner.parents)


def _check_replaceable(target: Path) -> None:
    if target.is_dir():
        listed = _listed(target)
        strange = next((path for path in sorted(target.rglob("*")) if not path.is_dir() and str(path.relative_to(target)) not in listed), None)
        if strange is not None:
            raise JournalError(
                f"{target} is not replaced: {strange.relative_to(target)} in it is of no export", f"{_OTHER}, or remove the folder yourself"
            )
    elif not target.is_file():
        raise JournalError(f"{target} is neither a file nor a folder", _OTHER)
    elif _is_database(target):
        beside = unfinished(target)
        if beside is not None or _listed(target).get(target.name) != sha256_of(target):
            more = f" with {beside.name} beside it" if beside is not None else " that is no export, or was written to since"
            raise JournalError(f"{target} is a database{more}: it is not replaced", f"{_OTHER}, or remove it yourself")


def _listed(target: Path) -> dict[str, str]:
    """The SHA-256 of each file by the manifest beside it; nothing where there is none."""
    try:
        return msgspec.json.decode(manifest_of(target).read_bytes(), type=_Manifest).sha256
    except (OSError, msgspec.DecodeError):
        return {}


class _Manifest(msgspec.Struct):
    sha256: dict[str, str]


def _is_database(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def put(made: Path, target: Path) -> None:
    """Move what was made to its place, on one file system; what was there goes, or stays where the move fails."""
    old = made.with_name(f"{made.name}.old")
    if target.is_dir() or (made.is_dir() and target.exists()):  # a file over a file is replaced in one step
        target.rename(old)
    try:
        made.replace(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
