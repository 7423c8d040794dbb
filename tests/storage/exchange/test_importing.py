"""Imports: counts against the files by code of the test's own, rows of every format, and everything that may be wrong with a file."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database import JournalError
from storage.exchange.exporting import Options, export
from storage.exchange.importing import Imported, import_file
from storage.journal import Journal
from storage.queries import Record
from storage.records import Critique, Demonstration, Judgement, Ranking, Rating, Redo, Skip, Span, Undo
from storage.verification import problems
from tests.storage.conftest import Desk

from .conftest import ask

SHARED = Path(__file__).parents[4] / "shared" / "data"
U, A = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}
B = {"role": "assistant", "content": "This."}


def written(tmp_path: Path, *lines: Any, name: str = "file.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def judgements(journal: Journal) -> list[Judgement]:
    with Record(journal.path) as record:
        return [logged.judgement for logged in record.live()]


def texts(journal: Journal) -> list[tuple[str, list[str]]]:
    """Each set's whole conversation and its answers, with an 'imported' provenance."""
    with Record(journal.path) as record:
        found = []
        for logged in record.live():
            uid = logged.judgement.set_uid  # type: ignore[union-attr]
            answers = record.responses(uid)
            assert all((a.policy, a.seed, a.token_ids, a.logprobs, a.sampling) == (None, None, (), (), None) for a in answers)
            assert all(a.origin == record.sample_set(uid).prompt.source for a in answers)
            found.append((" | ".join(m.content for m in record.sample_set(uid).prompt.messages), [a.text for a in answers]))
        return found


# --- real files -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data beside the checkout")
def test_all_of_a_collection_of_preferences(fresh: Journal) -> None:
    file = SHARED / "hh_helpful_base_test.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    same = sum(line["chosen"] == line["rejected"] for line in lines)
    assert import_file(fresh, file, "hh", "0").added == len(lines) == 2354
    with Record(fresh.path) as record:
        tied = [logged for logged in record.live() if isinstance(logged.judgement, Ranking) and set(logged.judgement.ranks.values()) == {1}]
        assert len(tied) == same
        first = record.responses(record.live()[0].judgement.set_uid)  # type: ignore[union-attr]
        assert [answer.text for answer in first] == [lines[0][side].rsplit("\n\nAssistant: ", 1)[1] for side in ("chosen", "rejected")]
    assert list(problems(fresh.path)) == []


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data beside the checkout")
def test_all_of_a_collection_of_trees(fresh: Journal) -> None:
    file = SHARED / "oasst_en_100_trees.jsonl"
    expected: list[tuple[str, list[tuple[int, str]]]] = []

    def walk(node: dict[str, Any]) -> None:
        children = node.get("replies", [])
        found = sorted((child["rank"], child["text"]) for child in children if child["role"] == "assistant" and child.get("rank") is not None)
        if len(found) > 1:
            expected.append((node["text"], found))
        for child in children:
            walk(child)

    for line in file.read_text(encoding="utf-8").splitlines():
        walk(json.loads(line)["prompt"])
    assert import_file(fresh, file, "oasst", "0").added == len(expected) == 212
    with Record(fresh.path) as record:
        found = []
        for logged in record.live():
            assert isinstance(logged.judgement, Ranking)
            ranks, answers = logged.judgement.ranks, record.responses(logged.judgement.set_uid)
            found.append((record.sample_set(logged.judgement.set_uid).prompt.text, sorted((ranks[a.uid] - 1, a.text) for a in answers)))
        assert sorted(found) == sorted(expected)


def test_importing_twice_adds_nothing_not_even_from_another_file(fresh: Journal, tmp_path: Path) -> None:
    one = written(tmp_path, {"prompt": [U], "chosen": [A], "rejected": [B]}, {"prompt": [U], "completion": [A], "label": True})
    assert import_file(fresh, one, "trl-preference", "0").added == 2
    with Record(fresh.path) as record:
        before = record.counts()
    assert import_file(fresh, one, "trl-preference", "0") == Imported("trl-preference", 0, 2, 0)
    with Record(fresh.path) as record:
        assert record.counts() == before
    more = written(tmp_path, *one.read_text().splitlines(), one.read_text().splitlines()[0], {"prompt": [U], "completion": [B]}, name="more.jsonl")
    assert import_file(fresh, more, "trl-preference", "0") == Imported("trl-preference", 1, 3, 0)


