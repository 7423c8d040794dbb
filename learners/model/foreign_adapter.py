"""Adapters that somebody trained with PEFT: what one says of itself, and a base with one in it.

The adapter becomes part of the base: what is taught goes on from there, is held to it, and is compared with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learners.model.architectures import load_model
from learners.model.checkpoint import ModelError, Progress, first_line, hash_files, read_header, stored_quantization
from learners.model.conversion import converted, copy_tokenizer, save_plain, with_settings
from learners.model.stored import CONFIG, WEIGHTS, adapter_settings, cannot_be_merged


def merged(base: Path, identity: str, adapter: Path, report: Progress, trust_remote_code: bool = False) -> tuple[Path, str]:
    """The directory of the base with the adapter in it, and its SHA-256: of the base's and the adapter's. Raises ModelError."""
    check_kind(adapter)
    sha256 = hashlib.sha256(f"{identity} {hash_files([adapter / CONFIG, adapter / WEIGHTS], report)}".encode()).hexdigest()
    return converted(f"adapted-{with_settings(sha256, base)}", lambda directory: _merge(base, adapter, directory, report, trust_remote_code)), sha256


def check_kind(adapter: Path) -> None:
    """Raises ModelError for what the installed PEFT cannot merge, before anything large is read."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    kind = adapter_settings(adapter)["peft_type"]
    known = {str(getattr(each, "value", each)): tuner for each, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    if kind not in known:
        raise ModelError(f"the adapter in {adapter} is of the kind {kind!r}, which the installed PEFT does not know", "upgrade peft")
    if not hasattr(known[kind], "merge_and_unload"):
        raise cannot_be_merged(adapter, str(kind))


def _check_depth(adapter: Path, layers: int) -> None:
    """PEFT passes over what an adapter has for layers that are not there."""
    found = [int(number) for name in read_header(adapter / WEIGHTS) for number in re.findall(r"\.(?:layers|h|blocks)\.(\d+)\.", name)]
    if max(found, default=0) >= layers:
        what = f"the adapter in {adapter} does not fit the model: it is for {max(found) + 1} layers at least, and the model has {layers}"
        raise ModelError(what, _its_base(adapter))


def _its_base(adapter: Path) -> str:
    named = adapter_settings(adapter).get("base_model_name_or_path")
    return f"its {CONFIG} names {named} as its base" if named else "it was trained on another base"


def plain(base: Path, trust_remote_code: bool = False) -> Any:
    """The model of a directory in the form in which it is stored, and in floats. Raises ModelError, OSError, MemoryError."""
    model = load_model(base, dtype="auto", trust_remote_code=trust_remote_code)
    return model.dequantize() if stored_quantization(base) != "none" else model


def adapted(model: Any, adapter: Path) -> Any:
    """The model with an adapter on it. Raises ModelError, OSError, MemoryError."""
    from peft import PeftModel

    _check_depth(adapter, model.config.get_text_config().num_hidden_layers)
    with _misfits_told(adapter):
        tree = PeftModel.from_pretrained(model, adapter, low_cpu_mem_usage=True, local_files_only=True)
        if any(p.is_meta for p in tree.parameters()):
            raise ValueError("it lacks weights for layers of this model")
    return tree


@contextmanager
def _misfits_told(adapter: Path) -> Iterator[None]:
    """What PEFT says against an adapter becomes a ModelError."""
    try:
        yield
    except (OSError, MemoryError, ModelError):
        raise
    except Exception as error:
        raise ModelError(f"the adapter in {adapter} does not fit the model: {first_line(error)}", _its_base(adapter)) from error


def _merge(base: Path, adapter: Path, directory: Path, report: Progress, trust_remote_code: bool) -> None:
    import torch

    report("convert")
    model = plain(base, trust_remote_code)  # an adapter that was trained on four bits belongs to the weights that they stand for
    own = {name: tuple(p.shape) for name, p in model.named_parameters()}
    with _misfits_told(adapter):
        whole = adapted(model, adapter).merge_and_unload(safe_merge=True)
    if {name: tuple(p.shape) for name, p in whole.named_parameters()} != own:
        raise ModelError(f"the adapter in {adapter} changes the model's shape", "merge it with PEFT, and pass the merged model")
    with torch.no_grad():
        save_plain(whole, None, directory)
    copy_tokenizer(base, directory)
