"""Models to begin with, by the memory that teaching them takes, as one JSON line: `python -m learners.model.catalogue`. Loads and fetches nothing.

Run as a child by `tamer models`. Sizes are those of the models' own configurations; all have a chat template and weights in safetensors.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from learners.model.inspection import Shape, estimate

CONTEXT = 2048
"""Tokens of prompt and answer that the memory is told for."""
ROWS = 8
"""Four answers, and a row of the base beside each."""
TRAINING = 1e9
"""Bytes for one forward with its backward, see memory.py."""


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
    bytes: int  # in NF4 with all four roles, answers and training, at 2,048 tokens; estimated
    fits: bool
    cached: bool


class Catalogue(Struct, frozen=True):
    """What fits comes first: on a GPU the largest at the head, on a CPU the fastest; then what does not, the smallest first."""

    device: str
    memory: int  # bytes of the device, or free of this machine
    models: tuple[Offer, ...]


def bytes_of(model: Known, device: str) -> int:
    """What teaching it takes in NF4."""
    found = estimate(model.name, model.shape, "nf4", device)
    element = 4 if device == "cpu" else 2
    cache = ROWS * CONTEXT * 2 * model.layers * model.keys * element
    return found.base_bytes + found.roles_bytes + cache + int(TRAINING)


def catalogue(device: str, memory: int, cache: Path) -> Catalogue:
    """For a device with so many bytes. `cache`: the hub's own folder of what was fetched."""
    kind = device.split(":")[0]
    offers = [Offer(m.name, m.licence, m.parameters, need := bytes_of(m, kind), need <= memory, _cached(m.name, cache)) for m in MODELS]
    fitting, others = ([offer for offer in offers if offer.fits is fits] for fits in (True, False))
    return Catalogue(device, memory, (*sorted(fitting, key=lambda o: o.bytes if kind == "cpu" else -o.bytes), *sorted(others, key=lambda o: o.bytes)))


def _cached(name: str, cache: Path) -> bool:
    return any((cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/*.safetensors"))


def _memory(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[1])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        import os

        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def main() -> None:
    """Of this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from learners.model.device import choose_device

    device = str(choose_device())
    print(msgspec.json.encode(catalogue(device, _memory(device), Path(HF_HUB_CACHE))).decode())


if __name__ == "__main__":
    main()
