"""`tamer export` of a version, as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from learners.export.request import Exported
from learners.versions.blobs import write_directory
from storage.journal import Journal
from storage.progress import CancelledError
from storage.records import Activation, BaseModel, Prompt, Ranking, Response, SampleSet, Sitting, Version
from tamer_tui import model_export
from tamer_tui.cli import main
from tamer_tui.model_export import hub_id
from tamer_tui.session_store import SessionError, SessionStore


def tamer(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def taught(path: Path, base: BaseModel, files: dict[str, bytes]) -> Path:
    """A database whose version v1 acts and learned from one ranking of imported answers."""
    settings = {"model": base.name, "system": "Be kind.", "sampling": {"temperature": 0.5, "max_new_tokens": 9}, "peft_adapter": None}
    sha256 = write_directory(files, SessionStore.root_of(path)).name
    with Journal.open(path) as journal:
        journal.bind(base, Sitting("s", base.base_hash, "0", json.dumps(settings)))
        journal.write(SampleSet("x", "s", Prompt.of("hi"), 2))
        for slot in (0, 1):
            journal.write(Response.written_elsewhere(f"x{slot}", "x", slot, f"text {slot}", "hh"))
        journal.append(Ranking("x", {"x0": 1, "x1": 2})).result()
        journal.write(Version("v1", sha256, "base", "sft", True, "better", "published", (), 0, 2.5, 0.75)).result()
        journal.write(Activation("v1", "published")).result()
    return path


ADAPTER = {
    "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 2, "base_model_name_or_path": "/home/jo/model", "revision": None}).encode(),
    "adapter_model.safetensors": b"weights",
    "manifest.json": json.dumps({"seqs": [1]}).encode(),
    "human_reward.safetensors": b"not for others",
}


@pytest.mark.parametrize(
    ("name", "named"),
    [("org/model", "org/model"), ("/home/jo/.cache/huggingface/hub/models--org--model/snapshots/ab", "org/model"), ("pocket", None)],
)
def test_an_adapter_goes_out_with_its_bases_name_on_the_hub(tmp_path: Path, name: str, named: str | None) -> None:
    database = taught(tmp_path / "me.db", BaseModel("b" * 64, name, "nf4", 1_000), ADAPTER)
    found = tamer("export", database, "--format", "peft", "--out", tmp_path / "adapter")
    assert found.exit_code == 0 and found.output.startswith(f"{tmp_path / 'adapter'}: v1 of ")
    assert ("whoever loads the adapter has to name it" in found.output) == (named is None)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    assert config == {"peft_type": "LORA", "r": 2, "base_model_name_or_path": named, "revision": None}
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert ("base_model: org/model" in card) == (named is not None)
    assert "- 1 comparison or ranking" in card and "2.50 nats" in card and "/home/jo" not in card and str(tmp_path) not in card


def test_every_format_is_described() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert all(f"\n**`{name}`** " in text for name in model_export.FORMATS)


def test_names_of_bases_on_the_hub() -> None:
    assert hub_id("org/model") == "org/model" and hub_id("pocket") is hub_id("./model") is hub_id("/models/llama.gguf") is None
    assert hub_id("org/model", is_here=lambda name: True) is None


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    database = taught(tmp_path / "me.db", BaseModel("b" * 64, "org/model", "none"), ADAPTER)
    out = tmp_path / "out"
    for words, line in {
        "--format peft --version v9": "there is no published version v9",
        "--format peft --min-margin 0.5": "peft is a model and has no rows: leave out --min-margin",
        "--format trl-sft --version v1": "--version is for merged, peft, gguf, ollama",
        "--format nothing": "there is no format 'nothing'",
    }.items():
        found = tamer("export", database, "--out", out, *words.split())
        assert found.exit_code in (1, 2) and line in found.output and found.output.count("\n") == 1 and not out.exists()
    out.mkdir()
    found = tamer("export", database, "--out", out, "--format", "peft")
    assert found.exit_code == 1 and "is there already" in found.output
    assert tamer("export", database, "--out", out, "--format", "peft", "--force").exit_code == 0 and (out / "README.md").is_file()
    (SessionStore.root_of(database) / write_directory(ADAPTER, SessionStore.root_of(database)).name / "adapter_model.safetensors").write_bytes(b"?")
    found = tamer("export", database, "--out", tmp_path / "other", "--format", "peft")
    assert found.exit_code == 1 and "damaged" in found.output and not (tmp_path / "other").exists()


@pytest.mark.parametrize("where", ["me.db", ".", "me.db.versions", "sub/../me.db"])
def test_a_model_never_goes_over_its_database_nor_over_what_somebody_put_there(tmp_path: Path, where: str) -> None:
    project = tmp_path / "proj"
    (project / "sub").mkdir(parents=True)
    database = taught(project / "me.db", BaseModel("b" * 64, "org/model", "none"), ADAPTER)
    assert tamer("stats", database).exit_code == 0
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and not path.name.endswith("-shm")}
    found = tamer("export", database, "--format", "peft", "--force", "--out", project / where)
    assert found.exit_code == 1 and "it is no place for its export: give another --out\n" in found.output
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and not path.name.endswith("-shm")} == before
    out = tmp_path / "model"
    for _ in range(2):
        assert tamer("export", database, "--format", "peft", "--force", "--out", out).exit_code == 0
    (out / "trained").mkdir()
    (out / "trained" / "weights").write_text("a night of training")
    found = tamer("export", database, "--format", "peft", "--force", "--out", out)
    assert found.exit_code == 1 and "is not replaced: trained/weights in it is of no export" in found.output
    assert (out / "trained" / "weights").exists()


def test_a_database_in_which_no_version_acts_has_no_model(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "new.db") as journal:
        journal.bind(BaseModel("b" * 64, "org/model", "none"), Sitting("s", "b" * 64, "0", "{}"))
    found = tamer("export", tmp_path / "new.db", "--format", "merged", "--out", tmp_path / "out")
    assert found.exit_code == 1 and "no version acts in" in found.output


def test_the_learners_merge_in_a_process_of_their_own(tmp_path: Path, stories260k: Path) -> None:
    from learners.model.lora import LoraSettings, lora_state
    from learners.versions.files import Manifest, States, pack, peft_config
    from tests.learners.models import stirred, stories

    base, tree = stories(), stirred(stories())
    manifest = Manifest(base.base_hash, "base", "sft", 0, (1,), 0, 0.0, 16, 32.0)
    files = pack(States(lora_state(tree), {"w": next(iter(lora_state(tree).values()))}, {}, {}), manifest, peft_config(LoraSettings(), tree, "x"))
    database = taught(tmp_path / "me.db", BaseModel(base.base_hash, str(stories260k), "none", 260_032), files)
    found = tamer("export", database, "--format", "merged", "--out", tmp_path / "mine")
    assert found.exit_code == 0, found.output
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in (tmp_path / "mine").iterdir()}
    assert str(stories260k) not in (tmp_path / "mine" / "README.md").read_text()


def test_what_the_learners_say_against_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_export, "asked", lambda request, stage: Exported(error=f"no such directory: {request.model}", hint="pass another"))
    database = taught(tmp_path / "me.db", BaseModel("b" * 64, "org/model", "none"), ADAPTER)
    found = tamer("export", database, "--format", "gguf", "--out", tmp_path / "mine.gguf", "--model", "/nowhere/model")
    assert found.exit_code == 1 and "no such directory: /nowhere/model: pass another" in found.output and list(tmp_path.glob("*.gguf")) == []


def test_code_of_the_base_runs_only_where_whoever_exports_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not because a database says so, which may be somebody else's."""
    asked = []
    monkeypatch.setattr(model_export, "asked", lambda request, stage: asked.append(request.trust_remote_code) or Exported(error="no", hint="no"))
    database = taught(tmp_path / "me.db", BaseModel("b" * 64, "org/model", "none"), ADAPTER)
    for more in ((), ("--trust-remote-code",)):
        tamer("export", database, "--format", "merged", "--out", tmp_path / "mine", *more)
    assert asked == [False, True]
    found = tamer("export", database, "--format", "trl-sft", "--out", tmp_path / "x.jsonl", "--trust-remote-code")
    assert found.exit_code == 2 and "--trust-remote-code is for" in found.output


def test_a_cancelled_export_ends_the_other_side_and_leaves_nothing(tmp_path: Path) -> None:
    told: list[str] = []

    def cancel(what: str, done: int, of: int) -> None:
        told.append(what)
        raise CancelledError

    database = taught(tmp_path / "me.db", BaseModel("b" * 64, "org/model", "none"), ADAPTER)
    with pytest.raises(SessionError, match="cancelled: nothing was written"):
        model_export.export_model(database, tmp_path / "mine", model_export.Wanted("merged", "v1"), False, cancel)
    assert told == ["loading torch"] and not [path.name for path in tmp_path.iterdir() if "mine" in path.name]
