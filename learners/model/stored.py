"""How models are stored, as far as it can be seen without a library and without reading weights: the terminal looks here too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from learners.model.checkpoint import (
    ModelError,
    Progress,
    check_architecture,
    check_weights,
    find_checkpoint,
    first_line,
    is_path,
    packed_as,
    stored_quantization,
)
from learners.model.gguf_header import GGUFHeader, is_gguf, read_gguf_header

NOT_MERGED = {"ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "XLORA"}
"""PEFT's methods that leave the model's weights alone, or choose between several."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Of an adapter that PEFT saved."""


def check_source(name: str, adapter: str | None = None) -> None:
    """What can be said against a model on this disk without a library and without reading its weights. Raises ModelError; hub ids pass."""
    try:
        _check_source(name, adapter)
    except ModelError:
        raise
    except Exception as error:  # the files may hold anything
        raise ModelError(f"{name} cannot be read: {first_line(error)}", "fetch the model again, or pass another one") from error


def _check_source(name: str, adapter: str | None) -> None:
    file = Path(name).expanduser()
    if name.strip() and file.is_file() and is_gguf(file):
        check_gguf(file)
    elif file.is_dir() and is_adapter(file):
        _check_source(base_of(file), None)
    elif name == "pocket" or not name.strip() or file.exists() or is_path(name):
        directory = find_checkpoint(name, Progress(lambda event: None))
        check_weights(directory)
        if packed_as(directory) is None:
            stored_quantization(directory)
    if adapter is not None and (Path(adapter).expanduser().exists() or is_path(adapter)):
        adapter_settings(adapter_directory(adapter, Progress(lambda event: None)))


def check_gguf(file: Path) -> GGUFHeader:
    """Raises ModelError for what cannot be converted, as far as that can be seen without the libraries."""
    header = read_gguf_header(file)
    if (pieces := header.count("split.count")) > 1:
        raise ModelError(f"{file} is one of {pieces} pieces", "join them: llama-gguf-split --merge FIRST WHOLE.gguf")
    if header.metadata.get("general.type", "model") != "model":
        raise ModelError(f"{file} holds no model but a {header.metadata['general.type']}", "pass the GGUF of the language model")
    check_architecture({"model_type": header.architecture})
    return header


def is_adapter(directory: Path) -> bool:
    """Whether it holds an adapter and no model."""
    return (directory / CONFIG).is_file() and not (directory / "config.json").is_file()


def adapter_settings(directory: Path) -> dict[str, Any]:
    """What `adapter_config.json` says. Raises ModelError unless the directory holds an adapter in safetensors."""
    settings = _settings(directory)
    if not (directory / WEIGHTS).is_file():
        pickled = (directory / "adapter_model.bin").is_file()
        what = f"{directory} holds a pickled adapter, which can run code and is refused" if pickled else f"no {WEIGHTS} in {directory}"
        raise ModelError(what, "save it again with PEFT as safetensors" if pickled else "fetch the adapter again")
    return settings


def _settings(directory: Path) -> dict[str, Any]:
    try:
        settings = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"no adapter in {directory}", f"pass a directory with {CONFIG} and {WEIGHTS}, as PEFT saves them") from error
    if not isinstance(settings, dict) or "peft_type" not in settings:
        raise ModelError(f"{directory / CONFIG} is not of an adapter", "pass a directory as PEFT saves it")
    if settings["peft_type"] in NOT_MERGED:
        raise cannot_be_merged(directory, settings["peft_type"])
    return settings


def cannot_be_merged(directory: Path, kind: str) -> ModelError:
    """Of an adapter that is no change of weights."""
    return ModelError(
        f"the adapter in {directory} is a {kind}, which cannot become part of the weights", "pass one that can be merged, such as a LoRA"
    )


def base_of(directory: Path, found_as: str = "") -> str:
    """The name of the model that the adapter belongs to, or of another adapter that does. `found_as`: its own. Raises ModelError."""
    named, seen = _named_base(directory), {directory.resolve()}
    below = Path(named).expanduser()
    while below.is_dir() and is_adapter(below) and below.resolve() not in seen:
        seen.add(below.resolve())
        below = Path(_named_base(below)).expanduser()
    if below.resolve() in seen or named == found_as:
        raise ModelError(f"the adapter in {directory} names itself as its base", f"pass its model, and --adapter {directory}")
    return named


def other_base(directory: Path, name: str, found: Path) -> str | None:
    """What an adapter names as its base, where that is not seen to be this model: it may be, in another place."""
    named = adapter_settings(directory).get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip() or named == name:
        return None
    path, places = Path(named).expanduser(), (Path(name).expanduser(), found)
    if path.exists() and any(place.exists() and path.samefile(place) for place in places):
        return None
    in_cache = _folder_of(name) in path.parts or any(_folder_of(named) in place.parts for place in places)
    return None if in_cache else named


def _folder_of(name: str) -> str:
    """Of a hub id, in the hub's own cache."""
    return f"models--{name.replace('/', '--')}"


def _named_base(directory: Path) -> str:
    adapter_settings(directory)
    return named_base(directory)


def named_base(directory: Path) -> str:
    """What `adapter_config.json` names, whether its weights are there or not. Raises ModelError."""
    named = _settings(directory).get("base_model_name_or_path")
    if not isinstance(named, str) or not named.strip():
        raise ModelError(f"{directory} does not say which model its adapter belongs to", f"pass that model, and --adapter {directory}")
    if not Path(named).expanduser().exists() and is_path(named):
        raise ModelError(f"the adapter in {directory} belongs to {named}, which is not here", f"pass that model, and --adapter {directory}")
    return named


def adapter_directory(name: str, report: Progress) -> Path:
    """Of a path or a hub id. Raises ModelError."""
    directory = Path(name).expanduser()
    if directory.is_file():
        raise ModelError(f"{name} is a file", "pass the directory of the adapter, as PEFT saves it")
    return directory if directory.is_dir() else find_checkpoint(name, report)
