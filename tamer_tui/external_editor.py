"""A text in the operator's own editor: $VISUAL, else $EDITOR, else vi."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ExternalEditorError(Exception):
    """Why it could not be used, in one line."""


def edited(text: str) -> str:
    """As it was left in the editor, without the newline that editors add at the end. Raises ExternalEditorError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.md"
        path.write_text(text, encoding="utf-8")
        try:
            command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
            with _interrupts_are_the_editors():
                done = subprocess.run([*command, str(path)], check=False)
            found = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # bytes that are no UTF-8 among them
            raise ExternalEditorError(f"the editor cannot be used: {error}") from error
    if done.returncode:
        raise ExternalEditorError(f"{command[0]} ended with {done.returncode}: nothing was changed")
    return found.removesuffix("\n") if not text.endswith("\n") else found


@contextmanager
def _interrupts_are_the_editors() -> Iterator[None]:
    """The terminal sends ctrl+c to whoever uses it, this program included. A handler, unlike SIG_IGN, is not passed on to the editor."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