@pytest.mark.parametrize("format", ["", "critiques", "trl-sft"])
def test_a_critique_that_is_none_is_refused_with_its_line_alone_and_never_an_answer_to_imitate(fresh: Journal, tmp_path: Path, format: str) -> None:
    row = {"prompt": "What?", "response": "That.", "critique": "shorter"}
    bad = {
        "the scope is neither prompt nor all": {"scope": "everyone"},
        "the strength is no whole number from -3 to 3": {"strength": 4},
        "the critique is empty": {"critique": " "},
    }
    for why, told in [*bad.items(), ("the critique is empty", {"critique": ""})]:
        file = written(tmp_path, row, row | told, row | {"critique": "warmer"})
        with pytest.raises(JournalError, match=f"line 2: {why}") as refused:
            import_file(fresh, file, format, "0")
        assert "\n" not in str(refused.value) and judgements(fresh) == []
    done = import_file(fresh, file, format, "0", skip_bad=True)
    assert (done.added, done.skipped) == (2, 1)
    said = [(c.text, c.scope, c.strength, c.response_uid is None) for c in judgements(fresh) if isinstance(c, Critique)]
    assert said == [("shorter", "prompt", 1, False), ("warmer", "prompt", 1, False)]


def test_a_column_for_critiques_that_is_null_in_a_row_says_nothing_of_it(fresh: Journal, tmp_path: Path) -> None:
    row = {"prompt": "What?", "completion": "That.", "critique": None}
    import_file(fresh, written(tmp_path, row, row | {"completion": "This.", "critique": "shorter"}), "", "0")
    assert [type(each) for each in judgements(fresh)] == [Demonstration, Critique]


def test_who_asks_for_demonstrations_gets_none_of_what_was_found_fault_with(fresh: Journal, tmp_path: Path) -> None:
    file = written(
        tmp_path, {"prompt": "What?", "response": "That.", "critique": "shorter"}, {"prompt": "What?", "response": "This.", "critique": None}
    )
    assert import_file(fresh, file, "demonstration", "0", skip_bad=True).complaints == (
        "line 1: it has a critique of the answer, which is none to imitate",
    )
    assert [each.text for each in judgements(fresh) if isinstance(each, Demonstration)] == ["This."]


# --- every format -----------------------------------------------------------------------------------------------------------

