"""`tamer doctor`: what is here, what is missing, and what to do. Torch is asked in a child process."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import msgspec
from msgspec import Struct

from tamer_tui import __version__
from tamer_tui.text import size_of

PACKAGES = ("textual", "torch", "transformers", "peft", "bitsandbytes", "sqlite-utils")
SURVEY_SECONDS = 120
FEWEST_COLUMNS, FEWEST_ROWS = 80, 24


class ModelSize(Struct, frozen=True):
    """See learners/model/inspection.py."""

    name: str
    parameters: int
    layers: int
    width: int
    quantize: str
    base_bytes: int
    roles_bytes: int
    experts: int = 0
    drawing: dict[str, float] = {}
    converted_bytes: int = 0


class Findings(Struct, frozen=True):
    """See learners/model/inspection.py."""

    torch: str = ""
    device: str = ""
    memory: int = 0
    problems: tuple[str, ...] = ()
    model: ModelSize | None = None


class Report(Struct, frozen=True):
    """What `tamer doctor --json` prints."""

    tamer: str
    python: str
    sqlite: str
    packages: dict[str, str]
    device: str
    memory: int
    terminal: str
    problems: tuple[str, ...]
    model: ModelSize | None

    @property
    def healthy(self) -> bool:
        return not self.problems

    def as_json(self) -> str:
        return msgspec.json.encode(self).decode()

    def as_text(self) -> str:
        lines = [f"tamer {self.tamer}, Python {self.python}, SQLite {self.sqlite}"]
        lines.append(", ".join(f"{name} {found}" for name, found in self.packages.items()))
        lines.append(f"device: {self.device or 'unknown'}" + (f" with {size_of(self.memory)}" if self.memory else ""))
        lines.append(f"terminal: {self.terminal}")
        if self.model is not None:
            m = self.model
            lines.append(f"{m.name}: {m.parameters:,} parameters, {m.layers} layers, width {m.width}, quantized: {m.quantize}")
            if m.experts:
                kept = "" if m.quantize in ("nf4", "fp4") else ", stay as they are"
                lines.append(f"of these {m.experts:,} are in routed experts, which carry no adapter{kept}")
            if m.drawing:
                own = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in m.drawing.items())
                lines.append(f"its own settings draw answers with {own}: options go before them")
            if m.converted_bytes:
                lines.append(f"it is converted once into the cache, which takes {size_of(m.converted_bytes)} of disk")
            lines.append(f"memory, about: base {size_of(m.base_bytes)}, all roles beside it {size_of(m.roles_bytes)}, and what answers need")
        lines += [f"problem: {problem}" for problem in self.problems] or ["no problems found"]
        return "\n".join(lines)


def examine(model: str | None, quantize: str) -> Report:
    """Look at everything."""
    from storage.database import sqlite_version

    found = _inspect(model, quantize)
    packages = {name: _installed(name) for name in PACKAGES}
    missing = tuple(f"{name} is not installed: make setup" for name, number in packages.items() if number == "missing")
    terminal, doubts = _terminal()
    return Report(
        __version__,
        platform.python_version(),
        sqlite_version(),
        packages,
        found.device,
        found.memory,
        terminal,
        (*missing, *found.problems, *doubts),
        found.model,
    )


def _terminal() -> tuple[str, tuple[str, ...]]:
    """What the Arena would be painted on, and what stands in its way there."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "none here: the Arena needs one", ()
    name, (columns, rows), encoding = os.environ.get("TERM", ""), shutil.get_terminal_size(), sys.stdout.encoding
    doubts = []
    if name in ("", "dumb"):
        doubts.append(f"TERM is {name!r}, which paints nothing: use a terminal such as xterm-256color")
    if encoding.lower().replace("-", "") != "utf8":
        doubts.append(f"the terminal's encoding is {encoding}: set LANG=C.UTF-8")
    if columns < FEWEST_COLUMNS or rows < FEWEST_ROWS:
        doubts.append(f"the terminal has {columns}x{rows} characters: make it {FEWEST_COLUMNS}x{FEWEST_ROWS} at least")
    return f"{name or 'unknown'}, {columns}x{rows}, {encoding}", tuple(doubts)


def _inspect(model: str | None, quantize: str) -> Findings:
    command = [sys.executable, "-m", "learners.model.inspection", *([model, quantize] if model else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SURVEY_SECONDS, check=False)
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Findings)
    except (subprocess.TimeoutExpired, IndexError, msgspec.DecodeError):
        return Findings(problems=("the learners cannot be asked: python -m learners.model.inspection says why",))


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
