"""Weights in FP8 times their scales, in bfloat16."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from learners.model.fp8 import block_of, scales_in, spread

SHARD = "model.safetensors"


def unpack(files: Sequence[Path], settings: Mapping[str, Any], target: Path, told: Callable[[int, int], None]) -> None:
    """Write the same weights in bfloat16, file by file; what is not in FP8 stays as it is. Raises ValueError as `scales_in`."""
    readers = [safe_open(file, "pt") for file in files]
    places = {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118
    scales = scales_in({name: _about(reader.get_slice(name)) for name, reader in places.items()}, settings)
    dropped = set(scales.values())
    weight_map: dict[str, str] = {}
    for place, (file, reader) in enumerate(zip(files, readers, strict=True)):
        told(place, len(files))
        written = {}
        for name in reader.keys():  # noqa: SIM118
            if name not in dropped:
                tensor = reader.get_tensor(name)
                written[name] = product(tensor, places[scales[name]].get_tensor(scales[name]), block_of(settings)) if name in scales else tensor
        save_file(written, target / file.name, {"format": "pt"})
        weight_map |= dict.fromkeys(written, file.name)
    if [file.name for file in files] != [SHARD]:
        (target / f"{SHARD}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


def _about(piece: Any) -> dict[str, Any]:
    return {"dtype": piece.get_dtype(), "shape": piece.get_shape()}


def product(weight: Any, scale: Any, block: tuple[int, int]) -> Any:
    """What a weight in FP8 stands for, in bfloat16."""
    factors = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
    along = spread(weight.shape, factors.shape, block)
    assert along is not None
    if factors.numel() == 1:
        return (weight.float() * factors.reshape(())).to(torch.bfloat16)
    rows, columns = weight.shape[-2:]
    factors = factors.repeat_interleave(along[0], -2)[..., :rows, :].repeat_interleave(along[1], -1)[..., :columns]
    return (weight.float() * factors).to(torch.bfloat16)
