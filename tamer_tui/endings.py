"""How the last sitting over a database ended, where it was not the operator who left: written down then, said by the next one."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from tamer_tui.config import endings_folder

CUT_SHORT = "Cut short last time (killed, or without power); all judged until then is on disk."


def note(database: Path, why: str) -> None:
    """Why it ended. Where that cannot be written, nothing is said later."""
    with suppress(OSError):
        endings_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        _place(database).write_text(f"Last time, {datetime.now():%d %b %H:%M}: {why}; all judged is on disk.")


def taken(database: Path, abandoned: bool) -> str:
    """What there is to say about a database that has just been opened, once; '' after an ordinary ending."""
    line = CUT_SHORT if abandoned else ""
    with suppress(OSError, UnicodeDecodeError):
        line = line or _place(database).read_text()
        _place(database).unlink()
    return line


def _place(database: Path) -> Path:
    return endings_folder() / hashlib.sha256(str(database.expanduser().resolve()).encode()).hexdigest()[:24]
