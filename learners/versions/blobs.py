"""A version's files as bytes: named by their hash, cut into lines for the wire, put together again, and written so that they survive.

Torch-free, for both processes. What arrives is untrusted: names are plain, sizes bounded, and nothing is used before its hash is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from learners.protocol import BLOB_CHUNK, Blob

MOST_FILES = 16
MOST_BYTES = 8 * 2**30
_FILE_NAME = re.compile(r"[a-z0-9_]{1,60}\.(safetensors|json)")


class BlobError(Exception):
    """A version's bytes are not what they should be, in one line."""


def digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the sorted names and the hashes of the contents, in hex."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return total.hexdigest()


def split(files: Mapping[str, bytes], piece: int = BLOB_CHUNK) -> Iterator[Blob]:
    """The pieces of all files, of at most `piece` bytes, in order; an empty file is one empty piece."""
    sha256 = digest(files)
    for name, content in files.items():
        count = max(1, -(-len(content) // piece))
        for index in range(count):
            yield Blob(sha256=sha256, name=name, index=index, count=count, data=content[index * piece : (index + 1) * piece])


class Assembler:
    """Puts pieces together, in whatever order versions come; pieces of one file come in order."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, list[bytes]]] = {}
        self._bytes = 0

    def add(self, blob: Blob) -> None:
        """Raises BlobError for a piece that cannot be one."""
        if not _FILE_NAME.fullmatch(blob.name) or not re.fullmatch(r"[0-9a-f]{64}", blob.sha256):
            raise BlobError(f"not a version's file: {blob.name!r}")
        files = self._parts.get(blob.sha256, {})
        parts = files.get(blob.name, []) if blob.index else []  # the first piece again: the file is sent anew
        if blob.index != len(parts) or blob.index >= blob.count:
            raise BlobError(f"a piece of {blob.name} is missing or one too many")
        before = 0 if blob.index else sum(map(len, files.get(blob.name, [])))
        if len(files.keys() | {blob.name}) > MOST_FILES or self._bytes - before + len(blob.data) > MOST_BYTES:
            raise BlobError("a version is larger than any adapter")
        self._bytes += len(blob.data) - before
        self._parts.setdefault(blob.sha256, files)[blob.name] = parts
        parts.append(blob.data)

    def take(self, sha256: str) -> dict[str, bytes] | None:
        """The files of a version whose pieces have all come, once; None if there are none. Raises BlobError when the hash is another."""
        parts = self._parts.pop(sha256, None)
        if parts is None:
            return None
        files = {name: b"".join(pieces) for name, pieces in parts.items()}
        self._bytes -= sum(map(len, files.values()))
        if digest(files) != sha256:
            raise BlobError(f"the files of version {sha256[:12]} are not what their hash says")
        return files


def write_directory(files: Mapping[str, bytes], root: Path) -> Path:
    """Write a version to `root/<sha256>/` so that it is there whole, also after a power cut, or not at all. Raises OSError, BlobError."""
    if not all(_FILE_NAME.fullmatch(name) for name in files):
        raise BlobError("not a version's files")
    target = root / digest(files)
    if target.exists():
        with contextlib.suppress(BlobError, OSError):
            read_directory(target)
            return target
        shutil.rmtree(target)  # damaged since it was written
    root.mkdir(parents=True, exist_ok=True)
    unfinished = root / f".{target.name}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            with (unfinished / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(unfinished)
        unfinished.rename(target)
        _sync(root)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return target


def read_directory(path: Path) -> dict[str, bytes]:
    """The files of a version that was written. Raises BlobError when its name is not its hash (`path` is `…/<sha256>`), OSError."""
    files = {entry.name: entry.read_bytes() for entry in sorted(path.iterdir()) if entry.is_file()}
    if digest(files) != path.name:
        raise BlobError(f"the files in {path} are damaged: their hash is another")
    return files


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
