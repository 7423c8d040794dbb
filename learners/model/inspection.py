"""What this machine and a model are, as one JSON line: `python -m learners.model.inspection [MODEL [QUANTIZE]]`. Loads no weights.

Run as a child by `tamer doctor`, since the terminal's process never imports torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

ADAPTED_TREES = 4  # actor, policy, reference, reward
OPTIMIZERS = 2.0  # Adam's moments of each of policy and reward model, in LoRA sizes


class ModelInspection(Struct, frozen=True):
    """A model by its files."""

    name: str
    parameters: int
    layers: int
    width: int
    quantize: str  # what 'auto' comes to
    base_bytes: int  # estimated
    roles_bytes: int  # estimated: adapters of all roles, gradients and optimizers
    experts: int = 0  # weights of routed experts, which carry no adapter
    drawing: dict[str, float] = {}  # its own settings of how answers are drawn, where they are at hand
    converted_bytes: int = 0  # of disk, where it is converted before it is used


class Inspection(Struct, frozen=True):
    """What `tamer doctor` needs to know."""

    torch: str = ""
    device: str = ""
    memory: int = 0  # bytes of the device, or free of this machine
    problems: tuple[str, ...] = ()
    model: ModelInspection | None = None


def inspect_machine(model: str | None, quantize: str) -> Inspection:
    """Never raises: what is wrong is among the problems."""
    problems: list[str] = []
    try:
        import torch

        from learners.model.checkpoint import ModelError, first_line
        from learners.model.device import GET_TORCH, cpu_build
    except Exception as error:  # a library of the system's that does not fit says OSError
        return Inspection(problems=(f"torch cannot be imported: {error}",))

    def tried(look: Callable[[], Any], otherwise: Any, what: str) -> Any:
        try:
            return look()
        except ModelError as error:
            problems.append(str(error))
        except Exception as error:  # drivers, and files that may hold anything
            problems.append(f"{what}: {first_line(error)}")
        return otherwise

    if missing := cpu_build():
        problems.append(f"{missing}: {GET_TORCH}")
    device = tried(_device, "", "no device can be used")
    memory = tried(lambda: memory_of(device), 0, f"the memory of {device} cannot be seen")
    if device.startswith("cuda") and not tried(_has_kernels, True, "bitsandbytes cannot be imported"):
        problems.append("bitsandbytes has no kernels for this CUDA, and models load in full only: `python -m bitsandbytes` says why")
    found = tried(lambda: _look_at(model, quantize, device), None, f"{model} cannot be read") if model else None
    if found is not None and memory and found.base_bytes + found.roles_bytes > memory:
        less = "" if found.quantize in ("nf4", "fp4") or device == "mps" else "--quantize nf4, or "
        problems.append(f"{model} takes more than the {memory / 1e9:.1f} GB of {device}: try {less}a smaller model (tamer models)")
    return Inspection(str(torch.__version__), device, memory, tuple(problems), found)


def _device() -> str:
    from learners.model.device import choose_device

    return str(choose_device())


def _has_kernels() -> bool:
    from learners.model.loading import has_kernels

    return has_kernels("cuda")


def memory_of(device: str) -> int:
    """Bytes of a GPU; of this machine what is available. Raises ModelError for a GPU that is full, or does not work."""
    import torch

    if device.startswith("cuda"):
        from learners.model.device import unusable

        try:
            return int(torch.cuda.mem_get_info(device)[1])
        except RuntimeError as error:
            raise unusable(device, error) from error
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _look_at(name: str, quantize: str, device: str) -> ModelInspection:
    """Files alone, or what the hub says of them: nothing is converted, and no weights are read or fetched."""
    from learners.model.checkpoint import Progress, find_checkpoint, is_path
    from learners.model.gguf_header import is_gguf
    from learners.model.hub import cached, described

    file = Path(name).expanduser()
    if name.strip() and file.is_file() and is_gguf(file):
        return _of_gguf(file, name, quantize, device)
    if name == "pocket" or file.exists() or is_path(name) or not name.strip():
        return _of_directory(find_checkpoint(name, Progress(lambda event: None)), name, quantize, device)
    if (directory := cached(name)) is not None:
        return _of_directory(directory, name, quantize, device)
    found = described(name)
    if found.base:
        return _look_at(found.base, quantize, device)
    _check_files(found.config, found.tensors, name)
    return _of_files(found.config, found.tensors, name, quantize, device)


def _of_gguf(file: Path, name: str, quantize: str, device: str) -> ModelInspection:
    from learners.model.conversion import check_readable

    header = check_readable(file)
    width = header.number("embedding_length")
    inner, vocabulary = header.number("feed_forward_length") or 4 * width, header.count("tokenizer.ggml.tokens")
    shape = Shape(header.parameters, header.number("block_count"), width, inner, vocabulary * width)
    return msgspec.structs.replace(estimate(name, shape, quantize, device), converted_bytes=2 * header.parameters)


def _of_directory(directory: Path, name: str, quantize: str, device: str) -> ModelInspection:
    from learners.model.architectures import check_settings
    from learners.model.checkpoint import check_weights, packed_in, read_config, read_header
    from learners.model.stored import base_of, is_adapter
    from learners.model.tokenizers import load_tokenizer

    if is_adapter(directory):
        from learners.model.foreign_adapter import check_kind
        from learners.model.loading import import_bitsandbytes

        import_bitsandbytes()  # as PEFT does, and quietly
        check_kind(directory)
        return _look_at(base_of(directory, name), quantize, device)
    tensors = {each: tensor for file in check_weights(directory) for each, tensor in read_header(file).items()}
    config = read_config(directory)
    _check_files(config, tensors, name)
    if not packed_in(config):  # else it is the copy that has to do
        check_settings(directory)
        load_tokenizer(directory)
    return msgspec.structs.replace(_of_files(config, tensors, name, quantize, device), drawing=drawing_in(directory))


def _check_files(config: dict[str, Any], tensors: dict[str, Any], name: str) -> None:
    from learners.model.architectures import check_config
    from learners.model.checkpoint import check_scales, packed_in, quantization_in

    check_scales(tensors, config, name)
    if not packed_in(config):
        quantization_in(config, name)
    check_config(config, name)


def _of_files(config: dict[str, Any], tensors: dict[str, Any], name: str, quantize: str, device: str) -> ModelInspection:
    """By what config.json and the weights' headers say."""
    from learners.model.checkpoint import packed_in, quantization_in

    stored = "none" if packed_in(config) else quantization_in(config, name)
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    found = estimate(name, _shape_of(config, parameters), quantize if stored == "none" else stored, device)
    return msgspec.structs.replace(found, converted_bytes=2 * parameters if packed_in(config) else 0)


