"""`tamer export` of a version: where people run models, or fine-tune them further. Weights are merged and converted in a child process."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from learners.export.request import Exported, Exporting, ExportRequest, Outtype
from learners.model.checkpoint import is_path
from learners.versions.blobs import BlobError, read_directory
from storage.exchange import places
from storage.exchange.sinks import sha256_of, write_json
from storage.journal import JournalError
from storage.progress import CancelledError
from storage.queries import Record
from storage.records import BaseModel
from tamer_tui.model_card import card
from tamer_tui.options import ANSWER_TOKENS, MODELS_OWN
from tamer_tui.published import Published, find
from tamer_tui.recipes import RECIPES, write_recipe
from tamer_tui.recipes import about as about_recipe
from tamer_tui.session_store import SessionError, SessionStore
from tamer_tui.text import one_line

FORMATS = {
    "merged": "one model in bfloat16 with the adapter in it, a folder: transformers, vLLM, llama.cpp's converter",
    "peft": "the adapter alone, a folder: PEFT, vLLM's --lora-modules",
    "gguf": "the merged model as one GGUF file: llama.cpp, LM Studio",
    "ollama": "a folder for `ollama create`: that file and a Modelfile",
    **RECIPES,
}
LOOK_SECONDS = 0.2
"""Between two looks at whether to go on, while the other side says nothing."""
Stage = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much. Raises CancelledError to end it."""
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def unstaged(what: str, done: int, of: int) -> None:
    """A stage that nobody looks at."""


class Wanted(Struct, frozen=True):
    """Which version, in which form."""

    format: str
    version: str = "acting"  # or latest, or an id
    model: str | None = None  # the base, where it is not where the last sitting found it
    outtype: Outtype = "f16"
    trust_remote_code: bool = False  # as whoever exports says, and not as a database does


class ModelManifest(Struct, frozen=True):
    """What lies beside the export of a model."""

    format: str
    version: str
    sha256: dict[str, str]  # by file


def export_model(database: Path, out: Path, wanted: Wanted, force: bool, stage: Stage = unstaged) -> str:
    """What was written, in words. Raises SessionError, and then leaves everything as it was."""
    found = find(database, wanted.version)
    if found.version is None or found.base is None:
        raise SessionError(f"no version acts in {database}: what answers there is the base as it was", "name one with --version: see tamer versions")
    folder = SessionStore.root_of(database) / found.version.sha256
    try:
        out = places.resolved(out)
        places.check(database, (out, places.manifest_of(out)), force)
        manifest = json.loads(read_directory(folder)["manifest.json"])
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            notes = _write(made, found, folder, out, wanted, stage)
            if wanted.format in RECIPES:
                notes = (*notes, *write_recipe(wanted.format, made, database, found.drawing_options()))
            if wanted.format != "gguf":
                with Record(database) as record:
                    about = card(found, hub_id(found.base.name), record.kinds_of(manifest["seqs"]), record.duel_count(), FORMATS[wanted.format])
                more = about_recipe(wanted.format) if wanted.format in RECIPES else ""
                (made / "README.md").write_text(about + more, encoding="utf-8")
            write_json(Path(scratch) / "manifest", ModelManifest(wanted.format, found.id, _hashes(made, out, wanted)))
            places.put(made / f"{_name(out)}.gguf" if wanted.format == "gguf" else made, out)
            places.put(Path(scratch) / "manifest", places.manifest_of(out))
    except (BlobError, OSError) as error:
        raise SessionError(
            f"{found.id} cannot be written to {out}: {error}", "restore its folder, or choose a folder that you may write to"
        ) from error
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error
    except CancelledError:
        raise SessionError("cancelled", "nothing was written") from None
    return "\n".join([f"{out}: {found.id} of {database}, {FORMATS[wanted.format]}", *notes])


def _hashes(made: Path, out: Path, wanted: Wanted) -> dict[str, str]:
    if wanted.format == "gguf":
        return {out.name: sha256_of(made / f"{_name(out)}.gguf")}
    return {str(path.relative_to(made)): sha256_of(path) for path in sorted(made.rglob("*")) if path.is_file()}


