"""The log as people read and search it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.database import open_reader
from storage.history import Entry, Wanted, history
from storage.journal import JournalError
from storage.records import Comment, Correction, Prompt, Ranking, Redo, SampleSet, Tap, Undo

from .conftest import SITTING, Desk, answer


@pytest.fixture
def spoken(desk: Desk) -> Iterator[Desk]:
    """Two conversations: about cats, whose second answer purrs, and about a dog."""
    sets = {"s1": ("Tell me about cats", "They sleep.", 'They purr; "prrr" (loud)'), "s2": ("And a dog?", "It barks.", "Ünlike a cat")}
    for uid, (prompt, *texts) in sets.items():
        desk.journal.write(SampleSet(uid, SITTING.uid, Prompt.of(prompt), 2))
        for slot, text in enumerate(texts):
            desk.journal.write(answer(uid, slot, text=text)).result()
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    desk.say(Correction("s2", "s2a", "It wags its tail."))
    desk.say(Comment("s2", None, "100% sure: a_b"))
    desk.say(Undo(1))
    yield desk


def found(desk: Desk, **wanted: object) -> list[int]:
    return [entry.seq for entry in history(desk.path, Wanted(**wanted))]  # type: ignore[arg-type]


def test_every_event_comes_in_order_with_its_prompt_and_what_became_of_it(spoken: Desk) -> None:
    first, *_, last = entries = list(history(spoken.path, Wanted()))
    assert [entry.kind for entry in entries] == ["ranking", "correction", "comment", "undo"]
    assert first == Entry(1, first.utc, "ranking", "operator", Ranking("s1", {"s1a": 1, "s1b": 2}), "Tell me about cats", {"s1a": 0, "s1b": 1}, 4)
    assert (last.judgement, last.prompt, last.slots, last.undone_by) == (Undo(1), "", {}, None)
    spoken.say(Redo(1))
    assert next(history(spoken.path, Wanted())).undone_by is None


def test_it_is_narrowed_by_number_time_and_kind(spoken: Desk) -> None:
    assert found(spoken, since_seq=3) == [3, 4]
    assert found(spoken, kind="correction") == [2]
    assert found(spoken, since_utc="2999-01-01") == []
    assert found(spoken, since_utc=next(history(spoken.path, Wanted(since_seq=4))).utc)[-1] == 4


@pytest.mark.parametrize(
    ("search", "seqs"),
    [
        ("cats", [1]),  # of a prompt
        ("CAT", [1, 2, 3]),  # the beginning of a word, in whatever case: 'cats' there, 'a cat' here
        ("purr", [1]),  # of an answer
        ("wags tail", [2]),  # both words, of what was written
        ("wags purr", []),
        ("100% sure", [3]),  # part of a comment
        ("unlike", [2, 3]),  # accents make no difference
        ('"prrr" (loud)', [1]),
        ("cats OR dog", []),  # words, not a query language
        ("NOT ( * ^ :", []),
        ("a_b", [3]),
        ("   ", [1, 2, 3, 4]),
    ],
)
def test_a_search_finds_what_has_to_do_with_texts_that_contain_the_words(spoken: Desk, search: str, seqs: list[int]) -> None:
    assert found(spoken, search=search) == seqs


def test_what_is_written_later_is_found_too(spoken: Desk) -> None:
    spoken.say(Tap("s1", "s1a", 1.0, "+", 1.0))
    assert found(spoken, search="cats") == [1, 5]


def test_every_message_is_in_the_index(spoken: Desk) -> None:
    with closing(open_reader(spoken.path)) as connection:
        assert connection.execute("SELECT count(*) FROM search_docsize").fetchone() == connection.execute("SELECT count(*) FROM nodes").fetchone()


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no database"):
        next(history(tmp_path / "none.db", Wanted()))


@pytest.mark.parametrize("search", ["\0", "a\0b", '"', "*", "NEAR(", "-x", "(", "::", "\ufeff", "{", "cats\0"])
def test_no_search_is_another_query(spoken: Desk, search: str) -> None:
    assert found(spoken, search=search) == {"\0": [1, 2, 3, 4], "cats\0": [1]}.get(search, [])


@pytest.mark.parametrize("field", ["search", "kind", "since_utc"])
def test_what_is_no_text_is_one_line(spoken: Desk, field: str) -> None:
    with pytest.raises(JournalError, match="the text has characters that are not Unicode"):
        found(spoken, **{field: "caf\udce9"})
