"""Exports, read with nothing but the json module and compared with what was said."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from msgspec.structs import replace

from storage.database import JournalError
from storage.exchange.exporting import ExportManifest, Options, export
from storage.exchange.formats import FORMATS
from storage.exchange.importing import import_file
from storage.exchange.items import Steps
from storage.exchange.redaction import Redactor
from storage.journal import Journal
from storage.records import Message, Prompt, Ranking, Rating, SampleSet
from storage.thoughts import with_thought
from storage.verification import problems
from tests.storage.conftest import BASE, SITTING, Desk, answer

from .conftest import TALK, ask

CHAT = [{"role": message.role, "content": message.content} for message in TALK]
OF = {uid: [{"role": "user", "content": f"prompt of {uid}"}] for uid in ("s2", "s3", "s4")}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


COMPARED = [  # prompt, better, worse, margin
    (CHAT, "one", "three", 1 / 3), (CHAT, "=cmd()", "one", 1 / 3), (CHAT, "two", "three", 1 / 3), (CHAT, "=cmd()", "two", 1 / 3),
    (CHAT, "=cmd()", "three", 2 / 3), (OF["s2"], "good", "bad", 4 / 6), (OF["s2"], "good", "so so", 2 / 6), (OF["s2"], "so so", "bad", 2 / 6),
    (OF["s3"], "right", "wrong", 1.0),
]  # fmt: skip
LABELLED = [
    (OF["s2"], "good", True), (OF["s2"], "bad", False), (CHAT, "three", False), (CHAT, "=cmd()", True),
    (OF["s3"], "right", True), (OF["s3"], "wrong", False), (OF["s4"], "ideal\nin two lines", True),
]  # fmt: skip
WRITTEN = [(OF["s4"], "ideal\nin two lines"), (OF["s3"], "right")]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exported(desk: Desk, tmp_path: Path, format: str, **options: Any) -> tuple[Path, ExportManifest]:
    out = tmp_path / f"out-{format}{'' if FORMATS.get(format) and FORMATS[format].folder else '.jsonl'}"
    return out, export(desk.path, out, Options(format, **options))


def by_text(found: list[Any]) -> list[Any]:
    return sorted(found, key=json.dumps)


@pytest.mark.parametrize("format", ["trl-preference", "trl-kto"])
def test_what_was_judged_once_more_is_in_no_file(judged: Desk, tmp_path: Path, format: str) -> None:
    judged.journal.write(SampleSet("s7", SITTING.uid, Prompt.of("prompt of s2"), 2, "repeat")).result()
    for slot, text in enumerate(("bad", "good")):
        judged.journal.write(answer("s7", slot, text=text)).result()
    (tmp_path / "before").mkdir()
    before, _ = exported(judged, tmp_path / "before", format)
    judged.say(Ranking("s7", {"s7a": 1, "s7b": 2}))
    judged.say(Rating("s7", "s7a", 7))
    after, _ = exported(judged, tmp_path, format)
    assert rows(after) == rows(before)


def test_preferences_are_every_pair_that_was_said_with_its_margin(judged: Desk, tmp_path: Path) -> None:
    for format in ("trl-preference", "openrlhf"):
        out, manifest = exported(judged, tmp_path, format)
        expected = [{"prompt": p, "chosen": said(c), "rejected": said(r), "margin": round(m, 6)} for p, c, r, m in COMPARED]
        assert by_text(rows(out)) == by_text(expected)
        assert manifest.rows == {out.name: len(COMPARED)}


def test_strength_is_the_margin_where_it_was_said(desk: Desk, tmp_path: Path) -> None:
    ask(desk, "s1", "a", "b", "c")
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2, "s1c": 3}, strength=2))
    out, _ = exported(desk, tmp_path, "trl-preference")
    assert [row["margin"] for row in rows(out)] == [0.666667] * 3


def test_labels_and_writings(judged: Desk, tmp_path: Path) -> None:
    out, _ = exported(judged, tmp_path, "trl-kto")
    assert by_text(rows(out)) == by_text([{"prompt": p, "completion": said(a), "label": good} for p, a, good in LABELLED])
    out, _ = exported(judged, tmp_path, "trl-sft")
    assert rows(out) == [{"prompt": p, "completion": said(text)} for p, text in WRITTEN]


@pytest.mark.parametrize("criterion", ["truthful", "harmless", "useful", "overall"])
def test_a_ranking_gives_labels_unless_its_answers_were_rated_as_a_whole(desk: Desk, tmp_path: Path, criterion: str) -> None:
    ask(desk, "s1", "best", "middling", "worst")
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2, "s1c": 3}))
    desk.say(Rating("s1", "s1b", 7, criterion))
    out, _ = exported(desk, tmp_path, "trl-kto")
    found = {row["completion"][0]["content"]: row["label"] for row in rows(out)}
    assert found == ({"middling": True} if criterion == "overall" else {"best": True, "worst": False})


def test_openai(judged: Desk, tmp_path: Path) -> None:
    out, _ = exported(judged, tmp_path, "openai-dpo")
    expected = [
        {"input": {"messages": p, "tools": [], "parallel_tool_calls": True}, "preferred_output": said(c), "non_preferred_output": said(r)}
        for p, c, r, _ in COMPARED
    ]
    assert by_text(rows(out)) == by_text(expected)
    out, _ = exported(judged, tmp_path, "openai-sft")
    assert rows(out) == [{"messages": p + said(text)} for p, text in WRITTEN]


def test_axolotl(judged: Desk, tmp_path: Path) -> None:
    out, _ = exported(judged, tmp_path, "axolotl")
    assert by_text(rows(out / "dpo.jsonl")) == by_text([{"messages": p, "chosen": said(c)[0], "rejected": said(r)[0]} for p, c, r, _ in COMPARED])
    (ranked,) = rows(out / "ranked.jsonl")
    assert ranked["answers"] == [
        {"answer": "one", "rank": 2}, {"answer": "two", "rank": 2}, {"answer": "three", "rank": 3}, {"answer": "=cmd()", "rank": 1}
    ]  # fmt: skip
    assert ranked["prompt"] == "system: Be kind.\n\nuser: Hi\n\nassistant: Hello!\n\nuser: And now?"
    assert by_text(rows(out / "kto.jsonl"))[0].keys() == {"prompt", "completion", "label"}
    assert rows(out / "sft.jsonl") == [{"messages": p + said(text)} for p, text in WRITTEN]


def test_llamafactory_by_its_rules(judged: Desk, tmp_path: Path) -> None:
    """sharegpt: turns alternate, the user's first; a comparison's conversation ends with the user; a tag is a boolean; every column is there."""
    out, _ = exported(judged, tmp_path, "llamafactory")
    info = json.loads((out / "dataset_info.json").read_text())
    assert set(info) == {"tamer_preference", "tamer_kto", "tamer_sft"}
    for name, entry in info.items():
        found = rows(out / entry["file_name"])
        assert found and entry["formatting"] == "sharegpt"
        for row in found:
            assert set(entry["columns"].values()) <= row.keys()
            turns = row["conversations"]
            assert [turn["from"] for turn in turns] == [("human", "gpt")[i % 2] for i in range(len(turns))]
            assert len(turns) % 2 == (1 if name == "tamer_preference" else 0)
            if entry.get("ranking"):
                assert row["chosen"]["from"] == row["rejected"]["from"] == "gpt"
            if name == "tamer_kto":
                assert isinstance(row["kto_tag"], bool)
    preferences = rows(out / "preference.jsonl")
    assert sum(row["system"] == "Be kind." for row in preferences) == 5 and len(preferences) == len(COMPARED)


def test_a_conversation_that_does_not_alternate_is_left_out_where_it_must_and_counted(desk: Desk, tmp_path: Path) -> None:
    ask(desk, "s1", "a", "b", messages=(Message("user", "one"), Message("user", "two")))
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    out, manifest = exported(desk, tmp_path, "llamafactory")
    assert (rows(out / "preference.jsonl"), manifest.left_out) == ([], 3)  # a comparison and two labels
    assert len(rows(exported(desk, tmp_path, "trl-preference")[0])) == 1


def test_steps_come_from_outside(judged: Desk, tmp_path: Path) -> None:
    out = tmp_path / "steps.jsonl"
    export(judged.path, out, Options("trl-stepwise"), [Steps(TALK[1:2], ("First. ", "Second."), (True, False))])
    assert rows(out) == [{"prompt": "Hi", "completions": ["First. ", "Second."], "labels": [True, False]}]


# --- manifest, splits, since, redaction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [*FORMATS, "tamer"])
def test_the_same_database_and_options_give_the_same_bytes_and_the_manifest_knows_them(judged: Desk, tmp_path: Path, format: str) -> None:
    hashes = []
    for turn in ("a", "b"):
        (tmp_path / turn).mkdir()
        out = tmp_path / turn / "out.jsonl"
        export(judged.path, out, Options(format, test_share=0.0 if format == "tamer" else 0.4))
        files = sorted(path for path in (tmp_path / turn).rglob("*") if path.is_file())
        hashes.append([(path.relative_to(tmp_path / turn), sha256(path.read_bytes()).hexdigest()) for path in files])
        manifest = json.loads((tmp_path / turn / "out.jsonl.manifest.json").read_text())
        for name, digest in manifest["sha256"].items():
            beside = out / name if out.is_dir() else out.with_name(name)
            assert sha256(beside.read_bytes()).hexdigest() == digest
        assert manifest["last_event"] == judged.record.last_seq() and manifest["format"] == format
    assert hashes[0] == hashes[1] and len(hashes[0]) > 1


def test_a_split_never_has_a_prompt_on_both_sides(desk: Desk, tmp_path: Path) -> None:
    for i in range(60):
        for again in ("x", "y"):
            uid = f"s{i}{again}"
            ask(desk, uid, "better", "worse", messages=(Message("user", f"question {i}"),))
            desk.say(Ranking(uid, {f"{uid}a": 1, f"{uid}b": 2}))
    out = tmp_path / "pairs.jsonl"
    manifest = export(desk.path, out, Options("trl-preference", test_share=0.3))
    train, test = rows(tmp_path / "pairs.train.jsonl"), rows(tmp_path / "pairs.test.jsonl")
    sides = [{row["prompt"][0]["content"] for row in side} for side in (train, test)]
    assert not sides[0] & sides[1] and len(train) + len(test) == 120 and 6 <= len(sides[1]) <= 32
    assert all(Prompt.of(text).fraction < 0.3 for text in sides[1])
    assert manifest.rows == {"pairs.train.jsonl": len(train), "pairs.test.jsonl": len(test)} and not out.exists()


def test_since_a_number_or_a_time(judged: Desk, tmp_path: Path) -> None:
    correction = next(logged for logged in judged.record.log() if type(logged.judgement).__name__ == "Correction")
    for folder, since in (("number", correction.seq), ("time", correction.utc)):
        (tmp_path / folder).mkdir()
        out, _ = exported(judged, tmp_path / folder, "trl-sft", since=since)
        assert {row["completion"][0]["content"] for row in rows(out)} == {"right", "ideal\nin two lines"}
    out, _ = exported(judged, tmp_path, "trl-preference", since=correction.seq)
    assert [row["chosen"][0]["content"] for row in rows(out)] == ["right"]
    late = tmp_path / "late.jsonl"
    export(judged.path, late, Options("trl-preference", since="2999-01-01T00:00:00.000Z"))
    assert rows(late) == []


SECRETS = "mail jo.do+x@mail.example.org or call +49 (170) 123-4567; key sk-abcdefghijklmnop1234, token hf_abcdefghijklmnopqrst, /home/jo/notes"


def test_redaction_replaces_what_identifies_and_counts_it(desk: Desk, tmp_path: Path) -> None:
    ask(desk, "s1", SECRETS, "In 1999 there were 12 apples and 3.14159 pies; 2 + 2 = 4.", messages=(Message("user", "from C:\\Users\\jo\\x"),))
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    out, manifest = exported(desk, tmp_path, "trl-preference", redact=True)
    (row,) = rows(out)
    assert row["chosen"][0]["content"] == "mail [e-mail] or call [phone]; key [key], token [key], [home]/notes"
    assert row["rejected"][0]["content"] == "In 1999 there were 12 apples and 3.14159 pies; 2 + 2 = 4."
    assert row["prompt"][0]["content"] == "from [home]\\x"
    assert manifest.redacted == {"e-mail": 1, "home": 2, "key": 2, "phone": 1}


# fmt: off
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
STEPS = [  # sentences, which are fine, and how they are told
    (("Mail jo.", "do@mail.", "example.", "org now. ", "Go."), (True, True, False, True, True), ("Mail [e-mail] now. ", "Go."), [False, True]),
    (("Look:\n", *KEY.splitlines(keepends=True), "\n", "Done."), (True,) * 7, ("Look:\n", "[key]", "\n", "Done."), [True] * 4),
    (("Call +49 170 123", "4567. ", "In 12. ", "34."), (True, True, False, True), ("Call [phone]. ", "In 12. ", "34."), [True, False, True]),
    (("See /home/j", "o/notes.", "End"), (False, True, True), ("See [home]/notes.", "End"), [False, True]),
]
# fmt: on


@pytest.mark.parametrize(("sentences", "good", "told", "fine"), STEPS, ids=range(4))
def test_nothing_that_identifies_is_told_in_pieces(
    judged: Desk, tmp_path: Path, sentences: tuple[str, ...], good: tuple[bool, ...], told: tuple[str, ...], fine: list[bool]
) -> None:
    export(judged.path, tmp_path / "out.jsonl", Options("trl-stepwise", redact=True), [Steps(TALK[1:2], sentences, good)])
    (row,) = rows(tmp_path / "out.jsonl")
    assert (row["completions"], row["labels"]) == (list(told), fine)


@pytest.mark.parametrize("part", ["a.", "a-", "-eyJ", "eyJaaaaaaaaaa.", "a@", "a@a.", "x", "12-", "1 ", "/home/", "-----BEGIN ", "+", "."])
def test_a_long_text_is_redacted_in_the_time_that_it_takes_to_read_it(part: str) -> None:
    """In the square of it these would take a quarter of an hour each."""
    Redactor().text(part * (200_000 // len(part)))


# --- what may go wrong ------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_replaced_without_force(judged: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(JournalError, match="is there already"):
        export(judged.path, out, Options("trl-preference"))
    assert out.read_text() == "precious"
    export(judged.path, out, Options("trl-preference"), force=True)
    assert len(rows(out)) == len(COMPARED)
    with pytest.raises(JournalError, match="is there already"):
        export(judged.path, tmp_path / "out.jsonl", Options("trl-kto"))


def test_a_folder_is_replaced_as_a_whole_where_an_export_made_all_of_it(judged: Desk, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    out.mkdir()  # nothing is lost with an empty one
    export(judged.path, out, Options("llamafactory", test_share=0.5), force=True)
    export(judged.path, out, Options("axolotl"), force=True)
    assert sorted(path.name for path in out.iterdir()) == ["dpo.jsonl", "kto.jsonl", "ranked.jsonl", "sft.jsonl"]
    (out / "runs").mkdir()
    (out / "runs" / "thesis.txt").write_text("mine")
    for format in ("axolotl", "trl-preference", "sqlite"):
        with pytest.raises(JournalError, match=r"folder is not replaced: runs/thesis.txt in it is of no export"):
            export(judged.path, out, Options(format), force=True)
    assert (out / "runs" / "thesis.txt").read_text() == "mine" and (out / "dpo.jsonl").is_file()


PLACES = ("my.db", "sub/../my.db", "link.db", "../link/my.db", ".", "..", "../link", "my.db-wal", "my.db.versions", "my.db.versions/x", "my.db/x")


def test_no_export_goes_over_its_database_what_belongs_to_it_or_the_folder_it_is_in(
    judged: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the database and the place of the export are named."""
    project = tmp_path / "proj"
    (project / "sub").mkdir(parents=True)
    (project / "my.db.versions").mkdir()
    shutil.copy(judged.path, project / "my.db")
    (project / "thesis.txt").write_text("mine")
    (project / "link.db").symlink_to("my.db")
    (tmp_path / "link").symlink_to("proj")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    monkeypatch.chdir(project)
    databases = (project / "my.db", Path("my.db"), Path("link.db"), Path("../link/my.db"))
    for database, format, where in product(databases, ("axolotl", "trl-preference", "tamer", "sqlite"), PLACES):
        with pytest.raises(JournalError, match="it is no place for its export"):
            export(database, Path(where), Options(format), force=True)
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_database_is_replaced_by_a_newer_copy_of_it_alone(judged: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    export(judged.path, copy, Options("sqlite"))
    export(judged.path, copy, Options("sqlite"), force=True)
    copy.with_name("copy.db-wal").write_bytes(b"somebody writes")
    with pytest.raises(JournalError, match="is a database with copy"):
        export(judged.path, copy, Options("sqlite"), force=True)
    copy.with_name("copy.db-wal").unlink()
    with Journal.open(copy) as journal:
        journal.bind(BASE, replace(SITTING, uid="another"))
    for format in ("sqlite", "trl-sft", "axolotl"):
        with pytest.raises(JournalError, match="is a database that is no export, or was written to since"):
            export(judged.path, copy, Options(format), force=True)


def test_what_stood_there_stays_where_the_move_fails(judged: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "folder"
    export(judged.path, out, Options("axolotl"))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(Path, "replace", _fails)
    with pytest.raises(JournalError, match="cannot write"):
        export(judged.path, out, Options("axolotl"), force=True)
    assert sorted(tmp_path.rglob("*")) == before


def _fails(path: Path, target: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options("csv"), "there is no format 'csv': use one of trl-preference"),
        (Options("trl-kto", test_share=1.5), "a test split of 1.5 is none"),
        (Options("tamer", redact=True), "tamer is the whole database"),
        (Options("sqlite", since=3), "sqlite is the whole database"),
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(judged: Desk, tmp_path: Path, options: Options, line: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(JournalError) as error:
        export(judged.path, tmp_path / "out", options)
    assert f"{error.value.message}: {error.value.hint}".startswith(line)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_one_line(judged: Desk, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot write"):
        export(judged.path, tmp_path / "no" / "folder" / "out.jsonl", Options("trl-kto"))
    with pytest.raises(JournalError, match=r"is no place for its export|is there already"):
        export(judged.path, judged.path, Options("trl-kto"), force=True)
    assert list(problems(judged.path)) == []


def test_a_failure_in_the_middle_leaves_nothing_of_itself(judged: Desk, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))

    def half() -> Any:
        yield Steps(TALK[1:2], ("One.",), (True,))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        export(judged.path, tmp_path / "out.jsonl", Options("trl-stepwise"), half())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_clean_copy_is_a_sound_database(judged: Desk, tmp_path: Path) -> None:
    out = tmp_path / "copy.db"
    manifest = export(judged.path, out, Options("sqlite"))
    assert list(problems(out)) == [] and manifest.rows == {"copy.db": judged.record.last_seq()}
    assert not (tmp_path / "copy.db-wal").exists()


def test_exports_work_while_the_program_writes(judged: Desk, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="in use"):
        Journal.open(judged.path)
    ask(judged, "s9", "a", "b")
    judged.say(Rating("s9", "s9a", 7))
    out, _ = exported(judged, tmp_path, "trl-kto")
    assert any(row["completion"] == said("a") for row in rows(out))


# --- what is chosen ----------------------------------------------------------------------------------------------------------


def test_comparisons_below_a_margin_and_alike_are_left_out_and_counted(judged: Desk, tmp_path: Path) -> None:
    ask(judged, "s7", "the same", "the same", "longer than these")
    judged.say(Ranking("s7", {"s7a": 1, "s7b": 2, "s7c": 3}))
    out, manifest = exported(judged, tmp_path, "trl-preference", min_margin=0.5)
    expected = [margin for *_, margin in COMPARED if margin >= 0.5] + [1.0, 0.5]  # 'the same' against the longer one, from both places
    assert sorted(row["margin"] for row in rows(out)) == sorted(round(margin, 6) for margin in expected)
    assert manifest.dropped == {"chosen and rejected are the same": 1, "margin below 0.5": sum(margin < 0.5 for *_, margin in COMPARED)}


def test_a_balance_has_as_many_of_each_label_spread_over_all(desk: Desk, tmp_path: Path) -> None:
    for i in range(12):
        ask(desk, f"s{i}", f"answer {i}")
        desk.say(Rating(f"s{i}", f"s{i}a", 6 if i % 4 else 2))
    out, manifest = exported(desk, tmp_path, "trl-kto", balance=True)
    found = [(row["completion"][0]["content"], row["label"]) for row in rows(out)]
    assert [label for _, label in found].count(True) == [label for _, label in found].count(False) == 3
    good = [int(text.split()[1]) for text, label in found if label]
    assert max(good) - min(good) >= 6 and manifest.dropped == {"more of one label than of the other": 6}


def test_the_manifest_tells_lengths_of_each_side(judged: Desk, tmp_path: Path) -> None:
    _, manifest = exported(judged, tmp_path, "axolotl")
    chosen, rejected = ([len(pair[side]) for pair in COMPARED] for side in (1, 2))
    told = manifest.lengths["dpo.jsonl"]
    assert told.mean == {"chosen": round(sum(chosen) / len(chosen), 1), "rejected": round(sum(rejected) / len(rejected), 1)}
    unequal = [(one, other) for one, other in zip(chosen, rejected, strict=True) if one != other]
    assert told.longer_chosen == round(sum(one > other for one, other in unequal) / len(unequal), 4)
    assert set(manifest.lengths["kto.jsonl"].mean) == {"good", "bad"} and set(manifest.lengths["sft.jsonl"].mean) == {"written"}


@pytest.mark.parametrize(("format", "options"), [("trl-sft", {"min_margin": 0.5}), ("openai-dpo", {"balance": True}), ("tamer", {"balance": True})])
def test_a_choice_that_a_format_does_not_have_is_one_line(judged: Desk, tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    with pytest.raises(JournalError, match=r"has no (comparisons|labels)"):
        exported(judged, tmp_path, format, **options)


def test_a_thought_goes_out_beside_the_answer(desk: Desk, tmp_path: Path) -> None:
    asked = (Message("user", "Hi"), Message("assistant", with_thought("a", "Hello.")), Message("user", "Why?"))
    ask(desk, "s1", with_thought("hm", "Because."), "So.", messages=asked)
    desk.say(Ranking("s1", {"s1a": 1, "s1b": 2}))
    path, _ = exported(desk, tmp_path, "trl-preference")
    (row,) = rows(path)
    assert row["prompt"][1] == {"role": "assistant", "content": "Hello.", "reasoning_content": "a"}
    assert row["chosen"] == [{"role": "assistant", "content": "Because.", "reasoning_content": "hm"}] and row["rejected"] == said("So.")
    path, _ = exported(desk, tmp_path, "axolotl")
    (ranked,) = rows(path / "ranked.jsonl")
    assert [each["answer"] for each in ranked["answers"]] == ["Because.", "So."]
    path, _ = exported(desk, tmp_path, "llamafactory")
    (row,) = rows(path / "preference.jsonl")
    assert row["chosen"] == {"from": "gpt", "value": with_thought("hm", "Because.")}
    assert row["conversations"][1]["value"] == with_thought("a", "Hello.")
    assert row["rejected"]["value"] == "So."


THOUGHTFUL = {"role": "assistant", "content": "Because.", "reasoning_content": "hm"}


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", None])
def test_parquet_and_llamafactory_tell_thoughts_wherever_they_were(fresh: Journal, tmp_path: Path, key: str | None) -> None:
    """In a field of the imported messages, or in the text."""
    content = with_thought("hm", "Because.") if key is None else "Because."
    message = {"role": "assistant", "content": content} | ({key: "hm"} if key else {})
    asked = [{"role": "user", "content": "Why?"}, message, {"role": "user", "content": "And?"}]
    lines = [{"prompt": asked, "chosen": [message], "rejected": said("So.")}, {"prompt": asked[:1], "completion": [message], "label": True}]
    lines += [{"prompt": asked[:1], "completion": [message]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    import_file(fresh, tmp_path / "in.jsonl")
    export(fresh.path, tmp_path / "p", Options("parquet"))
    export(fresh.path, tmp_path / "f", Options("llamafactory"))
    tables = {name: pyarrow.parquet.read_table(tmp_path / "p" / "data" / name).to_pylist() for name in ("preference", "kto", "sft")}
    assert tables["preference"][0]["chosen"] == [THOUGHTFUL] == tables["kto"][0]["completion"] == tables["sft"][0]["completion"]
    assert tables["preference"][0]["prompt"][1] == THOUGHTFUL and tables["preference"][0]["rejected"][0]["reasoning_content"] is None
    told = [json.dumps(rows(tmp_path / "f" / name)[0]).count("<think>\\nhm\\n</think>") for name in ("preference.jsonl", "kto.jsonl", "sft.jsonl")]
    assert told == [2, 1, 1]


def test_without_thoughts_parquet_has_no_field_for_them(judged: Desk, tmp_path: Path) -> None:
    out, _ = exported(judged, tmp_path, "parquet")
    assert "reasoning_content" not in str(pyarrow.parquet.read_schema(out / "data" / "preference" / "train-00000-of-00001.parquet"))
