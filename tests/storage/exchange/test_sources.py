"""Files of every kind, named or packed as they may be: the same rows come out, and whatever is wrong is one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database import JournalError
from storage.exchange import sources
from storage.exchange.importing import import_file
from storage.exchange.shapes import SHAPES
from storage.exchange.shapes.mapping import proposal
from storage.exchange.sources import Source
from storage.exchange.survey import Reading, Survey
from storage.journal import Journal
from storage.queries import Record
from storage.records import Ranking, Rating

from .test_shapes import CASES, written

ROWS = [{"prompt": f"What is {i}?", "chosen": f"A number, {i}.", "rejected": 'No "idea"; ü', "n": i} for i in range(3)]
TEXTS = [{key: str(value) for key, value in row.items()} for row in ROWS]


def read(path: Path | str) -> tuple[list[Any], list[str]]:
    complaints: list[str] = []
    rows = list(Source(path).rows(lambda line, why: complaints.append(f"{line}: {why}")))
    assert [number for number, _ in rows] == sorted({number for number, _ in rows})
    return [row for _, row in rows], complaints


def table(mark: str, end: str = "\n") -> str:
    def cell(value: object) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    return end.join(mark.join(map(cell, line)) for line in [list(ROWS[0]), *(row.values() for row in ROWS)]) + end


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CONTENTS: dict[str, bytes] = {
    "lines": LINES.encode(),
    "crlf, bom and empty lines": ("\ufeff" + LINES.replace("\n", "\r\n\r\n")).encode(),
    "list": json.dumps(ROWS).encode(),
    "pretty list": ("\ufeff\n" + json.dumps(ROWS, indent=2)).encode(),
    "pretty objects": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "gzip": gzip.compress(LINES.encode(), mtime=0),
    "zstd": pyarrow.Codec("zstd").compress(LINES.encode(), asbytes=True),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_json_in_every_form(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").write_bytes(CONTENTS[name])
    assert read(tmp_path / "data") == (ROWS, [])


@pytest.mark.parametrize("content", [table(","), table("\t"), table(";"), "\ufeff" + table(",", "\r\n")], ids=["csv", "tsv", "semicolons", "excel"])
def test_tables(tmp_path: Path, content: str) -> None:
    (tmp_path / "data").write_bytes(content.encode())
    assert read(tmp_path / "data") == (TEXTS, [])


def test_cells_that_are_lists_are_read_as_lists_and_ragged_rows_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('prompt,response_a\n"[""Why?""]","[""So."", ""Yes.""]"\na,b,c\n[not a list,x\n', encoding="utf-8")
    rows, complaints = read(tmp_path / "t.csv")
    assert rows == [{"prompt": ["Why?"], "response_a": ["So.", "Yes."]}, {"prompt": "[not a list", "response_a": "x"}]
    assert complaints == ["2: 3 cells under 2 names"]


def test_parquet_with_nested_lists_and_nulls_and_a_folder_of_files(tmp_path: Path) -> None:
    nested = [{"prompt": [{"role": "user", "content": "Why?"}], "chosen": "So.", "rejected": None}, {"prompt": None, "chosen": "a", "rejected": "b"}]
    (tmp_path / "set" / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nested), tmp_path / "set" / "data" / "b.parquet")
    (tmp_path / "set" / "data" / "c.jsonl").write_text(LINES, encoding="utf-8")
    (tmp_path / "set" / "dataset_info.json").write_text("{}")
    (tmp_path / "set" / "README.md").write_text("about it")
    with (
        pyarrow.OSFile(str(tmp_path / "set" / "data" / "a.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, (t := pyarrow.Table.from_pylist(ROWS)).schema) as out,
    ):
        out.write_table(t)
    assert read(tmp_path / "set") == ([*ROWS, *nested, *ROWS], [])
    survey = Survey(Reading(Source(tmp_path / "set")))
    assert (survey.items, survey.bad, survey.shapes) == (6, 2, {"preference": 6})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfea\x00", "UTF-16"), (b"PAR1 broken", "no whole Parquet file"), (b"\x1f\x8b broken", "cannot be read"),
        (b"\x28\xb5\x2f\xfd broken", "cannot be read"),
        (gzip.compress(LINES.encode(), mtime=0)[:-12], "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_broken_is_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(JournalError, match=why) as error:
        read(tmp_path / "data")
    assert "\n" not in str(error.value)


def test_an_archive_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_UNPACKED", 2**20)
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(b"\0" * 30 * 2**20))
    with pytest.raises(JournalError, match="unpacks to far more than text would"):
        read(tmp_path / "zeros.gz")


@pytest.mark.parametrize("line", [b"\0" * 2**18, b"a,b," + b"x" * 2**18], ids=["zeros", "a cell without end"])
def test_a_first_line_that_is_too_long_for_a_heading_is_no_table(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "long.txt").write_bytes(line + b"\n" + LINES.encode())
    assert read(tmp_path / "long.txt") == (ROWS, ["1: no JSON"])


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_value_that_is_repeated_without_end_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, dictionary: bool) -> None:
    monkeypatch.setattr(sources, "MOST_UNPACKED", 2**20)
    column = pyarrow.array(["x" * 2**14] * 2000)
    table, path = pyarrow.table({"prompt": column.dictionary_encode() if dictionary else column}), tmp_path / f"bomb.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        packed = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema, options=packed) as stream:
            stream.write_table(table, max_chunksize=100)
    assert path.stat().st_size < 2**17
    with pytest.raises(JournalError, match="unpacks to far more than text would"):
        read(path)


def test_a_long_list_is_read_in_pieces_and_ends_where_it_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHUNK", 64)
    rows = [{"prompt": "x" * n, "completion": "ü" * n} for n in range(1, 60)]
    (tmp_path / "data").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert read(tmp_path / "data") == (rows, [])
    (tmp_path / "data").write_text(json.dumps(rows)[:-5] + "oops", encoding="utf-8")
    assert read(tmp_path / "data") == (rows[:-1], ["59: no JSON"])
    (tmp_path / "data").write_text('[1, {"a": 1}, "x"]', encoding="utf-8")
    assert read(tmp_path / "data") == ([{"a": 1}], ["1: no JSON object", "3: no JSON object"])


def test_what_is_not_there_and_a_hub_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JournalError, match="there is no file"):
        Source(tmp_path / "nothing.jsonl")
    with pytest.raises(JournalError, match="has no files of rows"):
        Source(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(JournalError, match="needs datasets"):
        read("org/name")


def test_the_hub_is_read_through_its_library_and_its_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Datasets:
        @staticmethod
        def load_dataset(*words: Any, **more: Any) -> list[Any]:
            asked.append((words, more))
            if words[0] == "org/offline":
                raise OSError("could not connect\nto anything")
            return ROWS

    monkeypatch.setitem(__import__("sys").modules, "datasets", Datasets)
    monkeypatch.setattr(sources, "_check_hub", lambda name: None)
    assert read("org/name:config@test") == (ROWS, []) and asked == [(("org/name", "config"), {"split": "test", "streaming": True})]
    with pytest.raises(JournalError, match="org/offline cannot be read from the hub: could not connect"):
        read("org/offline")


def test_a_hub_that_cannot_be_reached_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*words: Any, **more: Any) -> None:
        raise AssertionError("it would try for a minute")

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=never))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(JournalError, match="org/name is no file here, and the hub cannot be reached: ") as error:
        read("org/name")
    assert "\n" not in str(error.value) and error.value.hint.startswith("go online")


# --- shapes that nobody knows ----------------------------------------------------------------------------------------------

STRANGE = {"id": 7, "meta": {"ask": "What?"}, "outs": [{"t": "That."}, {"t": "This."}], "stars": 4}


def test_a_map_with_dotted_paths_reads_what_nobody_knows(fresh: Journal, tmp_path: Path) -> None:
    file = written(tmp_path, [STRANGE, {"id": 8}])
    with pytest.raises(JournalError) as error:
        import_file(fresh, written(tmp_path, [{"a": 1, "b": [1, 2]}], "x.jsonl"), skip_bad=True)
    assert "a (number), b (list)" in str(error.value)
    mapping = {"prompt": "meta.ask", "chosen": "outs.0.t", "rejected": "outs.-1.t", "system": "meta.system"}
    done = import_file(fresh, file, mapping=mapping, skip_bad=True)
    assert (done.added, done.skipped, done.complaints) == (1, 1, ("line 2: it has no meta.ask",))
    with Record(fresh.path) as record:
        (logged,) = record.live()
        assert isinstance(logged.judgement, Ranking)
        answers = record.responses(logged.judgement.set_uid)
        assert [answer.text for answer in answers] == ["That.", "This."]
        assert record.kept(logged.judgement.set_uid)["columns"] == {"id": 7, "stars": 4}  # type: ignore[index]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (STRANGE, "prompt=meta.ask response=outs.0.t score=stars"),
        ({"Frage": "Warum?", "gute Antwort": "So.", "better": "Yes.", "worst": "No."}, "prompt=Frage chosen=better rejected=worst"),
        ({"ask": "a", "say": "b", "liked it": True}, "'prompt=ask' 'response=say' 'label=liked it'"),
        ({"n": 1}, ""),
    ],
)
def test_what_is_proposed(row: dict[str, Any], expected: str) -> None:
    assert proposal(row) == expected


def test_scores_become_ratings_on_the_scale_of_the_file(fresh: Journal, tmp_path: Path) -> None:
    file = written(tmp_path, [{"prompt": "x", "response": f"answer {score}", "score": score} for score in (1, 2, 3.5, 5)])
    import_file(fresh, file)
    with Record(fresh.path) as record:
        assert [logged.judgement.value for logged in record.live() if isinstance(logged.judgement, Rating)] == [1, 3, 5, 7]


# --- rows of any kind ------------------------------------------------------------------------------------------------------

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["user", "assistant", "a", "tie", "1"])
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)
NAMES = sorted({name for case in CASES for row in (case.rows if isinstance(case.rows, list) else [case.rows]) for name in row})
FULL = [row for case in CASES for row in (case.rows if isinstance(case.rows, list) else [case.rows])]


@st.composite
def broken(draw: st.DrawFn) -> dict[str, Any]:
    """A row of some shape with some of its values, outer or inner, exchanged for anything, or columns of several shapes together."""
    row: Any = (
        json.loads(json.dumps(draw(st.sampled_from(FULL))))
        if draw(st.booleans())
        else draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
    )
    for _ in range(draw(st.integers(0, 2))):
        place: Any = row
        while isinstance(place, dict | list) and place and draw(st.booleans()):
            inner = [value for value in (place.values() if isinstance(place, dict) else place) if isinstance(value, dict | list) and value]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        if isinstance(place, dict) and place:
            place[draw(st.sampled_from(sorted(place)))] = draw(VALUES)
        elif isinstance(place, list) and place:
            place[draw(st.integers(0, len(place) - 1))] = draw(VALUES)
    return row  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=st.lists(broken(), min_size=1, max_size=5), shape=st.sampled_from([shape.name for shape in SHAPES]))
def test_no_row_of_any_kind_ends_an_import(rows: list[dict[str, Any]], shape: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each is judged, says nothing, or is one line; none is a fault of the reader. That holds too for a file that is said to be of another shape."""
    file = tmp_path_factory.mktemp("any") / "rows.jsonl"
    file.write_text("".join(json.dumps(row, default=str) + "\n" for row in [*rows, ROWS[0]]), encoding="utf-8")
    told: list[str] = []
    understood = list(Reading(Source(file))(lambda line, why: told.append(why)))
    assert len(understood) >= 1 and len(understood) + len(told) <= len(rows) + 1
    assert not [why for why in told if "not understood" in why or "\n" in why]
    list(Reading(Source(file), shape)(lambda line, why: None))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=st.lists(broken(), min_size=1, max_size=8))
def test_what_is_left_of_any_rows_is_a_sound_record(
    rows: list[dict[str, Any]], empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from storage.verification import problems

    folder = tmp_path_factory.mktemp("any")
    (folder / "new.db").write_bytes(empty_database.read_bytes())
    (folder / "rows.jsonl").write_text("".join(json.dumps(row, default=str) + "\n" for row in [*rows, ROWS[0]]), encoding="utf-8")
    with Journal.open(folder / "new.db") as journal:
        assert import_file(journal, folder / "rows.jsonl", skip_bad=True).added >= 1
        assert import_file(journal, folder / "rows.jsonl", skip_bad=True).added == 0
    assert list(problems(folder / "new.db")) == []
