"""`tamer train`, as a person types it: the plan, the run's folder, the process that trains, the version in the database."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from learners.protocol import Gated, Metrics, Ready, Replay, decode_command
from learners.train.request import LESSONS, VERSIONS, Planned, Rebuilt, StageCost, read_request
from learners.versions.blobs import write_directory
from storage.journal import Journal
from storage.queries import Record
from storage.records import BaseModel, Peek, Prompt, Ranking, Response, Run, SampleSet, Sampling, Sitting, Undo
from tamer_tui.cli import main
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.train import TimeLeft, plan_in_words, record_version
from tamer_tui.upkeep import verify

BASE = BaseModel("b" * 64, "stories", "none", 1_000)
READY = Ready(
    base_hash="b" * 64, model="stories", layers=1, parameters=1_000, vocabulary=10, width=4, device="cpu", quantize="none", memory_bytes=1,
    base_bytes=1, context=64, chat_template=False, sampling=Sampling(),
)  # fmt: skip


def tamer(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """Five rankings, one of them undone, and a peek."""
    sampling = {"temperature": 0.5, "max_new_tokens": 9}
    settings = {"model": "pocket", "nats": 9.0, "thinking": "auto", "bias": False, "sampling": sampling, "unset": ["top_p"]}
    path = tmp_path / "me.db"
    with Journal.open(path) as journal:
        journal.bind(BASE, Sitting("s", BASE.base_hash, "0", json.dumps(settings)))
        for i in range(5):
            journal.write(SampleSet(f"x{i}", "s", Prompt.of(f"question {i}"), 2))
            for slot in (0, 1):
                journal.write(Response.written_elsewhere(f"x{i}/{slot}", f"x{i}", slot, f"text {slot}", "hh"))
            journal.append(Ranking(f"x{i}", {f"x{i}/0": 1, f"x{i}/1": 2}))
        journal.append(Undo(5)).result()
        journal.append(Peek("x0")).result()
    return path


def test_a_runs_folder_holds_the_live_judgements_and_the_last_sittings_settings(taught: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tamer("train", taught, "--out", run, "--model", "pocket", "--prepare", "--seed", 7)
    assert done.exit_code == 0, done.output
    assert "accelerate launch -m learners.train" in done.output
    lines = [decode_command(line) for line in (run / LESSONS).read_bytes().splitlines()]
    assert [lesson.seq for line in lines if isinstance(line, Replay) for lesson in line.lessons] == [1, 2, 3, 4]
    request = read_request(run)
    assert (request.base_hash, request.load.nats, request.load.bias, request.load.seed) == (BASE.base_hash, 9.0, False, 7)
    assert (request.load.sampling.temperature, request.load.sampling.max_new_tokens) == (0.5, 9)
    assert request.load.metered
    assert run.stat().st_mode & 0o077 == 0, "nobody else reads what was judged"
    again = tamer("train", taught, "--out", run, "--model", "pocket", "--prepare", "--seed", 7)
    assert again.exit_code == 0 and read_request(run) == request
    other = tamer("train", taught, "--out", run, "--model", "pocket", "--prepare", "--seed", 8)
    assert other.exit_code == 1
    assert other.output.strip() == f"Error: {run} holds another run: other judgements, settings or options: give another --out"
    assert read_request(run) == request


def test_what_is_left_out_is_said_with_the_reason(taught: Path) -> None:
    with Record(taught) as record:
        left_out = record.teaches_nothing()
        assert left_out == {"undone, or said anew": 1, "skips, peeks and the like": 1}
        assert sum(left_out.values()) + len(record.teaching()) == record.counts().undone + 4 + 1
    costs = (StageCost("distill", 60, 1200, 30.0),)
    plan = Planned(judgements=4, carried=4, left_out={"taps mean nothing to another base": 3}, stages=costs, memory_bytes=2 * 10**9)
    assert plan_in_words(plan, READY, left_out).splitlines() == [
        "4 judgements are used, 4 of them by their texts alone; left out:",
        "  1: undone, or said anew",
        "  1: skips, peeks and the like",
        "  3: taps mean nothing to another base",
        "  distill      60 steps         1,200 tokens   about 30 s",
        "about 30 s in all, and 2.0 GB of memory on cpu",
    ]


def test_what_cannot_be_done_is_one_line(taught: Path, tmp_path: Path) -> None:
    assert "needs --out DIR" in tamer("train", taught).output
    missing = tamer("train", tmp_path / "none.db", "--out", tmp_path / "run")
    assert missing.exit_code == 1 and missing.output.count("\n") == 1
    wrong = tamer("train", taught, "--out", tmp_path / "run", "--stages", "sft,dpo")
    assert wrong.exit_code == 2 and "--stages takes some of" in wrong.output
    assert "--stages reward trains no policy" in tamer("train", taught, "--out", tmp_path / "run", "--model", "pocket", "--stages", "reward").output
    launcher = tamer("train", taught, "--out", tmp_path / "run", "--model", "pocket", "--launch", "/no/such/launcher --with options")
    assert launcher.exit_code == 1 and "/no/such/launcher cannot be started" in launcher.output
    (tmp_path / "file").write_text("")
    assert tamer("train", taught, "--out", tmp_path / "file" / "run", "--model", "pocket", "--prepare").exit_code == 1


def test_a_result_becomes_a_version_with_its_runs_once_and_only_of_its_base(taught: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sha256 = write_directory({"adapter_model.safetensors": b"weights", "manifest.json": b"{}"}, folder / VERSIONS).name
    gated = Gated(
        sha256=sha256, parent="base", stage="distill", published=True, reason="better", reason_code="published", runs=("r1",), seed=3, kl=4.5
    )
    refused = msgspec.structs.replace(gated, sha256="", published=False, reason_code="worse", stage="ppo", runs=("r2",))
    runs = Run("r1", "distill", (1, 2, 3, 4), 3, 60, 1.0, "{}"), Run("r2", "ppo", (1, 2, 3, 4), 3, 6, 1.0, "{}")
    rebuilt = Rebuilt(ready=READY, sha256=sha256, adapter_sha256="a", gated=(gated, refused), runs=runs)
    with pytest.raises(SessionError, match="belongs to stories, and this policy to another base"):
        record_version(taught, folder, msgspec.structs.replace(rebuilt, ready=msgspec.structs.replace(READY, base_hash="c" * 64)))
    assert record_version(taught, folder, rebuilt) == f"v1 of {taught}: the next sitting acts with it"
    assert record_version(taught, folder, rebuilt) == f"v1 of {taught} is this policy already"
    with Record(taught) as record:
        (version,) = record.versions()
        assert (version.id, version.stage, version.kl, version.seed) == ("v1", "distill", 4.5, 3)
        assert record.acting_version() == version
        assert {run.uid for run in record.runs()} == {"r1", "r2"}
        assert record.settings()["nats"] == 9.0, "the settings of the last sitting are still known"
    assert (SessionStore.root_of(taught) / sha256 / "manifest.json").exists()
    assert not verify(taught).problems


def test_the_time_left_is_the_plans_corrected_by_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tamer_tui.train.time.monotonic", lambda: now)
    plan = Planned(judgements=4, stages=(StageCost("distill", 10, 1, 20.0), StageCost("ppo", 10, 1, 80.0)))
    left = TimeLeft(plan, 100.0)
    assert left.after(Metrics(stage="gate", step=1, of=1)) is None
    assert left.after(Metrics(stage="distill", step=0, of=10)) == 100.0
    now = 140.0
    assert left.after(Metrics(stage="distill", step=10, of=10)) == pytest.approx(160.0), "it takes twice as long as was planned"


def test_a_policy_comes_out_of_an_imported_file_without_a_screen(stories260k: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Once upon a time, there was a {noun}", "chosen": " who smiled.", "rejected": " who cried. It was a sad day."}
        for noun in ("dog", "cat", "girl", "king")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    database, run = tmp_path / "me.db", tmp_path / "run"
    imported = tamer("import", database, tmp_path / "pairs.jsonl", "--yes")
    assert imported.exit_code == 0, imported.output
    assert "pass --model" in tamer("train", database, "--out", run).output
    words = ("--model", stories260k, "--max-new-tokens", 6, "--stages", "distill", "--no-bias")
    trained = CliRunner().invoke(main, ["train", str(database), "--out", str(run), *map(str, words), "--json"])
    assert trained.exit_code == 0, trained.output
    assert "distill: published" in trained.stderr
    found = json.loads(trained.stdout)
    done = tamer("train", database, "--out", run, *words, "--record")
    assert done.exit_code == 0 and "the next sitting acts with it" in done.output, "a run that is done is not done again"
    with Record(database) as record:
        acting = record.acting_version()
        assert acting is not None and (acting.stage, acting.sha256) == ("distill", found["sha256"])
        assert [(each.stage, each.steps, len(each.seqs)) for each in record.runs()] == [("distill", 60, 4)]
    assert not verify(database).problems
