"""Models that are stored in another form become plain safetensors, once, in the user's cache: GGUF, FP8 and MXFP4, a base with somebody's adapter."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from platformdirs import user_cache_dir

from learners.model.architectures import load_model
from learners.model.checkpoint import (
    TOKENIZER_FILES,
    TOKENIZER_PATTERNS,
    ModelError,
    Progress,
    check_loaded,
    check_weights,
    first_line,
    hash_files,
    older_template,
    quantization_of,
    read_config,
    without_quantization,
)
from learners.model.gguf_header import GGUFHeader
from learners.model.stored import check_gguf
from learners.model.tokenizers import has_own_code

GET_GGUF = "pip install 'tamer-tui[gguf]'"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Of models that see images: other programs ask for them."""


def converted_gguf(file: Path, report: Progress) -> tuple[Path, str]:
    """The directory of a GGUF's model and the file's SHA-256, which is the model's identity. Raises ModelError."""
    check_readable(file)  # before every byte of it is read
    sha256 = hash_files([file], report)
    return converted(f"gguf-{sha256}", lambda directory: _convert_gguf(file, directory, report)), sha256


def check_readable(file: Path) -> GGUFHeader:
    """Raises ModelError for what cannot be converted, as far as the libraries know without the weights."""
    header = check_gguf(file)
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ModelError(f"{file} needs the package gguf", GET_GGUF) from error
    from transformers import modeling_gguf_pytorch_utils as reading
    from transformers.integrations.gguf import GGUF_ARCHS

    architecture, known = header.architecture, {*reading.GGUF_SUPPORTED_ARCHITECTURES, *GGUF_ARCHS}
    if not {architecture, architecture.replace("-", "_"), architecture.replace("moe", "_moe")} & known:
        raise ModelError(f"{file} holds a model of the architecture {architecture!r}, which cannot be read", "use the model as safetensors")
    return header


def _convert_gguf(file: Path, directory: Path, report: Progress) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers import modeling_gguf_pytorch_utils as reading

    try:
        with _counted(reading, report):
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model, info = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16, output_loading_info=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the tables of two libraries, applied to a file that may hold anything
        raise ModelError(f"{file} cannot be converted: {first_line(error)}", "use the model as safetensors") from error
    check_loaded(info, str(file))
    save_plain(model, tokenizer, directory)


@contextlib.contextmanager
def _counted(reading: ModuleType, report: Progress) -> Iterator[None]:
    """The bar over tensors becomes progress."""
    bar = reading.tqdm  # type: ignore[attr-defined]

    def told(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        tensors = list(tensors)
        for i, tensor in enumerate(tensors):
            report("convert", i, len(tensors))
            yield tensor

    reading.tqdm = told  # type: ignore[attr-defined]
    try:
        yield
    finally:
        reading.tqdm = bar  # type: ignore[attr-defined]


def dequantized(directory: Path, method: str, identity: str, report: Progress, trust_remote_code: bool = False) -> Path:
    """The directory of the same model in bfloat16. Raises ModelError."""

    def convert(target: Path) -> None:
        report("convert")
        if method == "mxfp4":
            _unpack_mxfp4(directory, target, trust_remote_code)
            copy_tokenizer(directory, target)
            return
        _unpack_fp8(directory, target, report)
        copy_tokenizer(directory, target)
        load_model(target, directory, device_map="meta", trust_remote_code=trust_remote_code)  # which says whether these are all weights of the model

    return converted(f"{method}-{with_settings(identity, directory)}", convert)


def with_settings(identity: str, directory: Path) -> str:
    """What a copy of a model is found under: its identity, which is of weights and tokenizer, and what else the copy is made of."""
    files = [directory / "config.json", *beside(directory)]
    return hashlib.sha256(f"{identity} {hash_files(files, lambda *_: None)}".encode()).hexdigest()


def _unpack_fp8(directory: Path, target: Path, report: Progress) -> None:
    """File by file. Transformers would pass over scales of another name, and stretch blocks that do not divide a weight evenly."""
    from learners.model.fp8_weights import unpack

    config = read_config(directory)
    unpack(check_weights(directory), quantization_of(config), target, lambda done, of: report("convert", done, of))
    config = without_quantization(config) | {"dtype": "bfloat16"}
    config.pop("torch_dtype", None)
    (target / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _unpack_mxfp4(directory: Path, target: Path, trust_remote_code: bool) -> None:
    import torch
    from transformers import Mxfp4Config

    how = {"quantization_config": Mxfp4Config(dequantize=True), "dtype": torch.bfloat16, "device_map": "cpu"}
    save_plain(load_model(directory, trust_remote_code=trust_remote_code, **how), None, target)


def save_plain(model: Any, tokenizer: Any, directory: Path) -> None:
    """As a directory of its own that says nothing of how the weights were stored before."""
    model.hf_quantizer = model._weight_conversions = None  # else saving would undo what was done while loading
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = ""
    model.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def copy_tokenizer(source: Path, target: Path) -> None:
    """And how the model ends its answers, what it makes of images, and its own code, where that was not written yet."""
    for file in beside(source):
        if not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)
    if template := older_template(source):  # tokenizers, and what else reads models, look for it there
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")


def beside(directory: Path) -> list[Path]:
    """What belongs to a model beside its weights and its configuration."""
    patterns = (*TOKENIZER_FILES, *TOKENIZER_PATTERNS, "generation_config.json", *PROCESSOR_FILES, *(["*.py"] if has_own_code(directory) else []))
    return sorted({file for pattern in patterns for file in directory.glob(pattern) if file.is_file()})


def converted(name: str, convert: Callable[[Path], None]) -> Path:
    """The directory of that name among the converted models, made by `convert` where it is not there: whole or not at all. Raises ModelError."""
    folder = Path(user_cache_dir("tamer-tui", appauthor=False)) / "models"
    target, unfinished = folder / name, folder / f".{name}.{os.getpid()}"
    if (target / "config.json").is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{name}.*"):  # by an engine that was killed
            if not _runs(left.suffix[1:]):
                shutil.rmtree(left, ignore_errors=True)
        unfinished.mkdir()
        convert(unfinished)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = f"the disk is full while a model is converted into {folder}" if full else f"a model cannot be converted into {folder}: {error}"
        raise ModelError(what, "free some space, or set XDG_CACHE_HOME to another disk" if full else "look at that folder") from error
    except MemoryError as error:
        raise ModelError("the model does not fit into memory while it is converted", "convert it on a larger machine") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True