def _write(made: Path, found: Published, folder: Path, out: Path, wanted: Wanted, stage: Stage) -> tuple[str, ...]:
    assert found.version is not None and found.base is not None
    if wanted.format == "peft":
        return _write_adapter(made, found, folder)
    drawing = found.drawing_options()
    request = ExportRequest(
        format="recipe" if wanted.format in RECIPES else wanted.format,  # type: ignore[arg-type]
        model=wanted.model or found.base.name,
        adapter=str(folder),
        out=str(made),
        base_hash=found.base.base_hash,
        peft_adapter=found.settings.get("peft_adapter"),
        quantize=found.base.quantize,
        outtype=wanted.outtype,
        name=_name(out),
        system=found.settings.get("system"),
        drawing={name: drawing[name] for name in MODELS_OWN if name in drawing},
        stop=tuple(drawing.get("stop") or ()),
        trust_remote_code=wanted.trust_remote_code,
        max_new_tokens=int(drawing.get("max_new_tokens") or ANSWER_TOKENS),
    )
    said = asked(request, stage)
    if said.error:
        raise SessionError(said.error, said.hint)
    return said.notes


def asked(request: ExportRequest, stage: Stage = unstaged) -> Exported:
    """What the learners' side says to it. Raises CancelledError, and then that side is gone."""
    command = [sys.executable, "-m", "learners.export"]
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, start_new_session=True) as child,
    ):  # a session of its own: ctrl+c is ours
        assert child.stdin is not None and child.stdout is not None
        try:
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(msgspec.json.encode(request))
            said = _listen(child.stdout, stage)
        except BaseException:
            child.kill()
            raise
        code = child.wait()
        told.seek(0)
        last = next(reversed(told.read().decode("utf-8", "replace").strip().splitlines()), f"exit code {code}")
    return said or Exported(error=f"the model could not be written: {one_line(last)[:200]}", hint="try --format peft")


def _listen(lines: IO[bytes], stage: Stage) -> Exported | None:
    """Until it is written, or nothing more comes. What libraries print is no concern."""
    at, rest = Exporting("loading torch"), b""
    while True:
        stage(at.what, at.done, at.of)
        if not select.select([lines], [], [], LOOK_SECONDS)[0]:
            continue
        if not (came := os.read(lines.fileno(), 65536)):
            return None
        *whole, rest = (rest + came).split(b"\n")
        for line in whole:
            with suppress(msgspec.DecodeError):
                said = msgspec.json.decode(line, type=Exporting | Exported)
                if isinstance(said, Exported):
                    return said
                at = said


def _name(out: Path) -> str:
    return out.stem if out.suffix == ".gguf" else out.name


# --- the adapter alone -----------------------------------------------------------------------------------------------------


def _write_adapter(made: Path, found: Published, folder: Path) -> tuple[str, ...]:
    """With the base's name on the hub where there is one, and with nothing that names this machine."""
    assert found.base is not None
    config, weights = ADAPTER
    named = hub_id(found.base.name) if found.settings.get("peft_adapter") is None else None
    settings = json.loads((folder / config).read_bytes()) | {"base_model_name_or_path": named}
    (made / config).write_text(json.dumps(_without_paths(settings), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copyfile(folder / weights, made / weights)
    if named is not None:
        return ()
    return (f"the base is {_about(found.base, found.settings)}: whoever loads the adapter has to name it",)


def _about(base: BaseModel, settings: dict[str, Any]) -> str:
    if settings.get("peft_adapter") is not None:
        return "a model with another adapter in it, of which there is no name on the hub"
    return "the model that comes with tamer" if base.name == "pocket" else "no model of the hub by its name"


def _without_paths(value: Any) -> Any:
    """The same settings; a text that can only be a path on this machine becomes null."""
    if isinstance(value, dict):
        return {name: _without_paths(each) for name, each in value.items()}
    return None if isinstance(value, str) and Path(value).is_absolute() else value


def hub_id(name: str, is_here: Callable[[str], bool] = lambda name: Path(name).expanduser().exists()) -> str | None:
    """Of a base by the name that it was loaded under: owner/name, or a folder of the hub's cache; else None."""
    for part in Path(name).parts:
        if part.startswith("models--") and part.count("--") == 2:
            return part.removeprefix("models--").replace("--", "/")
    return name if name.count("/") == 1 and not is_path(name) and not is_here(name) else None
