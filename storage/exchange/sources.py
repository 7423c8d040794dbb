"""Where rows come from: a file, packed or not, a folder of them, or a data set of the hub. Rows have numbers; memory does not grow with the source.

What a file is it says by its first bytes, whatever its name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from storage.database import JournalError
from storage.exchange.items import Row

Complain = Callable[[int, str], None]
LONGEST_LINE = 64 * 2**20
"""Bytes of a row; a longer one is malformed."""
LONGEST_HEADING = 2**16
"""Bytes of a table's first line."""
CHUNK = 2**20
MOST_UNPACKED = 2**30
"""Bytes that come out of a packed file whatever its size."""
MOST_PACKING = 250
"""Times the size of a packed file that may come out of it beyond that: text packs ten times, an archive bomb a thousand times."""
ENDINGS = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".arrow", ".gz", ".zst")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?(?:@[\w.\[\]:%+-]+)?")
_BOM = b"\xef\xbb\xbf"


class Source:
    """Something with rows. Raises JournalError where it cannot be read."""

    def __init__(self, where: str | Path) -> None:
        self.path = Path(where).expanduser()
        self.hub_id = "" if self.path.exists() or not HUB_ID.fullmatch(str(where)) or str(where).startswith((".", "/")) else str(where)
        self.name = self.hub_id or self.path.name
        if not self.hub_id and not self.path.exists():
            raise JournalError(f"there is no file {self.path}", "give a file, a folder, or the id of a data set such as org/name")
        self._files = [self.path] if self.path.is_file() else _files_in(self.path) if not self.hub_id else []

    def is_database(self) -> bool:
        return self.path.is_file() and _start(self.path, 16) == b"SQLite format 3\0"

    def rows(self, complain: Complain) -> Iterator[tuple[int, Row]]:
        """Every row with its number, from 1; what is no row is complained of."""
        if self.hub_id:
            yield from enumerate(_of_hub(self.hub_id), 1)
            return
        before = 0
        for file in self._files:
            number = before

            def shifted(line: int, why: str, before: int = before) -> None:
                complain(before + line, why)

            for number, row in _rows_of(file, shifted):
                number += before
                yield number, row
            before = max(before, number)

    def sha256(self) -> str:
        """Of all files; of a hub's data set, of its name."""
        digest = hashlib.sha256(self.hub_id.encode())
        for file in self._files:
            with file.open("rb") as stream:
                while block := stream.read(CHUNK):
                    digest.update(block)
        return digest.hexdigest()


def _files_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise JournalError(f"{folder} is neither a file nor a folder", "give a file, a folder, or the id of a data set such as org/name")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith("."))
    described = {"dataset_info.json", "dataset_dict.json", "state.json", "manifest.json"}
    found = [path for path in found if path.name not in described and not path.name.endswith(".manifest.json")]
    if not found:
        raise JournalError(f"{folder} has no files of rows", f"such as {', '.join(ENDINGS[:6])}")
    return found


