"""The files of a model: where they are, whether they are whole, and their hash. Weights are safetensors only."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learners.model import fp8
from learners.protocol import Loading

POCKET = Path(__file__).parents[1] / "pocket" / "weights"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt",
    "added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""What a base's hash is of, beside its weights: databases are bound to it."""
TOKENIZER_PATTERNS = ("tokenizer*", "*.tiktoken", "vocab.*", "spiece.model", "*.bpe.model")
"""Any of these may be all that a tokenizer is."""
DOWNLOADED = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json", "*.py",
    *TOKENIZER_FILES, *TOKENIZER_PATTERNS,
)  # fmt: skip
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WITHOUT_ATTENTION = {"mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"}
OTHER_CACHES = {"minimax", "openai-gpt", "recurrent_gemma", "reformer", "xlm", "xlnet"}
"""Model types whose tokens do not go on from keys and values."""
ENCODERS = {
    "albert", "bert", "big_bird", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "longformer",
    "megatron-bert", "mobilebert", "modernbert", "mpnet", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta",
    "xlm-roberta-xl", "xmod", "eurobert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "t5encoder",
}  # fmt: skip
"""Model types that read a text at once, by transformers' names and llama.cpp's, unless a class of theirs is named that writes one."""
WITH_ENCODERS = {
    "bart", "blenderbot", "led", "longt5", "m2m_100", "marian", "mbart", "mt5", "pegasus", "prophetnet", "switch_transformers", "t5", "t5gemma",
    "umt5", "whisper",
}  # fmt: skip
WRITING = ("CausalLM", "LMHead", "Generation")
"""In the names of classes that write texts."""
BITS_AND_BYTES = {"nf4": "nf4", "fp4": "fp4"}
"""Its kinds of 4 bit."""
REPORT_SECONDS = 0.1
"""Progress is told at most this often."""


class ModelError(Exception):
    """A model that cannot be used: what is wrong, in one line, and what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}: {hint}" if hint else what)
        self.what, self.hint = what, hint


class Progress:
    """Turns bytes done into `Loading` values with the seconds left."""

    def __init__(self, tell: Callable[[Loading], None]) -> None:
        self._tell = tell
        self._what = ""
        self._began = self._told = 0.0

    def __call__(self, what: str, done: float = 0.0, total: float = 0.0) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        elif now - self._told < REPORT_SECONDS and done < total:
            return
        self._told = now
        speed = done / (now - self._began) if now > self._began else 0.0
        self._tell(Loading(what=what, done=done, total=total, seconds_left=(total - done) / speed if speed and total else None))


def find_checkpoint(name: str, progress: Progress) -> Path:
    """The directory of a local model, of 'pocket', or of a hub id, which is downloaded if need be."""
    if name == "pocket":
        if not (POCKET / "config.json").exists():
            raise ModelError(f"the embedded model is not in {POCKET}", "make it again with python -m learners.pocket.train, or pass --model")
        return POCKET
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{name} is a file", "pass a GGUF, or the directory that holds config.json and model.safetensors")
    if is_path(name) or not name.strip():
        raise ModelError(f"no such directory: {name}", "pass a directory, a GGUF file, a hub id such as owner/name, or pocket")
    from learners.model.hub import download

    return download(name, progress)


def is_path(name: str) -> bool:
    """Whether it can only be a path: hub ids have one slash at most."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def check_weights(directory: Path) -> list[Path]:
    """The weight files, found whole: headers parse and lengths agree. Raises ModelError."""
    if not (directory / "config.json").is_file():
        raise _without_config(directory)
    config = read_config(directory)
    check_architecture(config)
    files = _weight_files(directory)
    check_scales({name: tensor for file in files for name, tensor in read_header(file).items()}, config, str(directory))
    return files


def _without_config(directory: Path) -> ModelError:
    found = sorted(directory.glob("*.gguf"))
    if not found:
        return ModelError(f"no config.json in {directory}", "pass the directory of a model in Hugging Face format")
    what = "a GGUF" if len(found) == 1 else f"{len(found)} GGUFs"
    return ModelError(f"{directory} holds {what} and no other model", f"pass the file itself: {found[0]}")


