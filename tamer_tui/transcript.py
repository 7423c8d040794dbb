"""A conversation as a Markdown file: what was asked, what was answered, and what the operator made of it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from tamer_tui.session_store import SessionError
from tamer_tui.text import editable
from tamer_tui.views import CandidateView, SetView

TITLE = 60
"""Characters of the prompt that stand in the title."""
NAMED = 40
"""… and in the file's name."""


def as_markdown(view: SetView, chosen: CandidateView) -> str:
    """The turns so far, and one answer; after the commit all answers with their places, and who wrote which."""
    parts = [f"# {_title(view.prompt.text)}"]
    parts += [f"## {message.role}\n\n{editable(message.content)}" for message in view.prompt.messages]
    shown = view.candidates if view.committed else [chosen]
    parts += [f"## {_heading(view, candidate)}\n\n{editable(candidate.text or ''.join(candidate.pieces)).strip()}" for candidate in shown]
    return "\n\n".join(parts) + "\n"


def write(view: SetView, chosen: CandidateView, folder: Path) -> Path:
    """Into a new file of the folder. Raises SessionError."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    slug = re.sub(r"[^a-z0-9]+", "-", view.prompt.text.lower())[:NAMED].strip("-") or "conversation"
    path = folder / f"{slug}-{stamp}.md"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(as_markdown(view, chosen))
    except OSError as error:
        raise SessionError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _title(text: str) -> str:
    line = " ".join(editable(text).split())
    return line if len(line) <= TITLE else line[: TITLE - 1] + "…"


def _heading(view: SetView, candidate: CandidateView) -> str:
    said = [f"answer {candidate.letter}"]
    if view.committed:
        said += [f"place {view.ranks[candidate.uid]}"] if candidate.uid in view.ranks else []
        said.append(candidate.policy)
    said += [f"{criterion} {value} of 7" for criterion, value in candidate.ratings.items()]
    return f"assistant ({', '.join(said)})"
