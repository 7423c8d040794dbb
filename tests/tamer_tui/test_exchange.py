"""`tamer export` and `tamer import` as a person runs them, and answers in steps from taps and spans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storage.journal import Journal
from storage.queries import Record
from storage.records import BaseModel, Prompt, Response, SampleSet, Sampling, Shown, Sitting, Span, Tap
from tamer_tui.cli import main
from tamer_tui.exchange import sentences, steps
from tamer_tui.generate import Generated
from tamer_tui.views import SessionSettings


def tamer(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"What is {i}?", "chosen": "A number.", "rejected": "No idea, jo@mail.example"} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_judgements_from_elsewhere_come_in_and_go_out(tmp_path: Path, pairs: Path) -> None:
    database, out = tmp_path / "new.db", tmp_path / "out.jsonl"
    assert tamer("import", database, pairs, "--format", "trl-preference").output == "20 judgements added\n"
    assert tamer("import", database, pairs, "--format", "trl-preference").output == "0 judgements added, 20 were there before\n"
    found = tamer("export", database, "--format", "trl-preference", "--out", out, "--redact", "--split-by-prompt", "0.3")
    assert found.exit_code == 0 and found.output.splitlines()[1] == "redacted: 20 e-mail"
    assert len((tmp_path / "out.train.jsonl").read_text().splitlines()) + len((tmp_path / "out.test.jsonl").read_text().splitlines()) == 20
    again = tamer("export", database, "--format", "trl-preference", "--out", out, "--split-by-prompt", "0.3")
    assert again.exit_code == 1 and "is there already: give another --out, or --force to replace it" in again.output
    assert tamer("verify", database).exit_code == 0


def test_malformed_lines_are_one_line(tmp_path: Path, pairs: Path) -> None:
    pairs.write_text(pairs.read_text() + "oops\n")
    found = tamer("import", tmp_path / "new.db", pairs, "--format", "trl-preference")
    assert found.exit_code == 1 and found.output.count("\n") == 1 and "line 21: no JSON: nothing was imported: --skip-bad" in found.output
    assert tamer("import", tmp_path / "new.db", pairs, "--format", "trl-preference", "--skip-bad").output == (
        "20 judgements added\n1 lines left out: line 21: no JSON\n"
    )


@pytest.mark.parametrize("words", ["--format csv --out x", "--format trl-kto --out x --split-by-prompt 1.5", "--out x"])
def test_what_makes_no_sense_is_one_line(tmp_path: Path, pairs: Path, words: str) -> None:
    tamer("import", tmp_path / "new.db", pairs, "--format", "trl-preference")
    found = tamer("export", tmp_path / "new.db", *words.split())
    assert found.exit_code in (1, 2) and found.output.count("\n") == 1 and "Traceback" not in found.output


def test_what_a_version_says_now_is_a_column(tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tamer("import", tmp_path / "new.db", pairs, "--format", "trl-preference")
    asked: list[object] = []

    def generated(settings: SessionSettings, prompts: list[Prompt], database: Path, version: str, *rest: object) -> list[tuple[Prompt, Generated]]:
        asked.append((settings.sampling, version, len(prompts)))
        said = [Generated(prompt.text, f"said to {prompt.text}, jo@mail.example", version, -1.0, 3, "eos") for prompt in prompts]
        return list(zip(prompts, said, strict=True))[1:]  # the model cannot read the first

    monkeypatch.setattr("tamer_tui.generate.generated", generated)
    words = ("export", tmp_path / "new.db", "--format", "trl-preference", "--version-answers", "base", "--redact")
    assert tamer(*words, "--out", tmp_path / "out.jsonl").exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["version_answer"] for row in rows] == [None, *(f"said to What is {i}?, [e-mail]" for i in range(1, 20))]
    assert asked == [(Sampling(1.0, 80), "base", 20)]
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_bytes())["options"]["version_answers"] == "base"
    for format, line in {"parquet": "has no other columns: leave out --version-answers", "trl-stepwise": "steps are of the answers"}.items():
        found = tamer("export", tmp_path / "new.db", "--format", format, "--version-answers", "base", "--out", tmp_path / format)
        assert found.exit_code == 1 and line in found.output and found.output.count("\n") == 1


# --- steps -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three", ("One. ", "Two! ", "Three")), ("", ("",)), ("No end", ("No end",)),
        ('He said "hi." Then left.', ('He said "hi." ', "Then left.")),
        ("a\n\nb", ("a\n\n", "b")), ("...", ("...",)), ("3.14 by jo@a.b.c! Yes.", ("3.14 by jo@a.b.c! ", "Yes.")), ("\n\nx.", ("\n\n", "x.")),
        ("." * 100_000 + "a", ("." * 100_000 + "a",)), ("Really?! Yes.", ("Really?! ", "Yes.")),
    ],
)  # fmt: skip
def test_sentences_make_up_the_text(text: str, parts: tuple[str, ...]) -> None:
    assert sentences(text) == parts and "".join(sentences(text)) == text


@pytest.fixture
def tapped(tmp_path: Path) -> Path:
    """'Good one. Bad two. Three.' at six words a second, blamed while 'two.' was read; and an answer with marked sentences."""
    path = tmp_path / "tapped.db"
    words = ("Good", " one.", " Bad", " two.", " Three.")
    with Journal.open(path) as journal:
        journal.bind(BaseModel("b" * 64, "toy", "none"), Sitting("i1", "b" * 64, "0", "{}"))
        for uid, text in (("s1", "".join(words)), ("s2", "Fine. Not fine. Who knows.")):
            journal.write(SampleSet(uid, "i1", Prompt.of(uid), 1))
            journal.write(Response(f"{uid}a", uid, 0, "base", "base", 0, 0.0, 1, Sampling(), (), (), text, (), (), (), "eos", 0.0))
        times = tuple(10 + i * 0.5 for i in range(5))
        journal.write(Shown("s1", "s1a", 0, (1, 2, 3, 4, 5), words, times, (0,) * 5, (0.0,) * 5)).result()
        journal.append(Tap("s1", "s1a", -1.0, "-", 11.5 + 0.5, "")).result()  # 0.2 to 0.8 s before it: ' Bad', ' two.'
        journal.append(Span("s2", "s2a", 6, 15, "wrong", -1.0)).result()
        journal.append(Span("s2", "s2a", 0, 5, "nothing said", None)).result()
    return path


def test_a_sentence_is_fine_unless_it_was_blamed(tapped: Path) -> None:
    with Record(tapped) as record:
        one, two = steps(record)
        assert (one.sentences, one.good) == (("Good one. ", "Bad two. ", "Three."), (True, False, True))
        assert (two.sentences, two.good) == (("Fine. ", "Not fine. ", "Who knows."), (True, False, True))
        assert [found.messages[0].content for found in (one, two)] == ["s1", "s2"]
        assert [found.messages[0].content for found in steps(record, since=2)] == ["s2"]
    out = tapped.with_name("steps.jsonl")
    assert tamer("export", tapped, "--format", "trl-stepwise", "--out", out).exit_code == 0
    expected = {"prompt": "s2", "completions": ["Fine. ", "Not fine. ", "Who knows."], "labels": [True, False, True]}
    assert json.loads(out.read_text().splitlines()[1]) == expected
