"""Models that are stored in another form become plain safetensors, once, in the user's cache: GGUF, FP8 and MXFP4, a base with somebody's adapter."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from platformdirs import user_cache_dir

from learners.model.architectures import model_class
from learners.model.checkpoint import TOKENIZER_FILES, ModelError, Progress, first_line, hash_files, older_template, read_config
from learners.model.gguf_header import GGUFHeader
from learners.model.stored import check_gguf

GET_GGUF = "pip install 'tamer-tui[gguf]'"
CONVERTED_METHODS = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}
"""Ways to store weights that transformers unpacks on any device, and its settings for that."""
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Of models that see images: other programs ask for them."""


def converted_gguf(file: Path, report: Progress) -> tuple[Path, str]:
    """The directory of a GGUF's model and the file's SHA-256, which is the model's identity. Raises ModelError."""
    check_gguf(file)
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
    check_readable(file)
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
    if info["missing_keys"]:  # which would be drawn at random
        raise ModelError(f"{file} lacks weights: {min(info['missing_keys'])}", "fetch the file again, or use the model as safetensors")
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


def dequantized(directory: Path, method: str, identity: str, report: Progress) -> Path:
    """The directory of the same model in bfloat16. Raises ModelError."""

    def convert(target: Path) -> None:
        import torch
        import transformers

        report("convert")
        settings = getattr(transformers, CONVERTED_METHODS[method])(dequantize=True)
        try:
            model = model_class(read_config(directory)).from_pretrained(
                directory, quantization_config=settings, dtype=torch.bfloat16, device_map="cpu", use_safetensors=True, local_files_only=True
            )
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ModelError(f"{directory} is stored as {method} and cannot be unpacked: {first_line(error)}", "use it in full precision") from error
        save_plain(model, None, target)
        copy_tokenizer(directory, target)

    return converted(f"{method}-{identity}", convert)


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
    """And how the model ends its answers, and what it makes of images, where that was not written yet."""
    for name in (*TOKENIZER_FILES, "generation_config.json", *PROCESSOR_FILES):
        if (source / name).is_file() and not (target / name).exists():
            shutil.copyfile(source / name, target / name)
    if template := older_template(source):  # tokenizers, and what else reads models, look for it there
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")


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
