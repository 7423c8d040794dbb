"""How the supervisor asks a process for a fault: a file in a folder, taken by whoever it is for."""

from __future__ import annotations

from pathlib import Path


def ask(folder: Path, name: str, value: str = "1") -> None:
    """Leave a request; it is whole once it is there."""
    made = folder / f".{name}"
    made.write_text(value)
    made.rename(folder / name)


def take(folder: Path, name: str) -> str:
    """What was asked for, once; '' where nothing was."""
    try:
        value = (folder / name).read_text()
        (folder / name).unlink()
    except FileNotFoundError:
        return ""
    return value
