"""The wheel works without the repository: installed beside the libraries of this environment, run from elsewhere."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from tests.install.wheels import build_wheel, run, sees_only, use


@pytest.mark.timeout(900)  # five processes, one of them an engine: long on a machine that is busy
def test_the_program_runs_from_site_packages_alone(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    own = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip())
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "libraries.pth").write_text("\n".join(libraries))  # plain lines of sys.path: of editable installs there they show nothing
    wheel = build_wheel(tmp_path)
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], tmp_path)
    assert own in sees_only(python, tmp_path).parents
    use(environment / "bin" / "tamer", tmp_path)
