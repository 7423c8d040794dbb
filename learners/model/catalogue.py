"""Models to begin with, by the memory that teaching them takes, as one JSON line: `python -m learners.model.catalogue`. Loads and fetches nothing.

Run as a child by `tamer models`. Sizes are those of the models' own configurations; all have a chat template and weights in safetensors.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from learners.model.checkpoint import ModelError, is_whole
from learners.model.inspection import Shape, bytes_of_a_number, estimate, memory_of

CONTEXT = 2048
"""Tokens of prompt and answer that the memory is told for."""
ROWS = 8
"""Four answers, and a row of the base beside each."""
TRAINING = 1e9
"""Bytes for one forward with its backward, see memory.py; for an answer that takes more alone, what it takes."""
CUDA = 0.6e9
"""Bytes that CUDA and its libraries take beside tensors."""


class Known(Struct, frozen=True):
    """A model on the hub."""

    name: str
    licence: str
    parameters: int
    layers: int
    width: int
    inner: int  # of the feed-forward
    vocabulary: int
    keys: int  # width of a token's keys in a layer, and of its values
    tied: bool = True  # embedding and LM head are one

    @property
    def shape(self) -> Shape:
        return Shape(self.parameters, self.layers, self.width, self.inner, self.vocabulary * self.width * (1 if self.tied else 2))


MODELS = (
    Known("HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0", 134_515_008, 30, 576, 1536, 49_152, 192),
    Known("HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", 361_821_120, 32, 960, 2560, 49_152, 320),
    Known("Qwen/Qwen3-0.6B", "Apache-2.0", 596_049_920, 28, 1024, 3072, 151_936, 1024),
    Known("allenai/OLMo-2-0425-1B-Instruct", "Apache-2.0", 1_484_916_736, 16, 2048, 8192, 100_352, 2048, tied=False),
    Known("HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0", 1_711_376_384, 24, 2048, 8192, 49_152, 2048),
    Known("Qwen/Qwen3-1.7B", "Apache-2.0", 1_720_574_976, 28, 2048, 6144, 151_936, 1024),
    Known("ibm-granite/granite-3.3-2b-instruct", "Apache-2.0", 2_533_539_840, 40, 2048, 8192, 49_159, 512),
    Known("HuggingFaceTB/SmolLM3-3B", "Apache-2.0", 3_075_098_624, 36, 2048, 11_008, 128_256, 512),
    Known("Qwen/Qwen3-4B-Instruct-2507", "Apache-2.0", 4_022_468_096, 36, 2560, 9728, 151_936, 1024),
    Known("Qwen/Qwen3-8B", "Apache-2.0", 8_190_735_360, 36, 4096, 12_288, 151_936, 1024, tied=False),
    Known("microsoft/phi-4", "MIT", 14_659_507_200, 40, 5120, 17_920, 100_352, 1280, tied=False),
    Known("Qwen/Qwen3-14B", "Apache-2.0", 14_768_307_200, 40, 5120, 17_408, 151_936, 1024, tied=False),
    Known("mistralai/Mistral-Small-24B-Instruct-2501", "Apache-2.0", 23_572_403_200, 40, 5120, 32_768, 131_072, 1024, tied=False),
    Known("Qwen/Qwen3-32B", "Apache-2.0", 32_762_123_264, 64, 5120, 25_600, 151_936, 1024, tied=False),
)


class Offer(Struct, frozen=True):
    """A model as it is for this machine."""

    name: str
    licence: str
    parameters: int
    bytes: int  # with all four roles, answers and training, at 2,048 tokens; estimated
    fits: bool
    cached: bool


class Catalogue(Struct, frozen=True):
    """What fits comes first: on a GPU the largest at the head, on a CPU the fastest; then what does not, the smallest first."""

    device: str
    memory: int  # bytes of the device, or free of this machine
    quantize: str  # what the bytes are for
    models: tuple[Offer, ...]


def quantization_on(kind: str) -> str:
    """What the list is for on a device of this kind: 4 bit, but on Apple's MPS, where that is not loaded unasked."""
    return "none" if kind == "mps" else "nf4"


def bytes_of(model: Known, kind: str) -> int:
    """What teaching it takes."""
    found = estimate(model.name, model.shape, quantization_on(kind), kind)
    cache = ROWS * CONTEXT * 2 * model.layers * model.keys * bytes_of_a_number(kind)
    itself = CUDA if kind == "cuda" else 0
    return int(found.base_bytes + found.roles_bytes + cache + max(TRAINING, _recomputed(model, kind)) + itself)


def _recomputed(model: Known, kind: str) -> float:
    """Bytes of one answer whose layers are computed again in the backward pass: their inputs, and all of one, as in memory.py."""
    read, written = 6 * model.width + model.inner, 3 * model.width + 2 * model.keys + 2 * model.inner
    one = 0.6 * read + 1.5 * written + 4 * model.width
    return CONTEXT * bytes_of_a_number(kind) * (model.layers * (model.width + 4 * model.keys) + one)


def catalogue(device: str, memory: int, cache: Path) -> Catalogue:
    """For a device with so many bytes. `cache`: the hub's own folder of what was fetched."""
    kind = device.split(":")[0]
    offers = [Offer(m.name, m.licence, m.parameters, need := bytes_of(m, kind), need <= memory, _cached(m.name, cache)) for m in MODELS]
    fitting, others = ([offer for offer in offers if offer.fits is fits] for fits in (True, False))
    fitting.sort(key=lambda offer: offer.parameters, reverse=kind != "cpu")
    return Catalogue(device, memory, quantization_on(kind), (*fitting, *sorted(others, key=lambda offer: offer.bytes)))


def _cached(name: str, cache: Path) -> bool:
    return any(is_whole(each) for each in (cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*"))


def main() -> None:
    """Of this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from learners.model.device import choose_device

    device = str(choose_device())
    try:
        memory = memory_of(device)
    except ModelError:  # full, or next to: what it has is known all the same
        import torch

        memory = int(torch.cuda.get_device_properties(device).total_memory)
    print(msgspec.json.encode(catalogue(device, memory, Path(HF_HUB_CACHE))).decode())


if __name__ == "__main__":
    main()