PAIR = ("What?", ["That.", "This."])
ROWS: list[tuple[str, Any, tuple[str, list[str]], type[Judgement]]] = [
    ("trl-preference", {"prompt": [U], "chosen": [A], "rejected": [B], "margin": 0.5}, PAIR, Ranking),
    ("trl-preference", {"prompt": "What?", "chosen": "That.", "rejected": "This."}, PAIR, Ranking),
    ("trl-preference", {"chosen": [U, A], "rejected": [U, B]}, PAIR, Ranking),
    ("openrlhf", {"prompt": [U], "chosen": [A], "rejected": [B]}, PAIR, Ranking),
    ("trl-kto", {"prompt": [U], "completion": [A], "label": False}, ("What?", ["That."]), Rating),
    ("trl-sft", {"messages": [{"role": "system", "content": "Sys"}, U, A]}, ("Sys | What?", []), Demonstration),
    ("trl-sft", {"prompt": "What?", "completion": "That."}, ("What?", []), Demonstration),
    ("trl-stepwise", {"prompt": "What?", "completions": ["One. ", "Two."], "labels": [True, False]}, ("What?", ["One. Two."]), Span),
    ("llamafactory", {"conversations": [{"from": "human", "value": "What?"}], "chosen": {"from": "gpt", "value": "That."},
                      "rejected": {"from": "gpt", "value": "This."}, "system": ""}, PAIR, Ranking),
    ("llamafactory", {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}], "kto_tag": True},
     ("What?", ["That."]), Rating),
    ("llamafactory", {"instruction": "What?", "input": "", "chosen": "That.", "rejected": "This."}, PAIR, Ranking),
    ("llamafactory", {"instruction": "What?", "input": "Now", "output": "That."}, ("What?\nNow", []), Demonstration),
    ("axolotl", {"messages": [U], "chosen": A, "rejected": B}, PAIR, Ranking),
    ("axolotl", {"prompt": "What?", "answers": [{"answer": "That.", "rank": 1}, {"answer": "This.", "rank": 2}]}, PAIR, Ranking),
    ("openai-dpo", {"input": {"messages": [U]}, "preferred_output": [A], "non_preferred_output": [B]}, PAIR, Ranking),
    ("openai-sft", {"messages": [U, A]}, ("What?", []), Demonstration),
    ("hh", {"chosen": "\n\nHuman: What?\n\nAssistant: That.", "rejected": "\n\nHuman: What?\n\nAssistant: This."}, PAIR, Ranking),
    ("prodigy", {"text": "What?", "options": [{"id": 1, "text": "That."}, {"id": 2, "text": "This."}], "accept": [1], "answer": "accept"},
     PAIR, Ranking),
    ("prodigy", {"prompt": "What?", "response": "That.", "answer": "reject"}, ("What?", ["That."]), Rating),
    ("argilla", {"fields": {"prompt": "What?", "r1": "That.", "r2": "This."}, "responses": [
        {"question_name": "q", "value": [{"value": "r1", "rank": 1}, {"value": "r2", "rank": 2}], "status": "submitted"}]}, PAIR, Ranking),
    ("argilla", {"fields": {"prompt": "What?", "response": "That."}, "responses": {"good": [{"value": "yes"}]}}, ("What?", ["That."]), Rating),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row", "expected", "kind"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_row_of_each_format(fresh: Journal, tmp_path: Path, format: str, row: Any, expected: tuple[str, list[str]], kind: type[Judgement]) -> None:
    import_file(fresh, written(tmp_path, row), format, "0")
    found = judgements(fresh)
    assert {type(judgement) for judgement in found} == {kind}
    assert texts(fresh)[0] == expected
    if isinstance(found[0], Ranking):
        assert list(found[0].ranks.values()) == [1, 2]
    if isinstance(found[0], Rating):
        good = row.get("label", row.get("kto_tag", row.get("answer") != "reject"))
        assert (found[0].value >= 5) is bool(good)
    if isinstance(found[0], Demonstration):
        assert found[0].text == "That."
    if isinstance(found[0], Span):
        assert [(span.start, span.stop, span.value) for span in found] == [(0, 5, 1.0), (5, 9, -1.0)]  # type: ignore[union-attr]


def test_what_was_ignored_or_is_a_draft_says_nothing(fresh: Journal, tmp_path: Path) -> None:
    rows = [{"prompt": "What?", "response": "That.", "answer": "ignore"}]
    with pytest.raises(JournalError, match="has nothing that prodigy could mean"):
        import_file(fresh, written(tmp_path, *rows), "prodigy", "0")


