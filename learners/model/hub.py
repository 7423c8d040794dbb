"""Downloads a model from the hub: the needed files only, with progress, and every failure in one clear line."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from learners.model.checkpoint import DOWNLOADED, ModelError, Progress, is_whole, read_config
from learners.model.stored import CONFIG, is_adapter, named_base


def download(name: str, progress: Progress) -> Path:
    """The local directory of a hub model; what is in the cache already is not fetched again. Raises ModelError.

    Pickles are neither fetched nor looked at. Without a network the cached copy serves.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    progress("download")
    try:
        try:
            planned = snapshot_download(name, allow_patterns=list(DOWNLOADED), dry_run=True)
        except DryRunError:  # no network, or not allowed in
            return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED)))
        if not any(file.filename.endswith(".safetensors") for file in planned):
            raise _without_weights(name)
        total = sum(file.file_size or 0 for file in planned if file.will_download)
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), tqdm_class=_bar(lambda done: progress("download", done, total))))
    except ModelError:
        raise
    except Exception as error:
        raise _explain(name, error) from error


class Described(NamedTuple):
    """A model of the hub, by what says what it is."""

    config: dict[str, Any]
    tensors: dict[str, Any]  # dtype and shape by name
    base: str = ""  # of an adapter, which has neither: the name of its model


def cached(name: str) -> Path | None:
    """The local directory of a model or an adapter that was fetched whole."""
    from huggingface_hub import snapshot_download

    try:
        directory = Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), local_files_only=True))
    except Exception:  # nothing of it is here, or it is no name of the hub
        return None
    return directory if is_adapter(directory) or is_whole(directory) else None


def described(name: str) -> Described:
    """What the hub says of a model, without fetching its weights. Raises ModelError."""
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, NotASafetensorsRepoError

    try:
        try:
            config = read_config(Path(hf_hub_download(name, "config.json")).parent)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            base = named_base(Path(hf_hub_download(name, CONFIG)).parent)
            if base == name:
                raise ModelError(f"the adapter {name} names itself as its base", f"pass its model, and --adapter {name}") from None
            return Described({}, {}, base)
        files = get_safetensors_metadata(name).files_metadata.values()
        return Described(config, {each: {"dtype": tensor.dtype, "shape": tensor.shape} for file in files for each, tensor in file.tensors.items()})
    except NotASafetensorsRepoError as error:
        raise _without_weights(name) from error
    except LocalEntryNotFoundError as error:
        raise _explain(name, error) from error
    except EntryNotFoundError as error:
        raise ModelError(f"{name} holds no model in Hugging Face format", "pass a GGUF file that was fetched, or another model") from error
    except ModelError:
        raise
    except Exception as error:
        raise _explain(name, error) from error


def _without_weights(name: str) -> ModelError:
    return ModelError(
        f"{name} has no safetensors weights, and pickles are refused", "choose a model that has them, or fetch its GGUF and pass the file"
    )


def _explain(name: str, error: Exception) -> ModelError:
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return ModelError(f"{name} is gated", "accept its terms on its hub page and log in with `hf auth login`, or pass a directory")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelError(f"no model {name} on the hub, or it is private", "check the name, log in with `hf auth login`, or pass a directory")
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"no such directory, and not a hub id: {name}", "pass a directory, a hub id such as owner/name, or pocket")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return ModelError(f"the disk is full while downloading {name}", "free some space, or set HF_HOME to another disk")
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError) or "Connect" in type(error).__name__:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        have = "only a part" if _begun(name) else "no copy"
        return ModelError(f"no directory {name}, {have} of it in the cache, and {why}", "check the name, go online once, or pass a directory")
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return ModelError(f"cannot download {name}: {first}", "try again: what has arrived is kept")


def _begun(name: str) -> bool:
    """Whether weights of it are in the cache, though not all of them."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return any((Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/*.safetensors"))


def _bar(tell: Callable[[float], None]) -> type:
    """A class that stands in for tqdm: of all bars of a download, the furthest one that counts bytes is told."""
    lock = threading.RLock()
    furthest = 0.0

    class Bar:
        def __init__(self, *iterables: Any, total: float | None = None, initial: float = 0, unit: str = "", **_: Any) -> None:
            self._iterable, self._unit = iterables[0] if iterables else (), unit
            self.total, self.n = total or 0, initial
            self.format_dict: dict[str, Any] = {}

        def update(self, n: float | None = 1) -> None:
            nonlocal furthest
            with lock:
                self.n += n or 0
                if self._unit == "B" and self.n > furthest:
                    furthest = self.n
                    tell(furthest)

        def __iter__(self) -> Any:
            return iter(self._iterable)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            return None

        def __getattr__(self, _: str) -> Any:
            return lambda *args, **kwargs: None  # set_description, refresh, close …

        @classmethod
        def get_lock(cls) -> Any:
            return lock

        @classmethod
        def set_lock(cls, _: Any) -> None:
            return None

    return Bar
