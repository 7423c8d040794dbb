"""Recipes in the hands of the engines' own parsers: TRL's where it is installed; OpenRLHF's and verl's where at least their files are.

Those two need a GPU's libraries to be imported, so their parser and their settings are read from the source: `pip install --no-deps openrlhf verl`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from storage.records import Prompt
from tamer_tui import recipes
from tamer_tui.recipes import Task

TASK = Task([Prompt.of(f"Question {i}?") for i in range(12)], 8, 128, 0.7, True)


def command_of(files: dict[str, str], tmp_path: Path) -> list[str]:
    """The words that run.sh hands to the engine."""
    (tmp_path / "run.sh").write_text(files["run.sh"])
    for name in ("trl", "python3"):
        (tmp_path / name).write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "REWARD_URL": "http://there:5001"}
    return subprocess.run(["bash", tmp_path / "run.sh"], env=environment, capture_output=True, check=True, text=True).stdout.splitlines()


def folder_of(package: str) -> Path:
    """Of a package's source, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(found.submodule_search_locations[0])


def test_trl_reads_its_settings(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, TrlParser
    from trl.scripts.grpo import GRPOScriptArguments

    files = recipes.trl(TASK)
    (tmp_path / "config.yaml").write_text(files["config.yaml"].replace("bf16: true", "bf16: false"))  # which a machine without a GPU refuses
    assert command_of(files, tmp_path)[:3] == ["grpo", "--config", "config.yaml"]
    parser = TrlParser((GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig))
    script, training, model, _ = parser.parse_args_and_config(["--config", str(tmp_path / "config.yaml")])
    assert script.reward_funcs == ["reward.score"] and script.dataset_name == "./data" and model.model_name_or_path == "./policy"
    assert training.beta == 0.05 and training.num_generations == 8 and training.max_completion_length == 128 and training.temperature == 0.7


def test_openrlhf_takes_every_option(tmp_path: Path) -> None:
    source = (folder_of("openrlhf") / "cli" / "train_ppo_ray.py").read_text()
    main = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    declared = [node for node in main.body if not isinstance(node, ast.ImportFrom | ast.Import)]
    end = next(i for i, node in enumerate(declared) if isinstance(node, ast.Assign) and "parse_args" in ast.unparse(node))
    scope: dict[str, Any] = {"argparse": argparse, "datetime": datetime}
    exec(compile(ast.Module(declared[:end], []), "train_ppo_ray", "exec"), scope)
    words = command_of(recipes.openrlhf(TASK), tmp_path)
    assert words[:2] == ["-m", "openrlhf.cli.train_ppo_ray"]
    said = vars(scope["parser"].parse_args(words[2:]))
    assert said["reward.remote_url"] == "http://there:5001" and said["vllm.num_engines"] == 8 and said["data.apply_chat_template"]
    assert said["rollout.n_samples_per_prompt"] * said["rollout.batch_size"] % said["train.batch_size"] == 0
    assert said["critic.model_name_or_path"] == str(tmp_path / "reward")


def test_verl_has_every_setting(tmp_path: Path) -> None:
    import yaml

    settings = yaml.safe_load((folder_of("verl") / "trainer" / "config" / "_generated_ppo_trainer.yaml").read_text())
    words = command_of(recipes.verl(TASK), tmp_path)
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    said = dict(word.split("=", 1) for word in words[2:])
    for name in said:
        place: Any = settings
        for part in name.split("."):
            assert isinstance(place, dict) and part in place, f"verl has no setting {name}"
            place = place[part]
        assert not isinstance(place, dict), f"{name} is no single setting"
    assert int(said["data.train_batch_size"]) % int(said["actor_rollout_ref.actor.ppo_mini_batch_size"]) == 0
