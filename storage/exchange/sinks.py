"""Where exported rows go: lines of JSON, or Parquet. Both hold a bounded number of rows in memory, and give the same bytes for the same rows."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec

from storage.database import JournalError
from storage.exchange.items import Row

GROUP = 5_000
"""Rows of Parquet that are held before they are written."""


class Sink(Protocol):
    rows: int

    def add(self, row: Row) -> None: ...

    def close(self) -> None:
        """On disk. Called once, also after an error."""
        ...


class Lines:
    """One JSON object a line, UTF-8."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self._file = path.open("wb")
        self._encode = msgspec.json.Encoder().encode_into
        self._line = bytearray()

    def add(self, row: Row) -> None:
        self._encode(row, self._line)
        self._line += b"\n"
        self._file.write(self._line)
        self.rows += 1

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Parquet:
    """One file with a fixed schema, by its config; `scores` are two columns more, `thoughts` a field more of messages. Raises JournalError where
    pyarrow is not installed."""

    def __init__(self, path: Path, config: str, scores: bool = False, thoughts: bool = False) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise JournalError("parquet needs pyarrow", "pip install 'tamer-tui[parquet]'") from None
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = ("role", "content", *(("reasoning_content",) if thoughts else ()))
        turns = pyarrow.list_(pyarrow.struct([(name, pyarrow.string()) for name in fields]))
        schemas = {
            "preference": [("prompt", turns), ("chosen", turns), ("rejected", turns), ("margin", pyarrow.float64())],
            "kto": [("prompt", turns), ("completion", turns), ("label", pyarrow.bool_())],
            "sft": [("prompt", turns), ("completion", turns)],
        }
        self.rows = 0
        more = [("score_chosen", pyarrow.float64()), ("score_rejected", pyarrow.float64())] if scores and config == "preference" else []
        self._schema = pyarrow.schema(schemas[config] + more)
        self._table = pyarrow.Table.from_pylist
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._held: list[Row] = []

    def add(self, row: Row) -> None:
        self._held.append(row)
        self.rows += 1
        if len(self._held) == GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held or not self.rows:  # a file without rows still has its schema
            self._writer.write_table(self._table(self._held, schema=self._schema))
        self._held = []


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Indented, for people."""
    with path.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
