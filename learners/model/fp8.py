"""Weights in FP8, stored with scales beside them: which scale belongs to which weight, and their product. Torch only where weights are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

EIGHT_BITS = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
"""As safetensors names them."""
PACKED_TYPES = ("I8", "U8", "F4", "F6_E2M3", "F6_E3M2")
"""Of weights that are no numbers until they are unpacked in some other way."""
SCALE_TYPES = ("F32", "F16", "BF16", "F64", "F8_E8M0")
BLOCK = (128, 128)
"""Where a configuration does not name its own, as in transformers."""
POWERS = "ue8m0"
"""Scales that are exponents of two, in a byte each."""
SHARD = "model.safetensors"
Tensors = Mapping[str, Mapping[str, Any]]
"""`dtype` and `shape` by name, as in the headers of safetensors."""


def is_product(settings: Mapping[str, Any]) -> bool:
    """Whether weights stored by these settings are products with their scales, and nothing else was done to them."""
    method = settings.get("quant_method")
    if method == "compressed-tensors":
        sparse = (settings.get("sparsity_config") or {}).get("format", "dense")
        return settings.get("format") == "float-quantized" and sparse == "dense" and not settings.get("transform_config")
    return method in ("fp8", "fbgemm_fp8")


def scales_in(tensors: Tensors, settings: Mapping[str, Any]) -> dict[str, str]:
    """The scale of each weight in FP8. Raises ValueError for a weight of which it is not certain what number it stands for."""
    found = {}
    for name, tensor in tensors.items():
        if tensor["dtype"] in EIGHT_BITS:
            found[name] = _scale_of(name, tensor, tensors, settings)
    scales = set(found.values())
    for name, tensor in tensors.items():
        if tensor["dtype"] in PACKED_TYPES and name not in scales:
            raise ValueError(f"{name} is stored as {tensor['dtype']}, which is not unpacked here")
    return found


def _scale_of(name: str, tensor: Mapping[str, Any], tensors: Tensors, settings: Mapping[str, Any]) -> str:
    stem = name.removesuffix(".weight")
    names = [f"{name}_scale_inv", f"{name}_scale", *((f"{stem}.scale", f"{stem}.qscale_weight") if stem != name else ())]
    present = [each for each in names if each in tensors]
    if len(present) != 1:
        raise ValueError(f"{name} has {'no scale' if not present else 'several scales'}")
    if f"{name}_zero_point" in tensors:
        raise ValueError(f"{name} has a zero point")
    scale = tensors[present[0]]
    exponents = scale["dtype"] == "U8" and settings.get("scale_fmt") == POWERS
    if not (exponents or scale["dtype"] in SCALE_TYPES):
        raise ValueError(f"the scale of {name} is stored as {scale['dtype']}")
    if _spread(tensor["shape"], scale["shape"], _block(settings)) is None:
        raise ValueError(f"the scale of {name} has the shape {list(scale['shape'])}, and the weight {list(tensor['shape'])}")
    return present[0]


def _block(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of a block."""
    named = settings.get("weight_block_size")
    for group in (settings.get("config_groups") or {}).values():
        named = named or (group.get("weights") or {}).get("block_structure")
    rows, columns = named or BLOCK
    return int(rows), int(columns)


def _spread(weight: Sequence[int], scale: Sequence[int], block: tuple[int, int]) -> tuple[int, int] | None:
    """How many rows and columns each number of a scale is for: one for all, one a row or column, or one a block. None where they do not fit."""
    if math.prod(scale) == 1:
        return 1, 1
    if len(scale) != len(weight) or len(weight) < 2 or list(scale[:-2]) != list(weight[:-2]):
        return None
    if tuple(scale[-2:]) == tuple(-(-size // each) for size, each in zip(weight[-2:], block, strict=True)):
        return block
    along = [size if of == 1 else 1 if of == size else 0 for size, of in zip(weight[-2:], scale[-2:], strict=True)]
    return (along[0], along[1]) if all(along) else None


def unpack(files: Sequence[Path], settings: Mapping[str, Any], target: Path, told: Callable[[int, int], None]) -> None:
    """Write the same weights in bfloat16, file by file; what is not in FP8 stays as it is. Raises ValueError as `scales_in`."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    readers = [safe_open(file, "pt") for file in files]
    places = {name: reader for reader in readers for name in reader.keys()}  # noqa: SIM118
    scales = scales_in({name: _about(reader.get_slice(name)) for name, reader in places.items()}, settings)
    dropped, weight_map = set(scales.values()), {}
    for place, (file, reader) in enumerate(zip(files, readers, strict=True)):
        told(place, len(files))
        written = {}
        for name in reader.keys():  # noqa: SIM118
            if name not in dropped:
                tensor = reader.get_tensor(name)
                written[name] = product(tensor, places[scales[name]].get_tensor(scales[name]), _block(settings)) if name in scales else tensor
        save_file(written, target / file.name, {"format": "pt"})
        weight_map |= dict.fromkeys(written, file.name)
    if [file.name for file in files] != [SHARD]:
        (target / f"{SHARD}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


def _about(piece: Any) -> dict[str, Any]:
    return {"dtype": piece.get_dtype(), "shape": piece.get_shape()}


def product(weight: Any, scale: Any, block: tuple[int, int]) -> Any:
    """What a weight in FP8 stands for, in bfloat16."""
    import torch

    factors = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
    spread = _spread(weight.shape, factors.shape, block)
    assert spread is not None
    if factors.numel() == 1:
        return (weight.float() * factors.reshape(())).to(torch.bfloat16)
    rows, columns = (weight.shape[-2], weight.shape[-1])
    factors = factors.repeat_interleave(spread[0], -2)[..., :rows, :].repeat_interleave(spread[1], -1)[..., :columns]
    return (weight.float() * factors).to(torch.bfloat16)
