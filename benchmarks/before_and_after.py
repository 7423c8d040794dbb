"""This tree and an earlier commit side by side: each a child process over its own modules, asked in turn (see training_workload.py)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "ce5d47c"


class Child:
    """One tree's workload."""

    def __init__(self, tree: Path, model: str, quantize: str, device: str) -> None:
        environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(ROOT / "benchmarks" / "training_workload.py"), model, quantize, device]
        self._process = subprocess.Popen(command, cwd=tree, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._read()

    def measure(self, work: str, prompt: int, answer: int, answers: int, each: int) -> dict[str, float]:
        """Seconds and bytes of one step."""
        asked = {"work": work, "prompt": prompt, "answer": answer, "answers": answers, "each": each}
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the workload ended with code {self._process.wait()}")
        return json.loads(line)


@contextlib.contextmanager
def extracted(commit: str) -> Iterator[Path]:
    """The tree of a commit, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="tamer-before-") as directory:
        archive = Path(directory) / "tree.tar"
        subprocess.run(["git", "-C", str(ROOT), "archive", "--output", str(archive), commit], check=True)
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
        yield Path(directory)
