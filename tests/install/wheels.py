"""The program as others get it: a wheel, in an environment that does not see the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPERATOR = "def judge(prompt, responses):\n    return [-len(response) for response in responses]\n"
LOOK = """
import json, learners, storage, tamer_tui
from tamer_tui.prompts import pocket_prompts, starter_prompts
prompts = [len(pocket_prompts()), len(starter_prompts(True)), len(starter_prompts(False))]
print(json.dumps({"at": tamer_tui.__file__, "prompts": prompts}))
"""


def run(command: Sequence[str | Path], cwd: Path, **more: str) -> str:
    """What it prints; everything that it prints where it fails. It knows nothing of this checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "TAMER_"))} | more
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Of this checkout, with the build backend that is installed."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def sees_only(python: Path, folder: Path) -> Path:
    """Where an interpreter finds the program; it must not be this checkout."""
    found = json.loads(run([python, "-c", LOOK], folder))
    assert ROOT not in Path(found["at"]).parents and min(found["prompts"]) > 10
    return Path(found["at"])


def use(tamer: Path, folder: Path) -> None:
    """The commands that need what is shipped: metadata, Pocket's weights, the engine as a child."""
    words = ("hot", "big", "old", "wet", "up", "in", "far", "hard")
    (folder / "prompts.txt").write_text("".join(f"What is the opposite of {word}?\n" for word in words))
    (folder / "taste.py").write_text(OPERATOR)
    assert run([tamer, "--version"], folder).startswith("tamer 0.")
    examined = json.loads(run([tamer, "doctor", "--json"], folder))
    assert examined["problems"] == [] and examined["packages"]["torch"], examined
    shape = ["--prompts", "prompts.txt", "--rounds", "2", "-k", "2", "--max-new-tokens", "4", "--json"]
    outcome = json.loads(run([tamer, "simulate", "a.db", "--operator", "taste.py:judge", *shape], folder))
    assert outcome["rounds"] == 2 and outcome["wins"] + outcome["ties"] + outcome["losses"] > 0
    assert "as they were written" in run([tamer, "verify", "a.db"], folder)
