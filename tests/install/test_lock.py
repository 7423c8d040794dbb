"""The lock file says the same as the constraints, and every file in it has a hash."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install.wheels import ROOT

EXTRAS = ("gguf", "parquet", "serve", "web")
LOCK = (ROOT / "requirements.lock").read_text()
ENTRIES = [entry for entry in re.split(r"\n(?=[A-Za-z])", LOCK) if not entry.startswith("#")]


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([\w.-]+)==([^\s;\\]+)", line) for line in lines)
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def test_every_version_that_is_locked_is_the_one_that_tests_run_with() -> None:
    locked, tested = pins(ENTRIES), pins((ROOT / "constraints.txt").read_text().splitlines())
    assert len(locked) == len(ENTRIES) > 50
    assert {name: version for name, version in locked.items() if tested.get(name, version) != version} == {}


def test_all_that_the_program_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    locked = pins(ENTRIES)
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_every_entry_has_hashes_and_names_no_place() -> None:
    assert all("--hash=sha256:" in entry for entry in ENTRIES)
    assert "://" not in LOCK and "--index-url" not in LOCK and "--find-links" not in LOCK
