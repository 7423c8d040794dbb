"""Weights in FP8, stored with scales beside them: which scale belongs to which weight, and how it lies over it. Seen in headers, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    if spread(tensor["shape"], scale["shape"], block_of(settings)) is None:
        raise ValueError(f"the scale of {name} has the shape {list(scale['shape'])}, and the weight {list(tensor['shape'])}")
    return present[0]


def block_of(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of a block."""
    named = settings.get("weight_block_size")
    for group in (settings.get("config_groups") or {}).values():
        named = named or (group.get("weights") or {}).get("block_structure")
    rows, columns = named or BLOCK
    return int(rows), int(columns)


def spread(weight: Sequence[int], scale: Sequence[int], block: tuple[int, int]) -> tuple[int, int] | None:
    """How many rows and columns each number of a scale is for: one for all, one a row or column, or one a block. None where they do not fit."""
    if math.prod(scale) == 1:
        return 1, 1
    if len(scale) != len(weight) or len(weight) < 2 or list(scale[:-2]) != list(weight[:-2]):
        return None
    if tuple(scale[-2:]) == tuple(-(-size // each) for size, each in zip(weight[-2:], block, strict=True)):
        return block
    along = [size if of == 1 else 1 if of == size else 0 for size, of in zip(weight[-2:], scale[-2:], strict=True)]
    return (along[0], along[1]) if all(along) else None
