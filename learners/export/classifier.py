"""A version's reward model as a sequence-classification model of transformers, one label, in bfloat16, with its LoRA merged into the base.

The value after each token is `score(state)`, normalisation included but for a constant, which is `reward_offset` in the config: such a head has no
bias. The score that was learned is the mean of these values over an answer's tokens (see reward_service.py), not the value after the last token.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from learners.export.merged import base_of, merged
from learners.export.request import ExportRequest, Tell, unheard
from learners.model.checkpoint import ModelError, first_line
from learners.model.conversion import copy_tokenizer
from learners.model.foreign_adapter import adapted, plain
from learners.model.lora_forward import ADAPTER
from learners.model.stored import CONFIG, WEIGHTS


def write_classifier(request: ExportRequest, out: Path, tell: Tell = unheard) -> None:
    """Write the directory. Raises ModelError where the version has no reward model, or the family no class for it."""
    source = base_of(request, tell)
    import torch
    from safetensors.torch import load_file

    state = load_file(Path(request.adapter) / "reward_model.safetensors")
    if not state:
        raise ModelError("the version has no reward model yet", "train with the stage reward first, or choose another version")
    gain, bias = state["normalisation"].tolist()
    with torch.no_grad():
        base = plain(source.directory, request.trust_remote_code)
        tree = merged(_with_lora(base, state, Path(request.adapter)), tell)
        model = _classifier(tree)
        model.score.weight.copy_(gain * state["head.weight"])
        model.config.reward_offset = gain * float(state["head.bias"]) + bias
        model.config._name_or_path = ""
        model.save_pretrained(out)
    copy_tokenizer(source.directory, out)


def _with_lora(model: Any, state: dict[str, Any], version: Path) -> Any:
    """The base with the reward model's LoRA on it, which has the size of the policy's."""
    from safetensors.torch import save_file

    lora = {name.removeprefix("lora.").replace(f".{ADAPTER}.", "."): each for name, each in state.items() if name.startswith("lora.")}
    with tempfile.TemporaryDirectory() as folder:
        save_file(lora, Path(folder) / WEIGHTS)
        (Path(folder) / CONFIG).write_text((version / CONFIG).read_text(encoding="utf-8"), encoding="utf-8")
        return adapted(model, Path(folder))


def _classifier(causal: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    config = type(causal.config).from_dict(json.loads(causal.config.to_json_string(use_diff=False)))
    config.num_labels = 1
    if config.pad_token_id is None:  # by which transformers finds the last token of a row
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end
    config.dtype = causal.dtype
    try:
        model = AutoModelForSequenceClassification.from_config(config)
        model.base_model.load_state_dict(causal.base_model.state_dict())
        model.score  # noqa: B018
    except (ValueError, AttributeError, RuntimeError) as error:
        what = f"transformers has no sequence-classification model for {config.model_type} that takes these weights: {first_line(error)}"
        raise ModelError(what, "export the judgements, and train a reward model there") from error
    return model.to(causal.dtype)
