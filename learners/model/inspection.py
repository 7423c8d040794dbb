"""What this machine and a model are, as one JSON line: `python -m learners.model.inspection [MODEL [QUANTIZE]]`. Loads no weights.

Run as a child by `tamer doctor`, since the terminal's process never imports torch.
"""

from __future__ import annotations

import json
import sys

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


class Inspection(Struct, frozen=True):
    """What `tamer doctor` needs to know."""

    torch: str = ""
    device: str = ""
    problems: tuple[str, ...] = ()
    model: ModelInspection | None = None


def inspect_machine(model: str | None, quantize: str) -> Inspection:
    """Never raises: what is wrong is among the problems."""
    problems: list[str] = []
    try:
        import torch

        from learners.model.device import GET_TORCH, choose_device, cpu_build
    except ImportError as error:
        return Inspection(problems=(f"torch cannot be imported: {error}",))
    if missing := cpu_build():
        problems.append(f"{missing}: {GET_TORCH}")
    device = str(choose_device())
    found = None
    if model:
        from learners.model.checkpoint import ModelError

        try:
            found = _look_at(model, quantize, device)
        except ModelError as error:
            problems.append(f"{error.what}: {error.hint}")
    return Inspection(str(torch.__version__), device, tuple(problems), found)


def _look_at(name: str, quantize: str, device: str) -> ModelInspection:
    from learners.model.checkpoint import Progress, check_weights, find_checkpoint, parameter_count
    from learners.model.loading import AUTO_QUANTIZE_PARAMETERS
    from learners.model.lora import LoraSettings

    directory = find_checkpoint(name, Progress(lambda event: None))
    files = check_weights(directory)
    config = json.loads((directory / "config.json").read_bytes())
    parameters = parameter_count(files)
    chosen = quantize if quantize != "auto" else "nf4" if parameters >= AUTO_QUANTIZE_PARAMETERS else "none"
    layers, width = (int(config.get(a) or config.get(b) or 0) for a, b in (("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd")))
    inner = int(config.get("intermediate_size") or config.get("n_inner") or 4 * width)
    full = 4 if device == "cpu" else 2
    per_weight = {"nf4": 0.52, "int8": 1.01, "none": float(full)}[chosen]
    outside = int(config.get("vocab_size", 0)) * width * (1 if config.get("tie_word_embeddings") else 2)
    base = int((parameters - outside) * per_weight + outside * full)
    lora = LoraSettings().rank * layers * (4 * 2 * width + 3 * (width + inner)) * 4
    return ModelInspection(name, parameters, layers, width, chosen, base, int(lora * (ADAPTED_TREES + 2 * (1 + OPTIMIZERS))))


if __name__ == "__main__":
    print(msgspec.json.encode(inspect_machine(*[*sys.argv[1:3], None, "auto"][:2])).decode())  # type: ignore[arg-type]
