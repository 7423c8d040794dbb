"""Which of transformers' classes a model is, and whether there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learners.model.checkpoint import ModelError, check_architecture, first_line, no_language_model


def model_class(config: dict[str, Any]) -> Any:
    """What of transformers makes a model of this configuration: the whole of one that sees images too, though its text part alone is used."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind = config.get("model_type")
    sees = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


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
