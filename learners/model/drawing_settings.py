"""How a model's own generation settings say that its answers are drawn, as far as they are settings of `Sampling`. Without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from storage.limits import HIGHEST_PENALTY, HIGHEST_TEMPERATURE, HIGHEST_TOP_K, LOWEST_PENALTY, LOWEST_TEMPERATURE

_VALID: dict[str, Callable[[float], bool]] = {
    "temperature": lambda value: LOWEST_TEMPERATURE <= value <= HIGHEST_TEMPERATURE,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: 0 <= value <= HIGHEST_TOP_K and value == int(value),
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: LOWEST_PENALTY <= value <= HIGHEST_PENALTY,
}


def drawing_settings(generation: Mapping[str, Any]) -> dict[str, float]:
    """Of a generation_config.json, those that make sense. Answers are drawn always: a model that is set to be greedy has no say in how."""
    if generation.get("do_sample") is False:
        return {}
    found = {name: generation.get(name) for name in _VALID}
    numbers = {name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    valid = {name: value for name, value in numbers.items() if math.isfinite(value) and _VALID[name](value)}
    return {name: int(value) if name == "top_k" else float(value) for name, value in valid.items()}
