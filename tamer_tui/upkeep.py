"""Looking after a database: `tamer verify` says whether everything is as it was written, `tamer backup` copies it with its versions."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from learners.versions.blobs import BlobError, read_directory, write_directory
from storage.backup import back_up
from storage.journal import JournalError
from storage.progress import CancelledError, Step, unwatched
from storage.queries import Record
from storage.verification import CHECKS, problems
from tamer_tui.session_store import SessionError, SessionStore


class Verification(Struct, frozen=True):
    """What `tamer verify --json` prints."""

    database: str
    events: int
    versions: int  # whose files were looked at
    problems: tuple[str, ...]


def verify(database: Path, step: Step = unwatched) -> Verification:
    """Look at all that can be checked. Raises SessionError where the database cannot be read at all."""
    try:
        found = list(problems(database, step))
        with Record(database) as record:
            events = record.last_seq()
            published = [version for version in record.versions() if version.published]
        for place, version in enumerate(published):
            step(CHECKS + place, CHECKS + len(published))
            if line := _damage(database, version.id, version.sha256):
                found.append(line)
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    except CancelledError:
        raise SessionError("cancelled", "not everything was looked at") from None
    return Verification(str(database), events, len(published), tuple(found))


def in_words(verdict: Verification) -> str:
    if verdict.problems:
        return "\n".join([f"{verdict.database} is not as it was written:", *(f"  {line}" for line in verdict.problems)])
    versions = f"{verdict.versions} version{'s' if verdict.versions != 1 else ''}"
    return f"{verdict.database}: {verdict.events:,} events and {versions}, all as they were written"


def as_json(verdict: Verification) -> str:
    return msgspec.json.encode(verdict).decode()


def _damage(database: Path, version: str, sha256: str) -> str:
    folder = SessionStore.root_of(database) / sha256
    try:
        read_directory(folder)
    except BlobError as error:
        return f"{version}: {error}"
    except OSError as error:
        return f"{version}: its files cannot be read: {error}"
    return ""


def copy_all(database: Path, copy: Path, step: Step = unwatched) -> str:
    """Back up the database to `copy` and its versions to `copy`.versions. Raises SessionError; a damaged version is told, and the rest is kept."""
    left_out = []
    try:
        size = back_up(database, copy, step)
        with Record(copy) as record:
            kept = {version.sha256: version.id for version in record.versions() if version.published}
        for sha256, version in kept.items():
            try:
                write_directory(read_directory(SessionStore.root_of(database) / sha256), SessionStore.root_of(copy))
            except (BlobError, OSError) as error:
                left_out.append(f"\n{version} was left out: {error}")
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    whole = len(kept) - len(left_out)
    return f"{copy}: {size / 2**20:.1f} MiB, and {whole} version{'s' if whole != 1 else ''} beside it" + "".join(left_out)
