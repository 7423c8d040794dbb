"""Downloads a model from the hub: the needed files only, with progress, and every failure in one clear line."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from learners.checkpoint import DOWNLOADED, ModelError, Progress


def download(name: str, progress: Progress) -> Path:
    """The local directory of a hub model; what is in the cache already is not fetched again. Raises ModelError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    progress("download")
    try:
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), tqdm_class=_bar(progress)))
    except Exception as error:
        raise _explain(name, error) from error


def _explain(name: str, error: Exception) -> ModelError:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or (status == 403):
        return ModelError(f"{name} is gated", "accept its terms on its hub page and log in with `hf auth login`, or pass a directory")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return ModelError(f"there is no model {name} on the hub, or it is private", "check the name, or pass a directory")
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"no such directory, and no hub id: {name}", "pass a directory, a hub id such as owner/name, or pocket")
    if isinstance(error, OSError) and error.errno == 28:
        return ModelError(f"the disk is full while downloading {name}", "free some space, or set HF_HOME to another disk")
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError) or "onnect" in type(error).__name__:
        why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
        return ModelError(f"{name} is not on this machine, and {why}", "go online once, or pass a directory")
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return ModelError(f"cannot download {name}: {first}", "try again: what has arrived is kept")


def _bar(progress: Progress) -> type:
    """A class that stands in for tqdm: of all bars of a download it reports the one that counts bytes."""
    lock = threading.RLock()

    class Bar:
        def __init__(self, *_: Any, total: float | None = None, initial: float = 0, unit: str = "", desc: str = "", **__: Any) -> None:
            self.total, self.n, self.unit, self.desc = total or 0, initial, unit, desc
            self.disable, self.format_dict = False, {}

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.n += n or 0
                if self.unit == "B" and "Reconstruct" not in self.desc:
                    progress("download", self.n, max(self.total, self.n))

        def __iter__(self) -> Any:
            return iter(())

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            return None

        def __getattr__(self, _: str) -> Any:
            return lambda *args, **kwargs: None

        @classmethod
        def get_lock(cls) -> Any:
            return lock

        @classmethod
        def set_lock(cls, _: Any) -> None:
            return None

    return Bar
