"""What four roles cost over one base: bytes of distinct storages, for each quantization, beside what four copies of the base would take.

    python benchmarks/memory.py

Prints one JSON line. `over_adapters` is the extra memory of all roles over that of their LoRA weights alone: 1.0 is nothing but adapters.
"""

from __future__ import annotations

import json
from pathlib import Path

from learners.model.loading import load_backbone
from learners.model.lora import lora_parameters
from learners.model.replicas import distinct_bytes

MODEL = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
ROLES = ("actor", "policy", "reference", "reward")


def measure(quantize: str) -> dict[str, float]:
    backbone = load_backbone(str(MODEL), quantize)
    trees = [backbone.adapter_tree(seed=i) for i, _ in enumerate(ROLES)]
    base, together = distinct_bytes(backbone.model), distinct_bytes(backbone.model, backbone.tree(), *trees)
    adapters = sum(p.numel() * p.element_size() for tree in trees for p in lora_parameters(tree).values())
    return {
        "base_bytes": base,
        "extra_bytes": together - base,
        "adapter_bytes": adapters,
        "over_adapters": round((together - base) / adapters, 4),
        "of_four_copies": round(together / (4 * base + adapters), 3),
    }


def main() -> None:
    print(json.dumps({quantize: measure(quantize) for quantize in ("none", "nf4", "int8")}))


if __name__ == "__main__":
    main()
