"""What files bring beside texts: whatever it is, the database can be exported and merged for ever after."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import kept
from storage.exchange.exporting import Options, export
from storage.exchange.importing import import_file
from storage.exchange.items import Kept
from storage.journal import Journal
from storage.merging import merge
from storage.queries import Record
from storage.records import unicode
from storage.verification import problems
from tests.storage.conftest import BASE, SITTING


class Odd:
    """What a data set of the hub may hold: a picture, an array."""

    def __str__(self) -> str:
        return "odd \udc80" * 1000


def nested(depth: int) -> list[Any]:
    value: list[Any] = ["the innermost"]
    for _ in range(depth):
        value = [value]
    return value


STRANGE: dict[str, tuple[Any, Any]] = {  # and what comes closest to it
    "half of a character": ("caf\udce9", "caf\N{REPLACEMENT CHARACTER}"),
    "in a name": ({"caf\udce9": 1}, {"caf\N{REPLACEMENT CHARACTER}": 1}),
    "two halves": ("\ud83d\ude00", "\N{GRINNING FACE}"),
    "a name that is no text": ({None: {(1, 2): 3}}, {"None": {"(1, 2)": 3}}),
    "beside a date": ([datetime(2026, 1, 1, tzinfo=UTC), "\ud800"], ["2026-01-01T00:00:00Z", "\N{REPLACEMENT CHARACTER}"]),
    "an object": (Odd(), unicode(str(Odd())[: kept.LONGEST])),
    "depth": (nested(500), None),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_json_does_not_have_becomes_what_comes_closest(what: str) -> None:
    value, expected = STRANGE[what]
    told = kept.told({"note": value, "id": 10**30, "nan": math.nan})
    assert told.changed and kept.told(json.loads(told.json)) == (told.json, False)
    found = json.loads(told.json)
    assert (found["id"] == 10**30 and found["nan"] is None) or found["nan"] != found["nan"]
    assert found["note"] == expected or expected is None


PLAIN = st.none() | st.integers() | st.text() | st.binary()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8)


@given(JSON)
@settings(max_examples=40, deadline=None)
def test_what_is_told_can_be_read(value: Any) -> None:
    content = kept.told(Kept(columns={"x": value})._asdict()).json
    assert kept.read(content) == json.loads(content) and kept.sound(content) == content


PAIR = '"chosen": "good", "rejected": "bad"'
SOURCES = {
    "latin.csv": "prompt,chosen,rejected,note\nHi there,good one,bad one,café\n".encode("latin-1"),
    "half.json": f'[{{"prompt": "half", {PAIR}, "note": "\\ud800"}}]'.encode(),
    "name.json": f'[{{"prompt": "name", {PAIR}, "n\\ud800te": 1}}]'.encode(),
    "deep.jsonl": f'{{"prompt": "deep", {PAIR}, "note": {"[" * 400}{"]" * 400}}}\n'.encode(),
    "who.json": json.dumps(
        [
            {
                "snapshot": {
                    "history": {
                        "messages": {
                            "1": {"role": "user", "content": "Hi"},
                            "2": {"role": "assistant", "content": "Yo", "parentId": "1"},
                        }
                    }
                },
                "data": {"rating": 1},
                "meta": {"message_id": "2"},
                "user_id": "\ud800",
            }
        ]
    ).encode(),
    "call.json": json.dumps(
        [
            {
                "prompt": "Look",
                "rejected": "No",
                "chosen": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": {"b": "\ud800"}}}]}],
            }
        ]
    ).encode(),
}


FORMATS = ("trl-preference", "trl-kto", "axolotl", "parquet", "tamer", "sqlite")


def everything(database: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of exports of every kind, some of them."""
    folder.mkdir()
    for format in FORMATS:
        export(database, folder / format, Options(format))
    export(database, folder / "redacted", Options("trl-preference", redact=True, columns=True))
    return {name: [json.loads(line) for line in (folder / name).read_text().splitlines()] for name in ("trl-preference", "redacted", "tamer")}


def test_whatever_files_bring_every_export_works_and_so_does_a_merge(empty_database: Path, tmp_path: Path) -> None:
    database, other = (Path(tmp_path / each) for each in ("one.db", "other.db"))
    for path in (database, other):
        path.write_bytes(empty_database.read_bytes())
    with Journal.open(database) as journal:
        for name, content in SOURCES.items():
            (tmp_path / name).write_bytes(content)
            assert import_file(journal, tmp_path / name).added >= 1, name
    rows = everything(database, tmp_path / "out")["redacted"]
    assert [row["note"] for row in rows if isinstance(row.get("note"), str)] == ["caf\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"]
    with Journal.open(other) as journal:
        assert merge(journal, database, "0").added >= len(SOURCES)
    assert everything(other, tmp_path / "of the other")["redacted"] == rows
    assert list(problems(database)) == list(problems(other)) == []


DAMAGED = {  # and the margin that is told then
    str(Kept(columns={"note": "caf\udce9"}, scores=(7.0, 3.0), margin=4.0)._asdict()): 4.0,  # as Python writes it
    '{"prompt": [': 1.0, "[1, 2]": 1.0, "[" * 100_000: 1.0, '{"prompt":1}': 1.0,
}  # fmt: skip


def test_a_database_that_was_hurt_earlier_works(empty_database: Path, tmp_path: Path) -> None:
    database, other = (Path(tmp_path / each) for each in ("one.db", "other.db"))
    for path in (database, other):
        path.write_bytes(empty_database.read_bytes())
    lines = "".join(f"Hi {i},good {i},bad,,\n" for i in range(len(DAMAGED)))
    (tmp_path / "rows.csv").write_text(f"prompt,chosen,rejected,score_chosen,score_rejected\n{lines}Ho,yes,no,1,0\n")
    with Journal.open(database) as journal:
        import_file(journal, tmp_path / "rows.csv")
        journal.bind(BASE, SITTING)
        for number, content in enumerate(DAMAGED, 1):
            journal.run(lambda writer, row=(number, content): writer.execute("INSERT INTO kept_rows VALUES (?, 1, ?)", row)).result()  # type: ignore[misc]
    expected = [(f"good {i}", margin) for i, margin in enumerate(DAMAGED.values())] + [("yes", 1.0)]
    rows = everything(database, tmp_path / "out")
    assert [(row["chosen"][0]["content"], row["margin"]) for row in rows["trl-preference"]] == expected
    assert rows["redacted"][0]["note"] == "caf\N{REPLACEMENT CHARACTER}"
    with Record(database) as record:
        found = [record.kept(each.sample_set.uid) for each in record.lessons()]
    assert [each["margin"] for each in found if each is not None] == [4.0, None, None, None, None, None]
    with Journal.open(other) as journal:
        merge(journal, database, "0")
    again = everything(other, tmp_path / "of the other")
    assert again["redacted"] == rows["redacted"]
    assert all(json.loads(row["content"]) for row in again["tamer"] if row.get("table") == "kept_rows")
