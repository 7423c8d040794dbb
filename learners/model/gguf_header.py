"""What a GGUF file says of itself, read without its weights and without a library: its architecture, its tensors, and whether it is whole.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

from learners.model.checkpoint import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""Of the metadata's values by their type."""
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110),
    12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2),
}  # fmt: skip
"""Weights and bytes of a block, by how a tensor is stored; of other ways only the offset is checked."""
FETCH = "fetch the file again"


class GGUFHeader(NamedTuple):
    """Metadata, with the length in the place of an array, and the number of weights."""

    metadata: dict[str, Any]
    parameters: int
    tensors: int

    @property
    def architecture(self) -> str:
        """By llama.cpp's name, such as llama or qwen2."""
        return str(self.metadata.get("general.architecture", ""))

    def number(self, name: str) -> int:
        """Of the architecture, such as block_count; 0 where it is not said."""
        return self.count(f"{self.architecture}.{name}")

    def count(self, name: str) -> int:
        """A whole number, or the length of a list; 0 where it is not said, or something else is."""
        value = self.metadata.get(name, 0)
        return value if isinstance(value, int) else 0


def is_gguf(file: Path) -> bool:
    """Whether it calls itself one, or begins like one."""
    if file.suffix.lower() == ".gguf":
        return True
    with file.open("rb") as stream:
        return stream.read(4) == MAGIC


def read_gguf_header(file: Path) -> GGUFHeader:
    """Raises ModelError for what is no GGUF, and for one that was cut off."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[:4] != MAGIC:
                raise ModelError(f"{file} is not a GGUF file", FETCH)
            return _Reader(content, file).header()
    except (struct.error, ValueError, IndexError, UnicodeDecodeError, KeyError, TypeError, MemoryError, ArithmeticError) as error:
        raise ModelError(f"{file} is cut off or damaged", FETCH) from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}", "check its permissions") from error


class _Reader:
    def __init__(self, content: mmap.mmap, file: Path) -> None:
        self._content, self._at, self._file = content, 4, file

    def header(self) -> GGUFHeader:
        self._check_version()
        tensors, entries = self._take("<Q"), self._take("<Q")
        metadata = {self._string(): self._value(self._take("<I")) for _ in range(entries)}
        parameters = end = 0
        for _ in range(tensors):
            self._string()
            weights = math.prod([self._take("<Q") for _ in range(self._take("<I"))])
            block, size = BLOCKS.get(self._take("<I"), (1, 0))
            end = max(end, self._take("<Q") + weights // block * size)
            parameters += weights
        alignment = int(metadata.get("general.alignment", 32))
        if -(-self._at // alignment) * alignment + end > len(self._content):
            raise ValueError("tensors are missing")
        return GGUFHeader(metadata, parameters, tensors)

    def _check_version(self) -> None:
        version = self._take("<I")
        if version not in VERSIONS:
            big = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            what = "is a big-endian GGUF" if big else f"is a GGUF of version {version}"
            raise ModelError(f"{self._file} {what}, and versions 2 and 3 in little-endian order can be read", "use the model as safetensors")

    def _take(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._take("<Q")
        if self._at + length > len(self._content):
            raise ValueError("a text is longer than the file")
        self._at += length
        return self._content[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._take(FORMATS[kind])
        element, count = self._take("<I"), self._take("<Q")
        if element == STRING:
            for _ in range(count):
                length = self._take("<Q")
                self._at += length
        else:
            self._at += struct.calcsize(FORMATS[element]) * count
        if self._at > len(self._content):
            raise ValueError("an array is longer than the file")
        return count