@pytest.mark.parametrize("format", ["trl-preference", "trl-kto", "trl-sft", "openai-dpo", "openai-sft", "llamafactory", "axolotl", "parquet"])
def test_what_was_exported_and_imported_is_exported_again_as_it_was(judged: Desk, fresh: Journal, tmp_path: Path, format: str) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    export(judged.path, out, Options(format))
    files = sorted(path for path in ([out] if out.is_file() else out.rglob("*")) if path.suffix in ("", ".jsonl", ".parquet") and path.is_file())
    for file in files:
        if file.name.startswith("ranked") or not file.stat().st_size:
            continue  # the same rankings as the comparisons, in another form
        if format in ("parquet", "llamafactory", "axolotl") and "preference" not in str(file) and "dpo" not in str(file):
            continue
        import_file(fresh, file, format, "0")
    export(fresh.path, again, Options(format))

    def rows(base: Path) -> list[Any]:
        name = {"parquet": "data/preference/train-00000-of-00001.parquet", "llamafactory": "preference.jsonl", "axolotl": "dpo.jsonl"}.get(format)
        if format == "parquet":
            import pyarrow.parquet

            found = pyarrow.parquet.read_table(base / str(name)).to_pylist()
        else:
            found = [json.loads(line) for line in (base / name if name else base).read_text().splitlines()]
        return sorted(({key: value for key, value in row.items() if key != "margin"} for row in found), key=json.dumps)

    assert rows(again) == rows(out) and rows(out)


# --- bad input --------------------------------------------------------------------------------------------------------------

