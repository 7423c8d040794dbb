"""A model's tokenizer, as transformers makes it of the files beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learners.model.checkpoint import TOKENIZER_PATTERNS, ModelError, first_line, older_template, read_object


def load_tokenizer(directory: Path, trust_remote_code: bool = False) -> Any:
    """Raises ModelError. Code that comes with a tokenizer runs only where it was asked for."""
    from transformers import AutoTokenizer

    if not any(found for pattern in TOKENIZER_PATTERNS for found in directory.glob(pattern)):
        raise ModelError(f"there is no tokenizer in {directory}", "put its tokenizer.json and tokenizer_config.json beside the weights")
    try:  # never None, with which transformers asks on the terminal
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # any of a dozen parsers
        if not trust_remote_code and has_own_code(directory) and "trust_remote_code" in str(error):
            what = f"the tokenizer in {directory} needs code of its own to run, which is not run unasked"
            raise ModelError(what, "read it, then pass --trust-remote-code") from error
        raise ModelError(f"no usable tokenizer in {directory}: {first_line(error)}", "a model needs its tokenizer.json beside it") from error
    tokenizer.chat_template = tokenizer.chat_template or older_template(directory)
    return tokenizer


def has_own_code(directory: Path) -> bool:
    """Whether a model or its tokenizer names code that lies beside it."""
    return any("auto_map" in read_object(directory / name) for name in ("config.json", "tokenizer_config.json"))
