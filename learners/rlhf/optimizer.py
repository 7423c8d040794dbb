"""Adam as every stage uses it: warmed up, with a bound on the gradient's norm, and forgotten when other weights are loaded.

After Kingma and Ba 2015. What differs: a step whose gradient is not finite is left out instead of spoiling the weights and the moments. A
LoRA starts from a zero matrix, where Adam's first steps are its largest: hence the warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import increment_version

from learners.rlhf import ranks
from learners.rlhf.ops import warmup


@dataclass(frozen=True)
class AdamSettings:
    """Of all stages; rates are the stages' own."""

    betas: tuple[float, float] = (0.9, 0.95)  # OpenRLHF
    eps: float = 1e-5  # Ziegler et al. 2019
    warmup_steps: int = 5  # optimizer steps to the full rate
    max_grad_norm: float = 1.0  # of all parameters together


class Optimizer:
    """Steps of Adam at one learning rate over one set of parameters."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rate: float,
        settings: AdamSettings | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called after each step that was applied."""
        self.parameters, self._changed = list(parameters), changed
        self.settings = settings or AdamSettings()
        self.rate = rate
        self.reset()

    def reset(self) -> None:
        """Forget moments, warm-up and gradients: the parameters have been given other values."""
        self.steps = 0
        self._adam = torch.optim.Adam(self.parameters, self.rate, self.settings.betas, self.settings.eps, fused=self._fused)
        self.clear()

    @property
    def _fused(self) -> bool:
        """One kernel for many weights where there are such kernels."""
        return bool(self.parameters) and all(p.device.type in ("cuda", "cpu") and p.is_floating_point() for p in self.parameters)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.rate * warmup(self.steps, self.settings.warmup_steps)

    def step(self) -> float:
        """Apply and clear the gradients that have gathered, on all ranks; their norm before clipping, which if not finite leaves the parameters
        alone."""
        ranks.add_up_gradients(self.parameters)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))  # the step's only wait for the device
        if math.isfinite(norm):
            self._adam.param_groups[0]["lr"] = self.learning_rate
            self._adam.step()
            increment_version(self.parameters)  # the fused one does not: copies of weights go by it
            self._changed()
            self.steps += 1
        self.clear()
        return norm

    def clear(self) -> None:
        """Drop the gradients that have gathered, also those of a step that was broken off."""
        self._adam.zero_grad()

    def state(self) -> dict[str, Any]:
        """Steps and moments, to go on from: `load_state`. Tensors are the optimizer's own."""
        return {"steps": self.steps, "adam": self._adam.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; the parameters must have the values that they had then."""
        self.steps = state["steps"]
        self._adam.load_state_dict(state["adam"])
        self.clear()
