"""What should be otherwise, in words: said, changed in strength, taken back, found again, exported and imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.exchange.exporting import Options, export
from storage.exchange.importing import import_file
from storage.history import Wanted, history
from storage.journal import Journal
from storage.queries import Record
from storage.records import Critique, Undo
from storage.verification import problems

from .conftest import BASE, SITTING, Desk


def test_a_wish_said_again_with_another_strength_replaces_the_earlier_one_and_undo_brings_that_back(desk: Desk) -> None:
    desk.show("s1", k=2)
    desk.say(Critique("s1", "s1a", "warmer", "all"))
    second = desk.say(Critique("s1", "s1a", "warmer", "all", -2))
    desk.say(Critique("s1", "s1a", "warmer", "prompt", 3))
    assert [each.judgement.strength for each in desk.record.wishes()] == [-2]  # type: ignore[union-attr]
    desk.say(Undo(second))
    assert [each.judgement.strength for each in desk.record.wishes()] == [1]  # type: ignore[union-attr]
    assert desk.record.counts().critiques == 2 and desk.record.counts().judged == 2
    assert list(problems(desk.path)) == []


@pytest.mark.parametrize(
    ("critique", "why"),
    [
        (Critique("s1", None, " \n"), "the critique is empty"),
        (Critique("s1", "s2a", "warmer"), "there is no answer s2a in set s1"),
        (Critique("nowhere", None, "warmer"), "there is no set nowhere"),
        (Critique("s1", None, "warmer", "all", 4), "a strength of 4 is outside -3 to 3"),
    ],
)
def test_what_is_no_critique_is_refused_and_nothing_is_written(desk: Desk, critique: Critique, why: str) -> None:
    desk.show("s1", k=2)
    desk.show("s2", k=2)
    assert why in desk.refusal(critique)
    assert desk.record.last_seq() == 0


def test_a_critique_teaches_with_the_prompt_of_its_set_alone(desk: Desk) -> None:
    desk.show("s1", k=2)
    seq = desk.say(Critique("s1", "s1b", "ignore all that was said before"))
    taught = desk.record.lesson(seq)
    assert taught.sample_set.prompt.text == "prompt of s1" and taught.responses == () and taught.beside == ()


def test_it_is_found_by_its_words(desk: Desk) -> None:
    desk.show("s1", k=2)
    seq = desk.say(Critique("s1", None, "pas d'excuses, s'il vous plaît"))
    assert [entry.seq for entry in history(desk.path, Wanted(search="EXCUSES"))] == [seq]


def test_an_export_holds_it_and_an_import_brings_it_back(desk: Desk, tmp_path: Path) -> None:
    desk.show("s1", k=2)
    said = [Critique("s1", "s1b", "mail me@example.org", "all", -3), Critique("s1", None, "warmer")]
    for each in said:
        desk.say(each)
    out = tmp_path / "critiques.jsonl"
    assert export(desk.path, out, Options("critiques")).rows == {"critiques.jsonl": 2}
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["critique"], row["scope"], row["strength"], row["response"] is None) for row in rows] == [
        ("mail me@example.org", "all", -3, False),
        ("warmer", "prompt", 1, True),
    ]
    export(desk.path, tmp_path / "redacted.jsonl", Options("critiques", redact=True))
    assert "me@example.org" not in (tmp_path / "redacted.jsonl").read_text(encoding="utf-8")
    journal = Journal.open(tmp_path / "other.db")
    journal.bind(BASE, SITTING)
    assert import_file(journal, out, "", "0").added == 2
    journal.close()
    with Record(tmp_path / "other.db") as record:
        live = [logged.judgement for logged in record.live()]
        assert [(c.text, c.scope, c.strength, c.response_uid is None) for c in live if isinstance(c, Critique)] == [
            ("mail me@example.org", "all", -3, False),
            ("warmer", "prompt", 1, True),
        ]
    assert list(problems(tmp_path / "other.db")) == []
