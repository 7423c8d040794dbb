"""A desk with everything that can be exported, told in the test's own words beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.journal import Journal
from storage.records import Correction, Demonstration, Message, Prompt, Ranking, Rating, SampleSet, Skip, Span, Tap, Undo
from tests.storage.conftest import BASE, SITTING, Desk, answer

TALK = (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "And now?"))


def ask(desk: Desk, uid: str, *texts: str, messages: tuple[Message, ...] | None = None) -> None:
    prompt = Prompt(messages) if messages else Prompt.of(f"prompt of {uid}")
    desk.journal.write(SampleSet(uid, SITTING.uid, prompt, max(1, len(texts))))
    for slot, text in enumerate(texts):
        desk.journal.write(answer(uid, slot, text=text)).result()


@pytest.fixture
def judged(desk: Desk) -> Iterator[Desk]:
    """s1 ranked d > a = b > c (no rank); s2 rated 6, 2, 4; s3 corrected, twice with one undone; s4 demonstrated; s5 ranked and undone; s6 skipped."""
    ask(desk, "s1", "one", "two", "three", "=cmd()", messages=TALK)
    desk.say(Ranking("s1", {"s1d": 1, "s1a": 2, "s1b": 2}))
    ask(desk, "s2", "good", "bad", "so so")
    for uid, value in (("s2a", 1), ("s2a", 6), ("s2b", 2), ("s2c", 4)):
        desk.say(Rating("s2", uid, value))
    desk.say(Rating("s2", "s2b", 7, "truthful"))
    ask(desk, "s3", "wrong", "")
    desk.say(Correction("s3", "s3a", "right"))
    ask(desk, "s4", "whatever")
    desk.say(Demonstration("s4", "ideal\nin two lines"))
    ask(desk, "s5", "left", "right")
    desk.say(Undo(desk.say(Ranking("s5", {"s5a": 1, "s5b": 2}))))
    ask(desk, "s6", "no", "one")
    desk.say(Skip("s6"))
    desk.say(Tap("s1", "s1a", 1.0, "+", 1.25, "2026-11-24T00:00:01.250Z"))
    desk.say(Span("s4", "s4a", 0, 8, "step", -1.0))
    desk.journal.flush()
    yield desk


@pytest.fixture
def fresh(tmp_path: Path, empty_database: Path) -> Iterator[Journal]:
    """A new database to import into."""
    path = tmp_path / "fresh.db"
    path.write_bytes(empty_database.read_bytes())
    with Journal.open(path) as journal:
        yield journal


__all__ = ["BASE", "SITTING"]
