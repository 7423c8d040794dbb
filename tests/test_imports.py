"""What loads what: each package in a fresh interpreter, judged by `sys.modules`, not by reading its imports.

import-linter checks the same arrows in the source; here imports count that a dependency or a plug-in brings along.
That `tamer --version` loads nothing heavy is tested with the other commands.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TORCH = {"torch", "transformers", "peft", "bitsandbytes"}
FROM_LEARNERS = {
    "learners",
    "learners.protocol",
    "learners.link",
    "learners.versions",
    "learners.versions.blobs",
    "learners.feedback",
    "learners.feedback.tap_credit",
    "learners.feedback.samples",
    "learners.export",
    "learners.export.request",
    "learners.model",
    "learners.model.checkpoint",
    "learners.model.fp8",
    "learners.train",
    "learners.train.request",
}


def modules_of(package: str) -> list[str]:
    """Dotted names of all modules of a package, the package first."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return sorted(name.removesuffix(".__init__") for name in names)


def loaded_after(*modules: str) -> set[str]:
    """All modules that a fresh interpreter has loaded once these are imported."""
    code = "import importlib, json, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def written_imports(path: Path) -> set[str]:
    """First words of every import in a file, those inside functions and under TYPE_CHECKING included."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}}


def test_the_whole_terminal_loads_no_torch_and_of_the_learners_only_the_protocol() -> None:
    loaded = loaded_after(*modules_of("tamer_tui"))
    assert not loaded & TORCH
    assert {name for name in loaded if name.split(".")[0] == "learners"} <= FROM_LEARNERS


def test_the_store_loads_neither_torch_nor_textual_nor_another_package_of_ours() -> None:
    assert not loaded_after(*modules_of("storage")) & (TORCH | {"textual", "learners", "tamer_tui"})


def test_the_learners_load_neither_textual_nor_the_database_nor_the_terminal() -> None:
    loaded = loaded_after(*modules_of("learners"))
    assert loaded >= {"torch", "learners.engine.process"}  # so the other tests' "no torch" can fail
    assert not loaded & {"textual", "sqlite_utils", "tamer_tui"}
    assert {name for name in loaded if name.split(".")[0] == "storage"} == {"storage", "storage.limits", "storage.records", "storage.thoughts"}


@pytest.mark.parametrize("module", sorted(FROM_LEARNERS))
def test_what_the_terminal_takes_from_the_learners_loads_no_torch_and_no_database(module: str) -> None:
    assert not loaded_after(module) & (TORCH | {"safetensors", "numpy", "textual", "sqlite3"})


def test_a_sitting_is_driven_without_textual() -> None:
    assert not loaded_after("tamer_tui.session", "tamer_tui.simulate", "tamer_tui.generate", "tamer_tui.reports") & {"textual", "torch"}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("tamer_tui", TORCH | {"sqlite3", "sqlite_utils"}),
        ("learners", {"sqlite3", "sqlite_utils", "textual", "tamer_tui"}),
        ("storage", TORCH | {"textual", "learners", "tamer_tui"}),
    ],
)
def test_no_file_imports_what_its_package_may_not_even_late(package: str, forbidden: set[str]) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert {path.name: found for path in files if (found := written_imports(path) & forbidden)} == {}
