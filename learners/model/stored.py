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
    is_path,
    packed_as,
    stored_quantization,
)
from learners.model.gguf_header import GGUFHeader, is_gguf, read_gguf_header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Of an adapter that PEFT saved."""


def check_source(name: str, adapter: str | None = None) -> None:
    """What can be said against a model on this disk without a library and without reading its weights. Raises ModelError; hub ids pass."""
    file = Path(name).expanduser()
    if name.strip() and file.is_file() and is_gguf(file):
        check_gguf(file)
    elif file.is_dir() and is_adapter(file):
        check_source(base_of(file))
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
    if header.metadata.get("split.count", 0) > 1:
        raise ModelError(f"{file} is one of {header.metadata['split.count']} pieces", "join them: llama-gguf-split --merge FIRST WHOLE.gguf")
    if header.metadata.get("general.type", "model") != "model":
        raise ModelError(f"{file} holds no model but a {header.metadata['general.type']}", "pass the GGUF of the language model")
    check_architecture({"model_type": header.architecture})
    return header


def is_adapter(directory: Path) -> bool:
    """Whether it holds an adapter and no model."""
    return (directory / CONFIG).is_file() and not (directory / "config.json").is_file()


def adapter_settings(directory: Path) -> dict[str, Any]:
    """What `adapter_config.json` says. Raises ModelError unless the directory holds an adapter in safetensors."""
    try:
        settings = json.loads((directory / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"no adapter in {directory}", f"pass a directory with {CONFIG} and {WEIGHTS}, as PEFT saves them") from error
    if not isinstance(settings, dict) or "peft_type" not in settings:
        raise ModelError(f"{directory / CONFIG} is not of an adapter", "pass a directory as PEFT saves it")
    if not (directory / WEIGHTS).is_file():
        pickled = (directory / "adapter_model.bin").is_file()
        what = f"{directory} holds a pickled adapter, which can run code and is refused" if pickled else f"no {WEIGHTS} in {directory}"
        raise ModelError(what, "save it again with PEFT as safetensors" if pickled else "fetch the adapter again")
    return settings


def base_of(directory: Path) -> str:
    """The name of the model that the adapter belongs to. Raises ModelError."""
    named = adapter_settings(directory).get("base_model_name_or_path")
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
