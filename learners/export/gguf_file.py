"""A model directory as one GGUF file, for the families whose layout there is a table of, with the `gguf` package.

Weights are f16, or q8_0 where a row has a multiple of 32; vectors are f32, as llama.cpp's converter has them.
Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from learners.export.gguf_vocabulary import write_vocabulary
from learners.export.request import Exporting, Outtype, Tell, unheard
from learners.model.checkpoint import ModelError, check_weights, read_config, read_header
from learners.model.conversion import GET_GGUF

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Model types whose layout is known here -> llama.cpp's name of the architecture."""
CONVERTER = "--format merged, then llama.cpp's convert_hf_to_gguf.py MERGED --outtype"


def check_family(config: dict[str, Any], outtype: Outtype) -> None:
    """Raises ModelError for what this file has no table of, and without the package."""
    if find_spec("gguf") is None:
        raise ModelError("a GGUF needs the package gguf", GET_GGUF)
    kind, rope = config.get("model_type"), (config.get("rope_parameters") or config.get("rope_scaling") or {}).get("rope_type", "default")
    if kind not in FAMILIES:
        raise ModelError(f"there is no table of how GGUF stores {kind} models", f"{CONVERTER} {outtype}")
    if rope != "default":
        raise ModelError(f"positions of the kind {rope} are not converted here", f"{CONVERTER} {outtype}")
    if config.get("mlp_bias") or config.get("use_sliding_window"):
        raise ModelError("biases of feed-forwards and sliding windows are not converted here", f"{CONVERTER} {outtype}")


def write_gguf(directory: Path, file: Path, outtype: Outtype, name: str, tell: Tell = unheard, trust_remote_code: bool = False) -> None:
    """Convert a model of which `check_family` says nothing. Raises ModelError, OSError."""
    import gguf

    config = read_config(directory)
    writer = gguf.GGUFWriter(file, FAMILIES[config["model_type"]])
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if outtype == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_shape(writer, config)
    write_vocabulary(writer, directory, int(config["vocab_size"]), f"{CONVERTER} {outtype}", trust_remote_code)
    for tensor, values in _tensors(directory, config, outtype, tell):
        kind = _kind(values, outtype)
        writer.add_tensor(tensor, gguf.quants.quantize(values, kind), raw_dtype=kind)
    tell(Exporting("writing the file"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: Any, config: dict[str, Any]) -> None:
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    head = int(config.get("head_dim") or width // heads)
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)


def _tensors(directory: Path, config: dict[str, Any], outtype: Outtype, tell: Tell) -> Iterator[tuple[str, Any]]:
    """llama.cpp's name and float32 values of each tensor, one at a time. Raises ModelError for one that has no place."""
    import gguf
    import torch
    from safetensors import safe_open

    architecture = gguf.MODEL_ARCH[FAMILIES[config["model_type"]].upper()]
    names = gguf.get_tensor_name_map(architecture, int(config["num_hidden_layers"]))
    heads = int(config["num_attention_heads"])
    turned = {"q_proj": heads, "k_proj": int(config.get("num_key_value_heads") or heads)} if FAMILIES[config["model_type"]] == "llama" else {}
    files, done = check_weights(directory), 0
    of = sum(len(read_header(file)) for file in files)
    for file in files:
        with safe_open(file, framework="pt") as stored:
            for name in sorted(stored.keys()):
                tell(Exporting("converting tensors:", done, of))
                done += 1
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                found = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if found is None:
                    raise ModelError(f"GGUF has no place for {name}", f"{CONVERTER} {outtype}")
                values = stored.get_tensor(name).to(torch.float32)
                layer = name.split(".")[-2]
                yield found, (_interleaved(values, turned[layer]) if layer in turned else values).numpy()


def _interleaved(values: Any, heads: int) -> Any:
    """Rows of a query or key projection in the order of rotary positions that take neighbours for a pair: (heads, 2, d/2) -> (heads, d/2, 2)."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _kind(values: Any, outtype: Outtype) -> Any:
    from gguf import GGMLQuantizationType as Kind

    if values.ndim == 1:
        return Kind.F32
    return Kind.Q8_0 if outtype == "q8_0" and values.shape[-1] % 32 == 0 else Kind.F16
