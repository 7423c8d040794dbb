"""`tamer models`: models to begin with, what fits this machine first. Torch is asked in a child process."""

from __future__ import annotations

import subprocess
import sys

import msgspec
from msgspec import Struct

SECONDS = 120


class Offer(Struct, frozen=True):
    """See learners/model/catalogue.py."""

    name: str
    licence: str
    parameters: int
    bytes: int
    fits: bool
    cached: bool


class Catalogue(Struct, frozen=True):
    """See learners/model/catalogue.py."""

    device: str
    memory: int
    quantize: str
    models: tuple[Offer, ...]


class CatalogueError(Exception):
    """The learners cannot be asked."""


def look() -> Catalogue:
    """Of this machine. Raises CatalogueError."""
    try:
        done = subprocess.run([sys.executable, "-m", "learners.model.catalogue"], capture_output=True, text=True, timeout=SECONDS, check=False)
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Catalogue)
    except (subprocess.TimeoutExpired, IndexError, msgspec.DecodeError) as error:
        raise CatalogueError("the learners cannot be asked: python -m learners.model.catalogue says why") from error


def as_text(found: Catalogue) -> str:
    """A line for each."""
    width = max(len(model.name) for model in found.models)
    how = "In full precision" if found.quantize == "none" else "In 4 bit"
    lines = [f"{found.device}: {found.memory / 1e9:.1f} GB. {how}, with all roles, four answers and 2,048 tokens:"]
    for model in found.models:
        state = ("fits" if model.fits else "too large") + (", in the cache" if model.cached else "")
        lines.append(f"{model.name:{width}}  {model.parameters / 1e9:5.2f}B  {model.bytes / 1e9:5.1f} GB  {model.licence:10}  {state}")
    if found.device == "cpu":
        lines.append("without a GPU a token takes time in proportion to the parameters: begin with the first")
    smaller = "" if found.quantize == "none" else " (below a billion parameters in 4 bit only with --quantize nf4)"
    return "\n".join([*lines, f"tamer --model NAME teaches one{smaller}; the embedded model, pocket, needs none of this"])