def is_whole(directory: Path) -> bool:
    """Whether all files of a model's weights are there, which is not said of what is in them."""
    try:
        return (directory / "config.json").is_file() and bool(_weight_files(directory))
    except ModelError:
        return False


def check_scales(tensors: fp8.Tensors, config: dict[str, Any], name: str) -> None:
    """Raises ModelError for weights in FP8 that would be taken for other numbers than they stand for. Other ways to store weights pass."""
    stored = quantization_of(config)
    try:
        if packed_in(config) == "fp8":
            fp8.scales_in(tensors, stored)
            return
        known = stored.get("quant_method", "bitsandbytes") in ("bitsandbytes", "mxfp4")  # all others are refused for what they are
        strange = next((each for each, tensor in tensors.items() if tensor["dtype"] in fp8.EIGHT_BITS), None)
        if known and strange:
            raise ValueError(f"{strange} is in FP8, of which config.json says nothing")
    except (ValueError, TypeError, AttributeError) as error:  # the settings may hold anything
        hint = "use the model in full precision: it is quantized here as it loads"
        raise ModelError(f"{name} is stored in FP8, and cannot be unpacked: {first_line(error)}", hint) from error


def check_loaded(info: dict[str, Any], name: str) -> None:
    """Of what transformers says of a model that it loaded: weights that were not there are random. Raises ModelError."""
    if info["missing_keys"]:
        raise ModelError(f"{name} lacks weights: {min(info['missing_keys'])}", "fetch the model again, or check that it is a language model")


def read_config(directory: Path) -> dict[str, Any]:
    """What config.json says. Raises ModelError."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{directory / 'config.json'} is damaged", "fetch the model again")
    return config


def older_template(directory: Path) -> str | None:
    """The chat template of a model whose tokenizer has none: chat_template.json is where processors once kept it. Raises ModelError."""
    file = directory / "chat_template.json"
    if not file.is_file() or (directory / "chat_template.jinja").is_file() or read_object(directory / "tokenizer_config.json").get("chat_template"):
        return None
    found = read_object(file).get("chat_template")
    if isinstance(found, list):  # several, by name
        found = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
    template = found.get("default") if isinstance(found, dict) else found
    if not isinstance(template, str):
        raise ModelError(f"{file} holds no chat template", "fetch the model again, or remove the file to do without")
    return template


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object; nothing where there is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_architecture(config: dict[str, Any]) -> None:
    """Raises ModelError for models that are known not to work, with the reason."""
    _check_task(config)
    kind = config.get("model_type")
    if kind in WITHOUT_ATTENTION:
        raise ModelError(f"{kind} models have no attention layers, and cannot draw adapted and plain rows side by side", "choose another family")
    if kind in OTHER_CACHES:
        raise ModelError(f"{kind} models keep no keys and values between tokens", "choose another family")


def _check_task(config: dict[str, Any]) -> None:
    """Classifiers and encoders may have the weights of a language model, or most of them: it shows in the class that was stored."""
    kind, classes = str(config.get("model_type")), [str(each) for each in _listed(config.get("architectures"))]
    text = config.get("text_config")
    if any(isinstance(part, dict) and part.get("is_encoder_decoder") is True for part in (config, text)):
        raise no_language_model(next(iter(classes), kind))
    if any(word in each for each in classes for word in WRITING) or "AutoModelForCausalLM" in _listed(config.get("auto_map")):
        return
    if other := next((each for each in classes if re.search(r"For[A-Z]", each)), None):
        raise no_language_model(other)
    if kind in WITH_ENCODERS or (kind in ENCODERS and config.get("is_decoder") is not True):
        raise no_language_model(next(iter(classes), kind))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | dict) else []


def no_language_model(kind: str) -> ModelError:
    """Of a model that does not write a text word by word."""
    return ModelError(f"the model is a {kind}, and a causal language model is needed", "choose one that answers: tamer models lists some")


def stored_quantization(directory: Path) -> str:
    """'none', or 'nf4', 'fp4' or 'int8' where bitsandbytes quantized the weights before they were stored. Raises ModelError for other methods."""
    return quantization_in(read_config(directory), str(directory))


def quantization_in(config: dict[str, Any], name: str) -> str:
    """The same by what config.json says."""
    stored = quantization_of(config)
    if not stored:
        return "none"
    method = stored.get("quant_method", "bitsandbytes")
    if method == "bitsandbytes":
        kind = "int8" if stored.get("load_in_8bit") else BITS_AND_BYTES.get(stored.get("bnb_4bit_quant_type", "fp4"))
        if kind is not None:
            return kind
    hint = "use the model in full precision: it is quantized here as it loads"
    raise ModelError(f"{name} is quantized already ({method}), by a method that cannot be taught here", hint)


def quantization_of(config: dict[str, Any]) -> dict[str, Any]:
    """How the weights were quantized before they were stored, by config.json: of the whole, or of the language model in it."""
    text = config.get("text_config")
    stored = config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None) or {}
    return stored if isinstance(stored, dict) else {"quant_method": stored if isinstance(stored, str) else "unknown"}


def without_quantization(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration of a model in full precision."""
    found = {name: each for name, each in config.items() if name != "quantization_config"}
    if isinstance(found.get("text_config"), dict):
        found["text_config"] = {name: each for name, each in found["text_config"].items() if name != "quantization_config"}
    return found