def _start(file: Path, n: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(n)
    except OSError as error:
        raise JournalError(f"{file} cannot be read: {error.strerror or error}") from error


# --- files -----------------------------------------------------------------------------------------------------------------


def _rows_of(file: Path, complain: Complain) -> Iterator[tuple[int, Row]]:
    start = _start(file, 6)
    try:
        if start[:4] == b"PAR1":
            yield from _parquet(file)
        elif start == b"ARROW1" or file.suffix == ".arrow":
            yield from _arrow(file)
        else:
            with ExitStack() as stack:
                stream: Any = stack.enter_context(file.open("rb"))
                yield from _text_rows(_unpacked(stream, start, file, stack), complain)
    except (OSError, EOFError, zlib.error) as error:
        raise JournalError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _unpacked(stream: BinaryIO, start: bytes, file: Path, stack: ExitStack) -> BinaryIO:
    if start[:2] == b"\x1f\x8b":
        import gzip

        return _guarded(stack.enter_context(gzip.open(stream)), file)  # type: ignore[arg-type]
    if start[:4] == b"\x28\xb5\x2f\xfd":
        try:
            import pyarrow
        except ImportError:
            raise JournalError(".zst needs pyarrow", "pip install 'tamer-tui[parquet]'") from None
        return _guarded(stack.enter_context(pyarrow.CompressedInputStream(stream, "zstd")), file)
    return stream


def _guarded(stream: Any, file: Path) -> BinaryIO:
    return io.BufferedReader(_Guard(stream, _most(file), file.name), CHUNK)  # type: ignore[return-value, type-var]


def _most(file: Path) -> int:
    return MOST_UNPACKED + MOST_PACKING * file.stat().st_size


def _too_much(name: str) -> JournalError:
    return JournalError(f"{name} unpacks to far more than text would", "if it is what it should be, unpack it first")


class _Guard(io.RawIOBase):
    """What comes out of a packed file, up to a limit."""

    def __init__(self, stream: Any, most: int, name: str) -> None:
        self._stream, self._left, self._name = stream, most, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise _too_much(self._name)
        buffer[: len(block)] = block
        return len(block)


def _text_rows(stream: BinaryIO, complain: Complain) -> Iterator[tuple[int, Row]]:
    """Lines of JSON, a JSON list, or a table with a heading."""
    first = stream.readline(LONGEST_LINE + 1)
    line = first.removeprefix(_BOM)
    while line and not line.strip():
        first = line = stream.readline(LONGEST_LINE + 1)
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise JournalError("the file is in UTF-16", "save it as UTF-8")
    start = line.lstrip()[:1]
    if start == b"[":
        yield from _elements(line.lstrip(), stream, complain)
    elif start != b"{" and (mark := _separator(line)):
        yield from _table(line, stream, mark, complain)
    elif start == b"{" and line.strip() == b"{":
        yield from _elements(line.lstrip(), stream, complain)
    else:
        yield from _lines(line, stream, complain)


_decode = msgspec.json.Decoder().decode


def _lines(line: bytes, stream: BinaryIO, complain: Complain) -> Iterator[tuple[int, Row]]:
    number = 1
    while line:
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(CHUNK)
            complain(number, f"longer than {LONGEST_LINE // 2**20} MB")
        elif line.strip():
            try:
                row = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                complain(number, "not UTF-8" if "utf-8" in str(error).lower() else "no JSON")
            except RecursionError:
                complain(number, "nested too deeply")
            else:
                if isinstance(row, dict):
                    yield number, row
                else:
                    complain(number, "no JSON object")
        number += 1
        line = stream.readline(LONGEST_LINE + 1)


def _elements(start: bytes, stream: BinaryIO, complain: Complain) -> Iterator[tuple[int, Row]]:
    """Of a JSON list, or objects that follow each other, numbered from 1. What is no JSON ends it: there is no telling where it goes on."""
    decode = json.JSONDecoder().raw_decode
    reader = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    text, number, done = start.decode("utf-8", "surrogateescape"), 0, False
    if text.startswith("["):
        text = text[1:]
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        try:
            row, end = decode(text)
            if end == len(text) and not done and not text.endswith(("}", "]", '"')):
                raise ValueError  # a number that goes on
        except (ValueError, RecursionError) as error:
            if done or len(text) > LONGEST_LINE or isinstance(error, RecursionError):
                if text.strip():
                    complain(number + 1, f"longer than {LONGEST_LINE // 2**20} MB, or no JSON" if len(text) > LONGEST_LINE else "no JSON")
                return
            more = reader.read(max(CHUNK, len(text)))
            text, done = text + more, not more
            continue
        number, text = number + 1, text[end:]
        if isinstance(row, dict):
            yield number, row
        else:
            complain(number, "no JSON object")
        if len(text) < CHUNK // 2 and not done:
            more = reader.read(CHUNK)
            text, done = text + more, not more


# --- tables ----------------------------------------------------------------------------------------------------------------


def _separator(line: bytes) -> str:
    """Of a heading: '' where it is none. More than one column, and each with a plain name."""
    try:
        text = line.decode("utf-8").rstrip("\r\n") if len(line) <= LONGEST_HEADING else ""
    except UnicodeDecodeError:
        return ""
    for mark in ("\t", ",", ";", "|"):
        names = next(csv.reader([text], delimiter=mark), [])
        if len(names) > 1 and sum(bool(name.strip()) for name in names) >= 2 and all(len(name) <= 100 and name.isprintable() for name in names):
            return mark
    return ""


def _table(heading: bytes, stream: BinaryIO, mark: str, complain: Complain) -> Iterator[tuple[int, Row]]:
    """Rows numbered from 1 below the heading. Cells that are JSON lists or objects are read as such."""
    csv.field_size_limit(LONGEST_LINE)
    names = [name.strip() or f"column {place}" for place, name in enumerate(next(csv.reader([heading.decode("utf-8")], delimiter=mark)), 1)]
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    rows, number = csv.reader(text, delimiter=mark), 0
    while True:
        number += 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            complain(number, f"no row of the table: {error}")
            if "field larger" in str(error):
                return
            continue
        if not any(cells):
            continue
        if len(cells) > len(names):
            complain(number, f"{len(cells)} cells under {len(names)} names")
            continue
        yield number, {name: _cell(cell) for name, cell in zip(names, cells, strict=False)}


def _cell(cell: str) -> object:
    if cell[:1] in "[{" and cell[-1:] in "]}" and cell:
        try:
            return _decode(cell.encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return cell
    return cell


def _parquet(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise JournalError("parquet needs pyarrow", "pip install 'tamer-tui[parquet]'") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in _weighed(table.iter_batches(500), file):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, ValueError) as error:
        raise JournalError(f"{file.name} is no whole Parquet file: {str(error).splitlines()[0][:100]}") from error


def _weighed(batches: Iterable[Any], file: Path) -> Iterator[Any]:
    """The same, as long as they are no more than a packed file may hold: a value that is written once may be repeated without end."""
    left = _most(file)
    for batch in batches:
        left -= sum(getattr(column, "dictionary_decode", lambda column=column: column)().nbytes for column in batch.columns)
        if left < 0:
            raise _too_much(file.name)
        yield batch


def _arrow(file: Path) -> Iterator[tuple[int, Row]]:
    """What `datasets` saves to disk."""
    try:
        import pyarrow
    except ImportError:
        raise JournalError(".arrow needs pyarrow", "pip install 'tamer-tui[parquet]'") from None
    number = 0
    try:
        with pyarrow.memory_map(str(file)) as mapped:
            for batch in _weighed(pyarrow.ipc.open_stream(mapped), file):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, ValueError) as error:
        raise JournalError(f"{file.name} is no whole Arrow file: {str(error).splitlines()[0][:100]}") from error


# --- the hub ---------------------------------------------------------------------------------------------------------------


def _check_hub(name: str) -> None:
    """Say at once that nothing answers: the libraries try for a minute, and print what they try."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception as error:  # of whatever client the library uses
        raise JournalError(
            f"{name} is no file here, and the hub cannot be reached: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}",
            "go online, or download it elsewhere and give its folder",
        ) from error


def _of_hub(name: str) -> Iterator[Row]:
    """ORG/NAME, ORG/NAME:CONFIG, ORG/NAME@SPLIT: streamed through `datasets`."""
    try:
        import datasets
    except ImportError:
        raise JournalError(f"there is no file {name}; as a data set of the hub it needs datasets", "pip install 'tamer-tui[exports]'") from None
    _check_hub(name)
    path, _, split = name.partition("@")
    path, _, config = path.partition(":")
    try:
        yield from datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
    except Exception as error:  # the hub, the network, and code of every kind of data set
        said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise JournalError(
            f"{name} cannot be read from the hub: {said}", "name its config and split as ORG/NAME:CONFIG@SPLIT, or download it first"
        ) from error
