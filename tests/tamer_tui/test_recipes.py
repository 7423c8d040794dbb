"""Recipes for other people's engines: folders with all that a run takes. The engines' own parsers read them in tests/exports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from learners.export.request import Exported, ExportRequest
from storage.exchange.importing import import_file
from storage.journal import Journal
from storage.records import BaseModel
from tamer_tui import model_export
from tamer_tui.recipes import RECIPES
from tests.tamer_tui.test_model_export import ADAPTER, tamer, taught


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the judgements of twelve prompts. The learners' side is played by a stand-in: its own tests are in tests/learners/export."""
    path = taught(tmp_path / "me.db", BaseModel("b" * 64, "org/model", "none", 1_000), ADAPTER)
    rows = [{"prompt": f"Question {i}?", "chosen": f"Yes {i}.", "rejected": f"No {i}."} for i in range(11)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Journal.open(path) as journal:
        import_file(journal, tmp_path / "rows.jsonl")

    def asked(request: ExportRequest, *_: object) -> Exported:
        assert request.format == "recipe" and request.model == "org/model"
        (Path(request.out) / "policy").mkdir()
        (Path(request.out) / "policy" / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x" if request.name != "plain" else None}))
        return Exported()

    monkeypatch.setattr(model_export, "asked", asked)
    return path


@pytest.mark.parametrize("format", RECIPES)
def test_a_recipe_has_prompts_judgements_and_a_command_that_runs(database: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "recipe"
    found = tamer("export", database, "--format", format, "--out", out)
    assert found.exit_code == 0 and "12 prompts; 12 rows in preference.jsonl" in found.output, found.output
    rows = [json.loads(line) for line in (out / "data" / "prompts.jsonl").read_text().splitlines()]
    asked = [row["prompt"] for row in rows]
    assert [{"role": "user", "content": "Question 3?"}] in asked
    if format == "verl-recipe":
        assert json.loads(rows[0]["extra_info"]["messages"]) == asked[0]
    assert "reward_offset" in (out / "README.md").read_text() and str(tmp_path) not in (out / "run.sh").read_text()
    said = run(out, tmp_path)
    assert said[0] in ("trl", "python3") and said[-1] == "--seed=1"
    assert str(out / "policy") in " ".join(said) or said[:4] == ["trl", "grpo", "--config", "config.yaml"]


def run(out: Path, tmp_path: Path) -> list[str]:
    """The command that run.sh comes to, with stand-ins for the engines."""
    for name in ("trl", "python3"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@"\n')
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "REWARD_URL": "http://there:5001"}
    done = subprocess.run([out / "run.sh", "--seed=1"], env=environment, capture_output=True, check=True, cwd="/")
    return done.stdout.decode().splitlines()


def test_without_a_chat_template_prompts_are_texts_and_verl_is_refused(database: Path, tmp_path: Path) -> None:
    assert tamer("export", database, "--format", "trl-recipe", "--out", tmp_path / "plain").exit_code == 0
    assert "Question 3?" in [json.loads(line)["prompt"] for line in (tmp_path / "plain" / "data" / "prompts.jsonl").read_text().splitlines()]
    (tmp_path / "plain").rename(tmp_path / "other")
    (tmp_path / "plain.manifest.json").unlink()
    found = tamer("export", database, "--format", "verl-recipe", "--out", tmp_path / "plain")
    assert found.exit_code == 1 and "verl takes models with a chat template alone" in found.output and not (tmp_path / "plain").exists()


def test_too_few_prompts_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_export, "asked", lambda *_: Exported())
    few = taught(tmp_path / "few.db", BaseModel("b" * 64, "org/model", "none", 1_000), ADAPTER)
    found = tamer("export", few, "--format", "trl-recipe", "--out", tmp_path / "out")
    assert found.exit_code == 1 and "has 1 judged prompts: too few" in found.output and not (tmp_path / "out").exists()
