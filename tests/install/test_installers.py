"""The wheel in environments of nothing but Python: installed with all it needs by pip, pipx and uv, each anew.

    make test-install

Takes minutes and downloads torch, so it runs when it is asked for. TAMER_TEST_INSTALL names the installers, or 1 for all.
"""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path

import pytest

from tests.install.wheels import ROOT, build_wheel, run, sees_only, use

ASKED = os.environ.get("TAMER_TEST_INSTALL", "")
INSTALLERS = ("pip", "pipx", "uv")
CONSTRAINTS = ROOT / "constraints.txt"
pytestmark = [pytest.mark.skipif(not ASKED, reason="make test-install runs it"), pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def tool(name: str) -> Path:
    """Of this environment, or of the system."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"there is no {name}: pip install 'tamer-tui[release]'")
    return Path(found)


def installed_by(installer: str, wheel: Path, folder: Path) -> tuple[Path, Path]:
    """The command, and an interpreter that sees what was installed."""
    tools, binaries = folder / "tools", folder / "bin"
    if installer == "pip":
        venv.create(folder / "environment", with_pip=True)
        run([folder / "environment" / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, wheel], folder)
        return folder / "environment" / "bin" / "tamer", folder / "environment" / "bin" / "python"
    if installer == "pipx":
        pipx = [tool("pipx"), "install", "--quiet", f"--pip-args=-c {CONSTRAINTS}", wheel]
        run(pipx, folder, PIPX_HOME=str(tools), PIPX_BIN_DIR=str(binaries))
        return binaries / "tamer", tools / "venvs" / "tamer-tui" / "bin" / "python"
    uv = [tool("uv"), "tool", "install", "--quiet", "--no-python-downloads", "--constraints", CONSTRAINTS, wheel]
    run(uv, folder, UV_TOOL_DIR=str(tools), UV_TOOL_BIN_DIR=str(binaries))
    return binaries / "tamer", tools / "tamer-tui" / "bin" / "python"


@pytest.mark.parametrize("installer", INSTALLERS if ASKED in ("", "1") else ASKED.split(","))
def test_an_installer_brings_all_that_the_program_needs(installer: str, wheel: Path, tmp_path: Path) -> None:
    tamer, python = installed_by(installer, wheel, tmp_path)
    sees_only(python, tmp_path)
    use(tamer, tmp_path)