def packed_as(directory: Path) -> str | None:
    """How the weights are stored, where they have to be unpacked before they are used: 'fp8' or 'mxfp4'."""
    return packed_in(read_config(directory))


def packed_in(config: dict[str, Any]) -> str | None:
    """The same by what config.json says."""
    stored = quantization_of(config)
    if stored.get("quant_method") == "mxfp4":
        return "mxfp4"
    return "fp8" if fp8.is_product(stored) else None


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} is damaged", "fetch the model again") from error
        missing = [name for name in names if Path(name).name != name or not (directory / name).is_file()]
        if missing:
            raise ModelError(f"{missing[0]} is missing in {directory}", "fetch the model again")
        return [directory / name for name in names]
    if (directory / "model.safetensors").is_file():
        return [directory / "model.safetensors"]
    if any(path for pattern in PICKLES for path in directory.glob(pattern)):
        raise ModelError(f"{directory} holds pickled weights, which can run code and are refused", "convert them to safetensors")
    raise ModelError(f"no model.safetensors in {directory}", "pass the directory of a model in Hugging Face format")


def read_header(file: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, without reading them. Raises ModelError unless the file is exactly as long as it says."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is not a safetensors file", "fetch the model again") from error
    expected, size = 8 + length + end, file.stat().st_size
    if size != expected:
        raise ModelError(f"{file} has {size} bytes instead of {expected}", "it was cut off: fetch the model again")
    return dict(header)


def parameter_count(files: Sequence[Path]) -> int:
    """Of all tensors in the files, as they are stored."""
    return sum(math.prod(entry["shape"]) for file in files for entry in read_header(file).values())


class Hashes(NamedTuple):
    """SHA-256 in hex of what a model is made of; neither its directory's name nor quantization counts."""

    base: str  # of weights, tokenizer files and chat template in one
    weights: str
    tokenizer: str  # of its files; the chat template may be among them


def hash_files(files: Sequence[Path], progress: Progress | Callable[..., None]) -> str:
    """SHA-256 in hex of these files' names, sizes and bytes; of a single one, as sha256sum says it."""
    digest, total, done = hashlib.sha256(), sum(file.stat().st_size for file in files), 0
    for file in files:
        if len(files) > 1:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
                done += len(block)
                progress("weights", done, total)
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    """Of what it says, or its name. A line that only announces the next one says nothing."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), lines[0] if lines else type(error).__name__)


def hashes(directory: Path, weights: Sequence[Path], progress: Progress) -> Hashes:
    """Reads every byte once."""
    tokenizer = [file for name in TOKENIZER_FILES if (file := directory / name).is_file()]
    total, done = sum(file.stat().st_size for file in (*weights, *tokenizer)), 0
    whole, of_tokenizer = hashlib.sha256(), hashlib.sha256()

    def read(files: Sequence[Path], *digests: Any) -> None:
        nonlocal done
        for file in files:
            for digest in digests:
                digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    for digest in digests:
                        digest.update(block)
                    done += len(block)
                    progress("weights", done, total)

    read(weights, whole)
    of_weights = whole.hexdigest()
    read(tokenizer, whole, of_tokenizer)
    return Hashes(whole.hexdigest(), of_weights, of_tokenizer.hexdigest())
