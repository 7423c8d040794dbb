"""Which of transformers' classes a model is, and whether there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learners.model.checkpoint import ModelError, check_architecture, check_loaded, first_line, no_language_model, read_config


def model_class(config: dict[str, Any]) -> Any:
    """What of transformers makes a model of this configuration: the whole of one that sees images too, though its text part alone is used."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind = config.get("model_type")
    sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def load_model(directory: Path, named: Path | None = None, **how: Any) -> Any:
    """The model of a directory, with all its weights. `named` is what a ModelError is about. Raises it, and as they are OSError and what says
    that a memory is full."""
    import torch

    try:
        model, info = model_class(read_config(directory)).from_pretrained(
            directory, output_loading_info=True, use_safetensors=True, local_files_only=True, **how
        )
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what, hint = f"cannot load {named or directory}: {first_line(error)}", "check that the directory holds a causal language model"
        raise ModelError(what, hint) from error
    check_loaded(info, str(named or directory))
    return model


def check_config(config: dict[str, Any], name: str, trust_remote_code: bool = False) -> None:
    """Raises ModelError where the installed transformers makes no model of it. Code that comes with a model runs only where it was asked for."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    check_architecture(config)
    kind = config.get("model_type")
    own = isinstance(config.get("auto_map"), dict)
    if own and trust_remote_code:
        return
    if kind not in CONFIG_MAPPING:
        if own:
            raise ModelError(f"{name} needs code of its own to run, which is not run unasked", "read it, then pass --trust-remote-code")
        what = f"is of the family {kind!r}, which the installed transformers does not know" if kind else "does not say of which family it is"
        raise ModelError(f"{name} {what}", "upgrade transformers, or choose another model")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise no_language_model(str(kind))


def check_settings(directory: Path, trust_remote_code: bool = False) -> None:
    """Raises ModelError where config.json says what its family does not."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # it may say anything of anything
        what = f"the config.json in {directory} cannot be used: {first_line(error)}"
        raise ModelError(what, "fetch the model again, or upgrade transformers") from error
