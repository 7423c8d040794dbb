"""The vocabulary of a `tokenizer.json` in a GGUF file: byte-level BPE as GPT-2 has it, and sentencepiece's BPE as Llama has it.

llama.cpp knows by name how a text is split before its merges; a tokenizer that splits in another way is refused, since it would read other tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from learners.model.checkpoint import ModelError
from learners.model.tokenizers import load_tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama-bpe",
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2",
)
SPLITS = dict((LLAMA3, QWEN2))
"""Regular expressions of pre-tokenizers -> llama.cpp's names of them."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's types of tokens."""


def write_vocabulary(writer: Any, directory: Path, rows: int, instead: str, trust_remote_code: bool = False) -> None:
    """Tokens, types, merges, special tokens and chat template. `rows` of the embedding. Raises ModelError with `instead` as what to do."""
    try:
        stored = json.loads((directory / "tokenizer.json").read_bytes())
        model = stored["model"]
        vocabulary: dict[str, int] = model["vocab"]
        merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("the tokenizer is not of a kind that is converted here", instead) from error
    tokens, types = _tokens(vocabulary, stored.get("added_tokens") or [], rows, instead)
    if _is_byte_level(stored):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split_name(stored.get("pre_tokenizer") or {}, instead))
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges([" ".join(merge) for merge in merges])
    elif model.get("byte_fallback") and stored.get("normalizer"):
        _write_sentencepiece(writer, tokens, types, merges, model.get("unk_token"))
    else:
        raise ModelError("the tokenizer is neither byte-level BPE nor of sentencepiece's kind", instead)
    _write_specials(writer, directory, {token: i for i, token in enumerate(tokens)}, trust_remote_code)


def _tokens(vocabulary: dict[str, int], added: list[dict[str, Any]], rows: int, instead: str) -> tuple[list[str], list[int]]:
    """One for each row of the embedding."""
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    known = {**vocabulary, **{str(each["content"]): int(each["id"]) for each in added}}
    if max(known.values()) >= rows:
        raise ModelError("the tokenizer has more tokens than the model has rows", instead)
    for token, i in known.items():
        tokens[i], types[i] = token, NORMAL
    for each in added:
        types[int(each["id"])] = CONTROL if each.get("special") else USER_DEFINED
    return tokens, types


def _is_byte_level(stored: dict[str, Any]) -> bool:
    return (stored.get("decoder") or {}).get("type") == "ByteLevel"


def _split_name(pre: dict[str, Any], instead: str) -> str:
    parts = pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]
    kinds = [part.get("type") for part in parts]
    last = parts[-1]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and last.get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
            found = SPLITS.get((parts[0].get("pattern") or {}).get("Regex", ""))
            if found is not None:
                return found
    raise ModelError("the tokenizer splits texts in a way that is not converted here", instead)


def _write_sentencepiece(writer: Any, tokens: list[str], types: list[int], merges: list[tuple[str, ...]], unknown: str | None) -> None:
    """A token's score is minus the place of the first merge that makes it: the best score is merged first."""
    place: dict[str, int] = {}
    for i, merge in enumerate(merges):
        place.setdefault("".join(merge), i)
    scores = [-float(place.get(token, len(merges))) if types[i] == NORMAL else 0.0 for i, token in enumerate(tokens)]
    is_byte = [len(token) == 6 and token.startswith("<0x") and token.endswith(">") for token in tokens]
    types = [UNKNOWN if token == unknown else BYTE if byte else kind for token, byte, kind in zip(tokens, is_byte, types, strict=True)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_add_space_prefix(True)


def _write_specials(writer: Any, directory: Path, ids: dict[str, int], trust_remote_code: bool) -> None:
    """As the tokenizer itself says, so that nothing has to be guessed from its files."""
    tokenizer = load_tokenizer(directory, trust_remote_code)
    named = {
        "bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id, "unk": writer.add_unk_token_id, "pad": writer.add_pad_token_id,
    }  # fmt: skip
    for name, add in named.items():
        token = getattr(tokenizer, f"{name}_token")
        if token in ids:
            add(ids[token])
    writer.add_add_bos_token(opens(tokenizer))
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(str(tokenizer.chat_template))


def opens(tokenizer: Any) -> bool:
    """Whether it puts a token of its own before a text."""
    ids = tokenizer("a").input_ids
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
