"""From a name to a directory of plain safetensors: a directory, a hub id, 'pocket', a GGUF file, an adapter, a model stored as FP8."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from learners.model.architectures import check_config
from learners.model.checkpoint import (
    TOKENIZER_FILES,
    Hashes,
    Progress,
    check_weights,
    find_checkpoint,
    hash_files,
    hashes,
    packed_as,
    read_config,
    stored_quantization,
)
from learners.model.conversion import converted_gguf, dequantized
from learners.model.foreign_adapter import merged
from learners.model.gguf_header import is_gguf
from learners.model.stored import adapter_directory, base_of, is_adapter, other_base


class Source(NamedTuple):
    """Where a model is, found whole."""

    directory: Path
    files: list[Path]  # of weights
    hashes: Hashes
    notes: tuple[str, ...] = ()  # what a person should know of how it came here


def find_source(name: str, report: Progress, adapter: str | None = None, trust_remote_code: bool = False) -> Source:
    """Look, fetch, check, convert what has to be, and hash. `adapter`: a directory or hub id of an adapter to go on from. Raises ModelError."""
    source = _find(name, report, trust_remote_code)
    if adapter is None:
        return source
    directory = adapter_directory(adapter, report)
    other = other_base(directory, name, source.directory)
    merged = _with_adapter(source, directory, report, trust_remote_code)
    if other is None:
        return merged
    return merged._replace(notes=(*merged.notes, f"the adapter names {other} as its base: if that is another model than {name}, it does not belong"))


def _find(name: str, report: Progress, trust: bool) -> Source:
    file = Path(name).expanduser()
    if name.strip() and file.is_file() and is_gguf(file):
        directory, sha256 = converted_gguf(file, report)
        return _of_converted(directory, sha256, (f"the model was converted from {file.name}",))
    directory = find_checkpoint(name, report)
    if is_adapter(directory):
        return _with_adapter(_find(base_of(directory, name), report, trust), directory, report, trust)
    files = check_weights(directory)
    method = packed_as(directory)
    if method is None:
        stored_quantization(directory)  # what is refused is refused before every byte is read
    check_config(read_config(directory), str(directory), trust)
    found = hashes(directory, files, report)
    if method is None:
        return Source(directory, files, found)
    plain = dequantized(directory, method, found.base, report, trust)
    return Source(plain, check_weights(plain), found, (f"the model is stored as {method} and was unpacked to bfloat16",))


def _with_adapter(base: Source, adapter: Path, report: Progress, trust: bool) -> Source:
    directory, sha256 = merged(base.directory, base.hashes.base, adapter, report, trust)
    return _of_converted(directory, sha256, (*base.notes, f"the adapter in {adapter} is part of the base"))


def _of_converted(directory: Path, sha256: str, notes: tuple[str, ...]) -> Source:
    """What was converted is named by what it was made from."""
    tokenizer = [file for name in TOKENIZER_FILES if (file := directory / name).is_file()]
    return Source(directory, check_weights(directory), Hashes(sha256, sha256, hash_files(tokenizer, lambda *_: None)), notes)