GOOD_ROW = {"prompt": [U], "chosen": [A], "rejected": [B]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "no JSON"), ("[1]x", "no JSON"), ("7", "no JSON object"), ({}, "neither a comparison, a label nor an answer"),
        ({**GOOD_ROW, "prompt": []}, "prompt holds no messages"),
        ({**GOOD_ROW, "prompt": [{"role": "wizard", "content": "x"}]}, "prompt has an unknown role 'wizard'"),
        ({**GOOD_ROW, "prompt": [U, A]}, "the prompt does not end with something that the user says"),
        ({**GOOD_ROW, "prompt": [{"role": "user", "content": " "}]}, "the prompt does not end with something that the user says"),
        ({**GOOD_ROW, "chosen": [A, A]}, "chosen is not one message of the assistant"),
        ({**GOOD_ROW, "chosen": [B]}, "chosen and rejected are the same"),
        ({**GOOD_ROW, "chosen": [{"role": "assistant", "content": ""}]}, "chosen is empty"),
        ({**GOOD_ROW, "chosen": 7}, "chosen holds no messages"),
        ('{"prompt": "What?", "chosen": "That.", "rejected": "This.", "margin": NaN}', "no JSON"),
        ({**GOOD_ROW, "margin": "much"}, "margin is no number"),
        ({"prompt": "x", "completion": "y", "label": 2}, "label is neither true nor false"),
        ({"prompt": "x", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 3}]}, "the ranks have gaps: [1, 3]"),
        ({"prompt": "x", "answers": [{"answer": str(i), "rank": 1} for i in range(10)]}, "10 answers: 2 to 9 can be ranked"),
        ({"prompt": "x", "answers": [{"answer": "a", "rank": 1.5}, {"answer": "b", "rank": 2}]}, "answers are not a list of answers with ranks"),
        ({"prompt": "x", "completions": ["a"], "labels": []}, "completions and labels are not two lists"),
        ({"prompt": "x" * 1_000_001, "completion": "y"}, "prompt has more than 1,000,000 characters"),
        ('{"prompt": "\\ud800", "completion": "y"}', "no JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_malformed_line_is_told_and_nothing_is_imported(fresh: Journal, tmp_path: Path, row: Any, why: str) -> None:
    file = written(tmp_path, GOOD_ROW, row)
    with pytest.raises(JournalError) as error:
        import_file(fresh, file, "trl-preference", "0")
    assert error.value.message.startswith(f"file.jsonl: line 2: {why}") and "\n" not in error.value.message
    assert judgements(fresh) == []
    assert import_file(fresh, file, "trl-preference", "0", skip_bad=True).added == 1


def test_a_column_of_mixed_types_costs_its_own_rows_and_roles_may_come_in_any_order(fresh: Journal, tmp_path: Path) -> None:
    rows = [
        {"prompt": "a text", "chosen": "x", "rejected": "y"}, {"prompt": 7, "chosen": "x", "rejected": "y"},
        {"prompt": ["a list"], "chosen": "x", "rejected": "y"}, {"prompt": "b", "chosen": {"text": "x"}, "rejected": "y"},
        {"prompt": [U, U], "chosen": "x", "rejected": "y"}, {"prompt": [A, U], "chosen": "x", "rejected": "y"},
    ]  # fmt: skip
    done = import_file(fresh, written(tmp_path, *rows), "trl-preference", "0", skip_bad=True)
    assert (done.added, done.skipped) == (3, 3)
    assert done.complaints[2] == "line 4: chosen has a message without a role"
    with Record(fresh.path) as record:
        roles = [tuple(m.role for m in taught.sample_set.prompt.messages) for taught in record.lessons()]
    assert roles == [("user",), ("user", "user"), ("assistant", "user")]


def test_the_first_three_are_named_and_the_rest_counted(fresh: Journal, tmp_path: Path) -> None:
    file = written(tmp_path, "x", GOOD_ROW, "y", "z", "w", "v")
    with pytest.raises(JournalError, match=r"^file.jsonl: line 1: no JSON; line 3: no JSON; line 4: no JSON; 2 more"):
        import_file(fresh, file, "trl-preference", "0")
    done = import_file(fresh, file, "trl-preference", "0", skip_bad=True)
    assert (done.added, done.skipped, len(done.complaints)) == (1, 5, 3)


def test_a_line_without_end_does_not_fill_the_memory(fresh: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.exchange.sources.LONGEST_LINE", 2**20)
    file = written(tmp_path, GOOD_ROW, '{"prompt": "' + "x" * 5 * 2**20 + '"}', {**GOOD_ROW, "prompt": "Why?"})
    with pytest.raises(JournalError, match="line 2: longer than 1 MB"):
        import_file(fresh, file, "trl-preference", "0")
    assert import_file(fresh, file, "trl-preference", "0", skip_bad=True).added == 2


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00\x01", '{"prompt": "caf\xe9"}'.encode("latin-1"), b"\x1f\x8b broken", b"PAR1 broken", b"", b"\n\n", b"\0" * 100]
)
@pytest.mark.parametrize("format", ["trl-sft", "tamer", "hh"])
def test_a_file_in_another_encoding_or_of_another_kind_is_one_line(fresh: Journal, tmp_path: Path, content: bytes, format: str) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(content)
    with pytest.raises(JournalError) as error:
        import_file(fresh, file, format, "0")
    assert "\n" not in str(error.value)
    assert judgements(fresh) == []


def test_an_unknown_format_names_those_that_there_are(fresh: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalError) as error:
        import_file(fresh, written(tmp_path, GOOD_ROW), "csv", "0")
    assert "oasst" in error.value.hint and "tamer" in error.value.hint


def test_names_that_look_like_sql_or_formulas_are_only_text(fresh: Journal, tmp_path: Path) -> None:
    nasty = "'); DROP TABLE events; --"
    file = written(tmp_path, {"prompt": nasty, "chosen": "=cmd()|' /C calc'!A0", "rejected": nasty + "!"}, name="x'; DROP TABLE imports; --.jsonl")
    import_file(fresh, file, "trl-preference", "0")
    assert texts(fresh) == [(nasty, ["=cmd()|' /C calc'!A0", nasty + "!"])]
    assert list(problems(fresh.path)) == []


def test_a_byte_order_mark_a_list_and_gzip_are_read_too(fresh: Journal, tmp_path: Path) -> None:
    rows = [GOOD_ROW, {**GOOD_ROW, "prompt": "Why?"}]
    (tmp_path / "list.json").write_text("\ufeff" + json.dumps(rows, indent=1), encoding="utf-8")
    assert import_file(fresh, tmp_path / "list.json", "trl-preference", "0").added == 2
    (tmp_path / "packed").write_bytes(gzip.compress(json.dumps({**GOOD_ROW, "prompt": "How?"}).encode()))
    assert import_file(fresh, tmp_path / "packed", "trl-preference", "0").added == 1


# --- the whole database ------------------------------------------------------------------------------------------------------


def test_a_whole_database_comes_back_as_it_was(judged: Desk, fresh: Journal, tmp_path: Path) -> None:
    judged.train("v1", "base", 1)
    out = tmp_path / "all.jsonl"
    export(judged.path, out, Options("tamer"))
    events = judged.record.last_seq()
    assert import_file(fresh, out, "tamer", "0") == Imported("tamer", events, 0, 0)
    assert list(problems(fresh.path)) == []
    with Record(fresh.path) as record:
        assert record.log() == judged.record.log() and record.live() == judged.record.live()
        assert (record.lessons(), record.versions(), record.counts()) == (judged.record.lessons(), judged.record.versions(), judged.record.counts())
    assert import_file(fresh, out, "tamer", "0").added == 0
    export(fresh.path, tmp_path / "again.jsonl", Options("tamer"))
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()


def test_a_database_goes_on_from_an_earlier_export_of_itself(judged: Desk, fresh: Journal, tmp_path: Path) -> None:
    export(judged.path, tmp_path / "one.jsonl", Options("tamer"))
    import_file(fresh, tmp_path / "one.jsonl", "tamer", "0")
    judged.say(Rating("s2", "s2c", 5))
    export(judged.path, tmp_path / "two.jsonl", Options("tamer"))
    assert import_file(fresh, tmp_path / "two.jsonl", "tamer", "0").added == 1
    assert list(problems(fresh.path)) == []


@pytest.mark.parametrize("damage", ["other", "cut", "forged", "schema"])
def test_another_history_or_a_damaged_file_changes_nothing(judged: Desk, fresh: Journal, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "all.jsonl"
    export(judged.path, out, Options("tamer"))
    lines = out.read_text().splitlines(keepends=True)
    if damage == "other":
        import_file(fresh, written(tmp_path, GOOD_ROW, name="mine.jsonl"), "trl-preference", "0")
    elif damage == "cut":
        out.write_text("".join(lines[: len(lines) // 2])[:-20])
    elif damage == "forged":
        out.write_text("".join(lines).replace('"value":6', '"value":1').replace('\\"value\\":6', '\\"value\\":1'))
    else:
        out.write_text(lines[0].replace('"schema":', '"schema":9') + "".join(lines[1:]))
    before = judgements(fresh)
    with pytest.raises(JournalError) as error:
        import_file(fresh, out, "tamer", "0")
    assert "\n" not in str(error.value)
    assert judgements(fresh) == before and list(problems(fresh.path)) == []


ACTS = st.lists(st.tuples(st.sampled_from(["rank", "rate", "rate again", "demonstrate", "skip", "undo", "redo"]), st.integers(0, 7)), max_size=25)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_any_sequence_of_events_comes_back_with_the_same_views(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    desk = Desk(folder / "tamer.db", empty_database)
    for i in range(3):
        ask(desk, f"s{i}", "one", "two")
    for act, n in acts:
        uid = f"s{n % 3}"
        judgement: Judgement = {
            "rank": Ranking(uid, {f"{uid}a": 1, f"{uid}b": 1 + n % 2}), "rate": Rating(uid, f"{uid}a", 1 + n % 7),
            "rate again": Rating(uid, f"{uid}b", 1 + n % 7), "demonstrate": Demonstration(uid, f"text {n}"),
            "skip": Skip(uid), "undo": Undo(n), "redo": Redo(n),
        }[act]  # fmt: skip
        desk.journal.append(judgement).exception()  # what does not fit is refused, and leaves nothing
    export(desk.path, folder / "all.jsonl", Options("tamer"))
    copy = Path(shutil.copy(empty_database, folder / "copy.db"))
    with Journal.open(copy) as journal:
        import_file(journal, folder / "all.jsonl", "tamer", "0")
    with Record(copy) as record:
        for view in (Record.log, Record.live, Record.lessons, Record.counts, Record.judged_prompts, Record.habits, Record.blind_count):
            assert view(record) == view(desk.record)
    assert list(problems(copy)) == []
    desk.close()