def drawing_in(directory: Path) -> dict[str, float]:
    """What a model's directory says of how its answers are drawn."""
    from learners.model.drawing_settings import drawing_settings

    try:
        return drawing_settings(msgspec.json.decode((directory / "generation_config.json").read_bytes(), type=dict[str, Any]))
    except (OSError, msgspec.DecodeError):
        return {}


class Shape(NamedTuple):
    """What a model's size follows from."""

    parameters: int
    layers: int
    width: int
    inner: int  # of the feed-forward
    outside: int  # weights of embedding and LM head, which are not quantized
    experts: int = 0  # weights of routed experts


def _shape_of(config: dict[str, Any], parameters: int) -> Shape:
    config = config.get("text_config") or config
    layers, width = (int(config.get(a) or config.get(b) or 0) for a, b in (("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd")))
    inner = int(config.get("intermediate_size") or config.get("n_inner") or 4 * width)
    outside = int(config.get("vocab_size", 0)) * width * (1 if config.get("tie_word_embeddings") else 2)
    return Shape(parameters, layers, width, inner, outside, min(parameters, experts_in(config)))


def experts_in(config: dict[str, Any]) -> int:
    """Weights of the routed experts of a model, by its configuration; 0 where there are none."""
    count = next((int(config[name]) for name in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(name)), 0)
    inner = int(config.get("moe_intermediate_size") or config.get("intermediate_size") or 0)
    dense = int(config.get("first_k_dense_replace") or 0)
    return count * 3 * int(config.get("hidden_size") or 0) * inner * max(0, int(config.get("num_hidden_layers") or 0) - dense)


def bytes_of_a_number(device: str) -> int:
    """As the base computes there, see loading.compute_dtype."""
    return 2 if device.startswith("cuda") else 4


def estimate(name: str, shape: Shape, quantize: str, device: str) -> ModelInspection:
    """What a model takes, by its shape."""
    from learners.model.loading import by_itself
    from learners.model.lora import LoraSettings

    chosen = quantize if quantize != "auto" else by_itself(shape.parameters, device.split(":")[0])
    full = bytes_of_a_number(device)
    per_weight = {"nf4": 0.52, "fp4": 0.52, "int8": 1.01, "none": float(full)}[chosen]
    of_experts = {"nf4": 0.5625, "fp4": 0.5625}.get(chosen, float(full))
    base = int((shape.parameters - shape.outside - shape.experts) * per_weight + shape.outside * full + shape.experts * of_experts)
    lora = LoraSettings().rank * shape.layers * (4 * 2 * shape.width + (0 if shape.experts else 3 * (shape.width + shape.inner))) * 4
    roles = int(lora * (ADAPTED_TREES + 2 * (1 + OPTIMIZERS)))
    return ModelInspection(name, shape.parameters, shape.layers, shape.width, chosen, base, roles, shape.experts)


if __name__ == "__main__":
    print(msgspec.json.encode(inspect_machine(*[*sys.argv[1:3], None, "auto"][:2])).decode())  # type: ignore[arg-type]
