"""Which version a command means, and what is known of the model that it adapts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from storage.journal import JournalError
from storage.queries import Record
from storage.records import BASE_VERSION, BaseModel
from storage.rows import MarkedVersion
from tamer_tui.session_store import SessionError


class Published(NamedTuple):
    """A version of a database; None for the base as it is."""

    version: MarkedVersion | None
    base: BaseModel | None  # None before the first sitting
    settings: dict[str, Any]  # of the last sitting with a model

    @property
    def id(self) -> str:
        return self.version.id if self.version is not None else BASE_VERSION

    def model_options(self, model: str | None = None) -> dict[str, Any]:
        """What names the base as the last sitting had it, or as it is said."""
        quantize = self.base.quantize if self.base is not None and self.base.quantize in ("nf4", "int8", "none") else "auto"
        name = model or (self.base.name if self.base is not None else "pocket")
        return {"model": name, "adapter": self.settings.get("peft_adapter"), "quantize": quantize, "prompts": None, "system": None}

    def drawing_options(self) -> dict[str, Any]:
        """How the last sitting drew, as far as it was asked for and not the model's own way."""
        sampling, unset = self.settings.get("sampling") or {}, self.settings.get("unset") or ()
        told = {name: value for name, value in sampling.items() if name not in unset}
        return told | {"thinking": self.settings.get("thinking") or "auto"}


def find(database: Path, name: str) -> Published:
    """`name` is base, latest, acting or a version's id. Raises SessionError."""
    try:
        with Record(database) as record:
            return Published(_named(record, name, database), record.base(), record.settings())
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error


def _named(record: Record, name: str, database: Path) -> MarkedVersion | None:
    if name == BASE_VERSION:
        return None
    if name == "acting":
        return record.acting_version()
    versions = [version for version in record.versions() if version.published]
    if name == "latest":
        return versions[0] if versions else None
    known = next((version for version in versions if version.id == name), None)
    if known is None:
        raise SessionError(f"there is no published version {name} in {database}", "see tamer versions")
    return known
