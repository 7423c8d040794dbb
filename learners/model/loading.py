"""From a name to a frozen model: find the files, check them, load and quantize them, and say how far it got."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learners.model import replicas as trees
from learners.model import shards
from learners.model.architectures import check_settings, load_model
from learners.model.base import Backbone
from learners.model.chat_format import PromptError, Renderer
from learners.model.chat_template import TemplateError
from learners.model.checkpoint import ModelError, Progress, first_line, parameter_count, stored_quantization
from learners.model.cpu_weights import speed_up_on_cpu
from learners.model.device import choose_device
from learners.model.drawing_settings import drawing_settings
from learners.model.experts import experts_in_four_bits, finish_experts, unquantized_experts
from learners.model.gpu_weights import speed_up_on_gpu
from learners.model.sources import Source, find_source
from learners.model.tokenizers import load_tokenizer
from learners.protocol import Loading
from storage.records import Message

AUTO_QUANTIZE_PARAMETERS = 1_000_000_000
"""`auto` is nf4 from here up."""
UNKNOWN_CONTEXT = 2048
"""Tokens, where a configuration does not name its context."""


def _ignore(progress: Loading) -> None:
    return None


def load_backbone(
    model: str,
    quantize: str = "auto",
    device: str = "auto",
    progress: Callable[[Loading], None] = _ignore,
    trust_remote_code: bool = False,
    adapter: str | None = None,
    thinking: str = "auto",
    learn_thoughts: bool = False,
) -> Backbone:
    """Load a directory, a hub id, a GGUF or 'pocket'. Raises ModelError with one clear line and what to do.

    adapter: a directory or hub id of an adapter by PEFT that becomes part of the base. thinking and learn_thoughts: see Renderer.
    """
    if quantize not in ("auto", "nf4", "int8", "none"):
        raise ModelError(f"unknown quantization: {quantize}", "use auto, nf4, int8 or none")
    place = choose_device(device)
    report = Progress(progress)
    report("libraries")
    import_bitsandbytes()
    with _quiet():
        source = find_source(model, report, adapter, trust_remote_code)
        parameters = parameter_count(source.files)
        chosen = _choose_quantization(quantize, stored_quantization(source.directory), parameters, place)
        check_settings(source.directory, trust_remote_code)
        tokenizer = load_tokenizer(source.directory, trust_remote_code)
        loaded = _load_model(source.directory, chosen, place, trust_remote_code, report)
    report("adapters")
    if chosen != "none" and (left := unquantized_experts(loaded)):
        source = source._replace(notes=(*source.notes, f"{left:,} weights of experts stay as they are: {chosen} does not reach them"))
    return _describe(model, loaded, tokenizer, chosen, place, parameters, source, thinking, learn_thoughts)


def by_itself(parameters: int, kind: str) -> str:
    """What `auto` is for a model of so many parameters on a device of this kind."""
    return "nf4" if parameters >= AUTO_QUANTIZE_PARAMETERS and kind != "mps" else "none"


def _choose_quantization(asked: str, stored: str, parameters: int, device: torch.device) -> str:
    if stored != "none":
        if asked not in ("auto", stored):
            raise ModelError(f"the model is stored as {stored}, not as {asked}", f"use --quantize {stored}, or the model in full precision")
        asked = stored
    elif asked == "auto":
        asked = by_itself(parameters, device.type)
    if asked != "none" and device.type == "mps" and not has_kernels("mps"):
        raise ModelError(f"{asked} needs a CPU or a CUDA device", "use --quantize none or --device cpu")
    if asked != "none" and device.type == "cuda" and not has_kernels("cuda"):
        hint = "use --quantize none, or see what `python -m bitsandbytes` says"
        raise ModelError("bitsandbytes has no kernels for this CUDA here", hint)
    return asked


def has_kernels(kind: str) -> bool:
    """Whether bitsandbytes computes on such devices with what is installed."""
    from importlib.util import find_spec

    if kind == "mps":
        return find_spec("bitsandbytes.backends.mps") is not None
    from bitsandbytes.cextension import lib

    return bool(getattr(lib, "compiled_with_cuda", False))


def compute_dtype(device: torch.device) -> torch.dtype:
    """What the base computes in there."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _load_model(directory: Path, quantize: str, device: torch.device, trust_remote_code: bool, report: Progress) -> nn.Module:
    report("weights" if quantize == "none" else "quantize")
    compute = compute_dtype(device)
    try:
        with experts_in_four_bits():
            model = load_model(
                directory,
                dtype=compute,
                device_map={"": str(shards.loaded_on(device))},
                trust_remote_code=trust_remote_code,
                **(_quantization(quantize, compute) if stored_quantization(directory) == "none" else {}),
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{directory} does not fit into the memory of {device}", "try --quantize nf4, --device cpu or a smaller model") from error
    except (OSError, MemoryError) as error:
        raise ModelError(f"cannot load {directory}: {first_line(error)}", "free some memory, or fetch the model again") from error
    _check_cache(model)
    _prepare(model, quantize, compute, device)
    return model


def _prepare(model: nn.Module, quantize: str, compute: torch.dtype, device: torch.device) -> None:
    """Make it a base that trees can share."""
    finish_experts(model, compute)
    if quantize == "int8":
        trees.dequantize_in_forward(model)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # a model that was stored in 4 bit may name a dtype for another device
            module.compute_dtype, module.compute_type_is_set = compute, True
    trees.freeze(model)
    trees.watch_head(model)
    if not shards.shard(model, device):
        speed_up_on_cpu(model)
        speed_up_on_gpu(model)


def _check_cache(model: nn.Module) -> None:
    """Answers go on from keys and values of their own rows: a model that keeps something of its own cannot draw here."""
    if "past_key_values" not in inspect.signature(type(model).forward).parameters:
        what = f"{type(model).__name__} keeps no keys and values between tokens"
        raise ModelError(f"{what}, and cannot draw adapted and plain rows side by side", "choose another family")


def _quantization(quantize: str, compute: torch.dtype) -> dict[str, Any]:
    """The argument that quantizes while loading. None is not the same as leaving it out: it hides how the weights are stored."""
    from transformers import BitsAndBytesConfig

    if quantize == "none":
        return {}
    if quantize == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": nf4}


def _describe(
    name: str, model: Any, tokenizer: Any, quantize: str, device: torch.device, parameters: int, source: Source, thinking: str, learn_thoughts: bool
) -> Backbone:
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    generation = getattr(model, "generation_config", None)
    eos = [*_as_list(getattr(generation, "eos_token_id", None)), *_as_list(config.eos_token_id)]
    context = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or UNKNOWN_CONTEXT
    vocabulary, width = head.weight.shape
    try:
        renderer = Renderer(tokenizer, vocabulary, eos, thinking, learn_thoughts)
    except ValueError as error:
        raise ModelError(f"--thinking {thinking}: {error}", "leave it at auto") from error
    _check_tokenizer(renderer)
    notes, drawing = (*source.notes, *renderer.notes), drawing_settings(vars(generation) if generation else {})
    return Backbone(
        model, tokenizer, renderer, name, device, model.dtype, quantize, width, vocabulary,
        config.num_hidden_layers, parameters, context, source.hashes, notes, drawing,
    )  # fmt: skip


def _check_tokenizer(renderer: Renderer) -> None:
    """A tokenizer may have more tokens than the model has rows, as long as ordinary text and the template do without them."""
    try:
        renderer.encode((Message("user", "Hello!"),))
    except TemplateError as error:
        hint = "another template, beside the weights as chat_template.jinja, may take plain conversations"
        raise ModelError(f"no prompt works with this model: {error}", hint) from error
    except PromptError as error:
        raise ModelError(f"no prompt works with this model: {error}", "check that tokenizer and chat template are the model's own") from error


def _as_list(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def import_bitsandbytes() -> None:
    """PEFT imports it for every model. It hands some of its fallbacks to `torch.compile` as it is imported, which alone imports the compiler, for
    seconds; without it they run as they are written, which is also what bitsandbytes does where compiling fails."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it names kernels that it would like to fetch
    compiler = torch.compile
    torch.compile = lambda model=None, **options: model if model is not None else lambda function: function  # type: ignore[assignment, misc]
    try:
        with contextlib.suppress(ImportError):
            import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiler


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither bars nor advice from the libraries: the log is for what went wrong."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
