"""A base and a version's adapter as one model directory in bfloat16: what transformers, vLLM and llama.cpp's converter load.

Each product B·A is added in float32 and rounded once. Weights go back under the names that the base's checkpoint has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learners.export.gguf_file import check_family
from learners.export.request import Exporting, ExportRequest, Tell
from learners.model.checkpoint import ModelError, Progress, read_config, stored_quantization
from learners.model.conversion import copy_tokenizer, save_plain
from learners.model.foreign_adapter import adapted, plain
from learners.model.sources import Source, find_source


def base_of(request: ExportRequest, tell: Tell) -> Source:
    """The base that the version adapts. Raises ModelError."""
    report = Progress(lambda event: tell(Exporting(event.what, int(event.done), int(event.total))))
    source = find_source(request.model, report, request.peft_adapter, request.trust_remote_code)
    if source.hashes.base != request.base_hash:
        raise ModelError(f"this version adapts another model than {request.model}", "pass the base that it was taught on with --model")
    return source


def merge(request: ExportRequest, out: Path, tell: Tell) -> tuple[str, ...]:
    """Write the directory; what a person should know of it. Raises ModelError."""
    source = base_of(request, tell)
    if request.format in ("gguf", "ollama"):
        check_family(read_config(source.directory), request.outtype)
    import torch

    stored = stored_quantization(source.directory)
    tell(Exporting("loading the base"))
    with torch.no_grad():
        model = merged(adapted(plain(source.directory, request.trust_remote_code), Path(request.adapter)), tell)
        tell(Exporting("writing the merged model"))
        if stored != "none" or source.notes:
            save_plain(model, None, out)
        else:
            model.config._name_or_path = ""
            model.save_pretrained(out)
    copy_tokenizer(source.directory, out)
    return (*source.notes, *_about_quantization(stored, request.quantize))


def _about_quantization(stored: str, taught: str) -> tuple[str, ...]:
    if stored != "none":
        return (f"the base is stored as {stored}: its weights were dequantized to bfloat16",)
    if taught != "none":
        return (f"it was taught on the base in {taught}; the adapter is merged into the base's full weights",)
    return ()


def merged(tree: Any, tell: Tell) -> Any:
    """The model with every LoRA added to the weights that it adapts, in bfloat16."""
    import torch

    layers = [(name, layer) for name, layer in tree.named_modules() if getattr(layer, "lora_A", None)]
    for place, (name, layer) in enumerate(layers):
        tell(Exporting("merging layers:", place, len(layers)))
        weight = layer.get_base_layer().weight
        merged = weight.data.float() + layer.get_delta_weight(*layer.lora_A).float()
        if not torch.isfinite(merged).all():
            raise ModelError(f"the adapter is no number in {name}", "roll back to another version: tamer versions")
        weight.data = merged.to(torch.bfloat16)
    return tree.unload().to(torch.bfloat16)
