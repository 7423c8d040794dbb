"""A version as a directory: a LoRA that PEFT alone loads, and beside it what the program needs to go on from there.

    adapter_config.json, adapter_model.safetensors   the policy, as `PeftModel.from_pretrained(base, directory)` expects it
    human_reward.safetensors                         Ĥ as of the version
    reward_model.safetensors, value_head.safetensors the judges of PPO
    reference.safetensors                            the SFT adapter that the policy is held to, if there is one
    manifest.json                                    where it came from

Safetensors and JSON only: nothing in a version can run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct
from torch import Tensor

from learners.model.lora import LoraSettings

FORMAT = 1


class VersionError(Exception):
    """A version's files cannot be used, in one line."""


class Manifest(Struct, frozen=True):
    """Where a version came from."""

    base_hash: str
    parent: str
    stage: str
    seed: int
    seqs: tuple[int, ...]  # judgements that influenced the policy's weights
    h_epoch: int
    absorbed_beta: float  # strength of Ĥ that the adapter has absorbed, 0 for none
    rank: int
    alpha: float
    format: int = FORMAT
    reference_seqs: tuple[int, ...] | None = None  # that the reference imitates; None in old versions, as below
    reward_seqs: tuple[int, ...] | None = None  # that influenced the reward model
    reward_steps: int | None = None  # its optimizer steps
    distilled_seqs: tuple[int, ...] | None = None  # whose Ĥ the last whole distillation absorbed …
    distilled_nats: float | None = None  # … within this budget, nats per 64 tokens
    critiques: tuple[int, ...] = ()  # judgements in words that the adapter has absorbed


@dataclass(frozen=True)
class States:
    """The tensors of a version, by name."""

    adapter: Mapping[str, Tensor]
    human_reward: Mapping[str, Tensor]
    reward_model: Mapping[str, Tensor]
    value_head: Mapping[str, Tensor]
    reference: Mapping[str, Tensor] | None = None


def pack(states: States, manifest: Manifest, peft_config: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a version: name -> content."""
    from safetensors.torch import save

    def tensors(state: Mapping[str, Tensor]) -> bytes:
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, {"format": "pt"})

    files = {
        "adapter_config.json": json.dumps(peft_config, indent=1, sort_keys=True).encode(),
        "adapter_model.safetensors": tensors(states.adapter),
        "human_reward.safetensors": tensors(states.human_reward),
        "reward_model.safetensors": tensors(states.reward_model),
        "value_head.safetensors": tensors(states.value_head),
        "manifest.json": msgspec.json.format(msgspec.json.encode(manifest)),
    }
    if states.reference is not None:
        files["reference.safetensors"] = tensors(states.reference)
    return files


def unpack(files: Mapping[str, bytes]) -> tuple[States, Manifest]:
    """Raises VersionError when files are missing or are not what they should be."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
        if manifest.format > FORMAT:
            raise VersionError("this version was made by a newer program: update tamer")
        names = ("adapter_model", "human_reward", "reward_model", "value_head")
        loaded = [load(files[f"{name}.safetensors"]) for name in names]
        reference = load(files["reference.safetensors"]) if "reference.safetensors" in files else None
    except KeyError as error:
        raise VersionError(f"a version without {error.args[0]}") from error
    except (msgspec.DecodeError, SafetensorError) as error:
        raise VersionError(f"a version's file is damaged: {error}") from error
    return States(loaded[0], loaded[1], loaded[2], loaded[3], reference), manifest


def peft_config(settings: LoraSettings, tree: Any, base_name: str) -> dict[str, Any]:
    """What PEFT writes beside an adapter, with the layers named, so that it loads without guessing."""
    config = tree.peft_config["default"].to_dict()
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    plain |= {"base_model_name_or_path": base_name, "inference_mode": True, "r": settings.rank, "lora_alpha": settings.alpha}
    return json.loads(json.dumps(plain, default=str))
