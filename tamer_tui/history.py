"""`tamer log`: what was said, a line for each event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec

from storage.history import Entry, Wanted, history
from storage.journal import JournalError
from storage.records import (
    Arm,
    Calibration,
    Comment,
    Correction,
    Critique,
    Demonstration,
    Flag,
    Pace,
    Present,
    Ranking,
    Rating,
    Redo,
    Span,
    Tap,
    Undo,
)
from tamer_tui.session_store import SessionError
from tamer_tui.text import one_line

LONGEST = 60
"""Characters of a text that are quoted."""


def log_lines(database: Path, wanted: Wanted, as_json: bool) -> Iterator[str]:
    """Raises SessionError."""
    try:
        for entry in history(database, wanted):
            yield msgspec.json.encode(entry).decode() if as_json else line_of(entry)
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error


def line_of(entry: Entry) -> str:
    """Number, local time, kind, what was said, about what; control characters of texts are gone."""
    when = datetime.fromisoformat(entry.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    parts = [f"{entry.seq:>6}  {when}  {entry.kind:<13} {words(entry)}".rstrip()]
    if entry.prompt:
        parts.append(f"«{_short(entry.prompt)}»")
    if entry.best_of is not None:
        letters = sorted(_letter(entry, uid) for uid in entry.chosen)
        parts.append(f"({', '.join(letters)}: the best of {entry.best_of})")
    if entry.undone_by is not None:
        parts.append(f"(undone by {entry.undone_by})")
    return "  ".join(parts)


def words(entry: Entry) -> str:
    """What the judgement says, with answers by their letters."""
    letter = partial(_letter, entry)
    match entry.judgement:
        case Ranking(ranks=ranks):
            tiers = [[letter(uid) for uid, rank in ranks.items() if rank == tier] for tier in sorted(set(ranks.values()))]
            return " > ".join(" = ".join(sorted(tier)) for tier in tiers)
        case Rating(response_uid=uid, value=value, criterion=criterion):
            return f"{letter(uid)}: {value} of 7" + ("" if criterion == "overall" else f" for {criterion}")
        case Correction(response_uid=uid, text=text):
            return f"{letter(uid)}: {_short(text)}"
        case Demonstration(text=text):
            return _short(text)
        case Critique(response_uid=about, text=text, scope=scope, strength=strength):
            to = "every prompt" if scope == "all" else letter(about) if about else "the set"
            return f"{to}: {_short(text)}" + ("" if strength == 1 else f" (strength {strength:+d})")
        case Tap(response_uid=uid, value=value, whole=whole):
            return f"{letter(uid)}: {value:+g}" + (" for all of it" if whole else "")
        case Comment(response_uid=about, text=text):
            return f"{letter(about)}: {_short(text)}" if about else _short(text)
        case Flag(response_uid=uid, label=label):
            return f"{letter(uid)}: {_short(label)}"
        case Span(response_uid=uid, start=start, stop=stop, label=label):
            return f"{letter(uid)}: characters {start} to {stop}, {_short(label)}"
        case Calibration(low=low, high=high, connection=connection):
            return f"{low:.2f} to {high:.2f} s, {one_line(connection)}"
        case Pace(tokens_per_second=pace):
            return f"{pace:g} tokens a second"
        case Arm(response_uid=uid, on=on, seconds=seconds, since=since):
            counted = f"counted for {seconds - since:.1f} s" if since is not None else "counts" if on else "says nothing"
            return f"{letter(uid)}: silence {counted}"
        case Present(order=order):
            return " ".join(map(letter, order))
        case Undo(target=target) | Redo(target=target):
            return f"of {target}"
    return ""


def _letter(entry: Entry, uid: str) -> str:
    return chr(ord("a") + entry.slots[uid]) if uid in entry.slots else "?"


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
