"""What the terminal asks of `python -m learners.export`, and what it hears. Torch-free, for both processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

Outtype = Literal["f16", "q8_0"]


class ExportRequest(Struct, frozen=True):
    """One version of one base. Nothing is left in `out` unless all went well."""

    format: Literal["merged", "gguf", "ollama", "recipe"]
    model: str  # the base: directory, GGUF file, hub id or 'pocket'
    adapter: str  # the version's directory
    out: str  # an empty directory
    base_hash: str  # of the base that the version adapts
    peft_adapter: str | None = None  # an adapter that is part of the base
    quantize: str = "none"  # of the base while the version was taught
    outtype: Outtype = "f16"
    name: str = "tamed"  # of the GGUF file, without its ending
    system: str | None = None
    drawing: dict[str, float] = {}  # of temperature, top_p, top_k, min_p and repetition_penalty those that were set
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 256
    trust_remote_code: bool = False  # run Python code that comes with the base


class Exporting(Struct, frozen=True, tag=True):
    """How far it is: so many of so many tensors or layers; `of` 0 where that is not known."""

    what: str
    done: int = 0
    of: int = 0


class Exported(Struct, frozen=True, tag=True):
    """What a person should know of it, or why there is nothing."""

    notes: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""


Tell = Callable[[Exporting], None]


def unheard(said: Exporting) -> None:
    """Nobody listens."""
