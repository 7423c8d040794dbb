"""Exports: a snapshot of the live judgements in a trainer's format, whole or not at all, with a manifest beside it.

The same database and options give the same bytes; nothing in the files tells when they were made. Everything is written to a temporary folder
beside the target and moved into place at the end.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from storage.backup import back_up
from storage.database import JournalError, explain, open_reader
from storage.exchange import lossless, places
from storage.exchange.choosing import Chooser, Lengths, Measure
from storage.exchange.formats import FORMATS, WHOLE, File, Format, as_texts, is_plain
from storage.exchange.items import Item, Row, Steps
from storage.exchange.reading import Reader
from storage.exchange.redaction import Redactor
from storage.exchange.sinks import Lines, Parquet, Sink, sha256_of, write_json
from storage.progress import CancelledError, Step, unwatched
from storage.records import Prompt


class Options(Struct, frozen=True):
    """What is exported, and how. `since` is the first event (or UTC time) that counts; `test_share` of the prompts, by hash, become a test split;
    `columns` adds what imported rows had beside, where a row of the format has no column of that name. Comparisons with a smaller margin than
    `min_margin` are left out; with `balance` there are as many good labels as bad ones. What the version `version_answers` says to each prompt
    becomes a column."""

    format: str
    since: int | str | None = None
    test_share: float = 0.0
    redact: bool = False
    columns: bool = False
    min_margin: float = 0.0
    balance: bool = False
    version_answers: str = ""


class ExportManifest(Struct, frozen=True):
    """What lies beside an export."""

    format: str
    options: Options
    last_event: int
    chain: str  # hash of the last event: names the state of the log
    rows: dict[str, int]  # by file
    sha256: dict[str, str]  # by file
    left_out: int = 0  # items that the format cannot tell
    redacted: dict[str, int] = {}
    dropped: dict[str, int] = {}  # items that were not wanted, by reason
    lengths: dict[str, Lengths] = {}  # of the answers, by file


class Log(NamedTuple):
    last_event: int
    chain: str


Said = Mapping[str, str]
"""What a version says, by the uid of the prompt."""


def prompts(database: Path, options: Options) -> list[Prompt]:
    """Those of the items that an export would hold, each once. Raises JournalError."""
    check(options)
    found: dict[str, Prompt] = {}
    with _snapshot(database) as connection:
        reader = Reader(connection, _first(connection, options.since))
        for file in FORMATS[options.format].files:
            for item in getattr(reader, file.source)():
                found.setdefault((prompt := Prompt(item.messages)).uid, prompt)
    return list(found.values())


def export(
    database: Path, out: Path, options: Options, steps: Iterable[Steps] = (), force: bool = False, said: Said | None = None, step: Step = unwatched
) -> ExportManifest:
    """Write `out` and `out`.manifest.json; `steps` are the items of a stepwise format. Raises JournalError, and then leaves everything as it was.

    `step` is told judgements that were read, of about how many; of the whole database its rows or bytes.
    """
    out = places.resolved(out)
    check(options)
    targets = _targets(out, options)
    try:
        places.check(database, (*targets, places.manifest_of(out)), force)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            if options.format in WHOLE:
                manifest = _whole(database, made, out, options, step)
            else:
                manifest = _rows(database, made, out, options, steps, said or {}, step)
            write_json(Path(folder) / "manifest", manifest)
            for target in targets:
                places.put(made if _is_folder(options) else made / target.name, target)
            places.put(Path(folder) / "manifest", places.manifest_of(out))
    except CancelledError as error:
        raise JournalError("cancelled", "nothing was written") from error
    except OSError as error:
        raise JournalError(f"cannot write {out}: {error.strerror or error}", "choose a folder that you may write to") from error
    except sqlite3.Error as error:
        raise explain(error, database) from error
    return manifest


def check(options: Options) -> None:
    """Raises JournalError for what does not go together."""
    if options.format not in FORMATS and options.format not in WHOLE:
        raise JournalError(f"there is no format {options.format!r}", f"use one of {', '.join((*FORMATS, *WHOLE))}")
    if not 0 <= options.test_share < 1:
        raise JournalError(f"a test split of {options.test_share:g} is none", "give a share below 1, such as 0.1")
    if (options.columns or options.version_answers) and options.format in (*WHOLE, "parquet"):
        flag = "--columns" if options.columns else "--version-answers"
        raise JournalError(f"{options.format} has no other columns", f"leave out {flag}, or choose another format")
    if options.version_answers and options.format == "trl-stepwise":
        raise JournalError("steps are of the answers that were tapped", "leave out --version-answers, or choose another format")
    sources = {file.source for file in FORMATS[options.format].files} if options.format in FORMATS else set()
    if options.min_margin and "comparisons" not in sources:
        raise JournalError(f"{options.format} has no comparisons", "leave out --min-margin, or choose another format")
    if options.balance and "labelled" not in sources:
        raise JournalError(f"{options.format} has no labels", "leave out --balance, or choose another format")
    if options.format in WHOLE and (options.since is not None or options.test_share or options.redact):
        raise JournalError(f"{options.format} is the whole database", "leave out --since, --split-by-prompt and --redact, or choose another format")


def _splits(options: Options) -> tuple[str, ...]:
    return ("train", "test") if options.test_share else ("",)


def _name(file: File, out: Path, options: Options, split: str) -> str:
    """Of one file of an export, relative to its place."""
    if options.format == "parquet":
        return f"data/{file.name}/{split or 'train'}-00000-of-00001.parquet"
    name = Path(file.name or out.name)
    return f"{name.stem}.{split}{name.suffix}" if split else name.name


def _is_folder(options: Options) -> bool:
    chosen = FORMATS.get(options.format)
    return chosen is not None and chosen.folder


def _targets(out: Path, options: Options) -> list[Path]:
    """What the export is going to be called."""
    if options.format in WHOLE or _is_folder(options):
        return [out]
    return [out.with_name(_name(FORMATS[options.format].files[0], out, options, split)) for split in _splits(options)]


# --- the whole database ----------------------------------------------------------------------------------------------------


def _whole(database: Path, made: Path, out: Path, options: Options, step: Step) -> ExportManifest:
    target = made / out.name
    if options.format == "sqlite":
        back_up(database, target, step)
        with _snapshot(target) as connection:
            log = _log(connection)
            rows = log.last_event
        for suffix in ("-wal", "-shm"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
    else:
        with _snapshot(database) as connection, closing(Lines(target)) as sink:
            log = _log(connection)
            of = lossless.size(connection)
            for row in lossless.dump(connection):
                sink.add(row)
                step(sink.rows, max(sink.rows, of))
            rows = sink.rows
    return ExportManifest(options.format, options, *log, {out.name: rows}, {out.name: sha256_of(target)})


@contextmanager
def _snapshot(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_reader(database)) as connection:
        connection.execute("BEGIN")
        yield connection


def _log(connection: sqlite3.Connection) -> Log:
    row = connection.execute("SELECT seq, sha256 FROM chain ORDER BY seq DESC LIMIT 1").fetchone()
    return Log(*row) if row else Log(0, "")


# --- rows for trainers -----------------------------------------------------------------------------------------------------


def _rows(database: Path, made: Path, out: Path, options: Options, steps: Iterable[Steps], said: Said, step: Step) -> ExportManifest:
    chosen, redactor, choose = FORMATS[options.format], Redactor(), Chooser(options.min_margin, options.balance)
    rows: dict[str, int] = {}
    lengths: dict[str, Lengths] = {}
    left_out = 0
    with _snapshot(database) as connection:
        log = _log(connection)
        reader = Reader(connection, _first(connection, options.since), step)
        for file in chosen.files:
            for _ in range(1 + options.balance):  # which asks twice
                reader.expect(file.source)
        for file in chosen.files:
            items: Iterable[Item] = steps if file.source == "steps" else choose(getattr(reader, file.source))
            counts, measures = _write(file, items, made, out, options, redactor, reader, said)
            left_out += counts.pop("", 0)
            rows |= counts
            lengths |= {name: found for name, measure in measures.items() if (found := measure.lengths()) is not None}
    for name, content in _extra(chosen, options, rows).items():
        if isinstance(content, str):
            (made / name).write_text(content, encoding="utf-8")
        else:
            write_json(made / name, content)
    hashes = {str(path.relative_to(made)): sha256_of(path) for path in sorted(made.rglob("*")) if path.is_file()}
    dropped = choose.dropped + Counter({"chosen and rejected are the same": reader.alike})
    redacted = dict(sorted(redactor.counts.items()))
    return ExportManifest(options.format, options, *log, rows, hashes, left_out, redacted, dict(sorted(dropped.items())), lengths)


def _write(
    file: File, items: Iterable[Item], made: Path, out: Path, options: Options, redactor: Redactor, reader: Reader, said: Said
) -> tuple[Counter[str], dict[str, Measure]]:
    """Rows of each file, under '' what was left out, and lengths."""
    names = {split: _name(file, out, options, split) for split in _splits(options)}
    counts: Counter[str] = Counter(dict.fromkeys(names.values(), 0))
    sinks: dict[str, Sink] = {}
    measures = {name: Measure() for name in names.values()}
    try:
        for split, name in names.items():
            parquet = options.format == "parquet"
            sinks[split] = Parquet(made / name, file.name, reader.scored(), reader.thoughtful()) if parquet else Lines(made / name)
        for item in items:
            prompt = Prompt(item.messages)
            split = "" if not options.test_share else "test" if prompt.fraction < options.test_share else "train"
            row = _row(file, redactor.item(item) if options.redact else item, options)
            if row is not None and options.version_answers:
                answer = said.get(prompt.uid)
                row["version_answer"] = redactor.text(answer) if options.redact and answer else answer
            counts[names[split] if row is not None else ""] += 1
            if row is not None:
                sinks[split].add(row)
                measures[names[split]].add(item)
    finally:
        for sink in sinks.values():
            sink.close()
    return counts, measures


def _row(file: File, item: Item, options: Options) -> Row | None:
    if isinstance(item, Steps):
        return file.row(item)
    if options.format == "parquet":  # one schema for all rows: texts
        return file.row(as_texts(item)) if is_plain(item) else None
    row = file.row(item)
    if row is None or not options.columns:
        return row
    beside = item.beside
    score = {"score": beside.scores[0]} if len(beside.scores) == 1 else {}
    return row | {name: value for name, value in (beside.columns | score).items() if name not in row}


def _first(connection: sqlite3.Connection, since: int | str | None) -> int:
    if not isinstance(since, str):
        return since or 0
    (seq,) = connection.execute("SELECT min(seq) FROM events WHERE utc >= ?", (since,)).fetchone()
    return int(seq) if seq is not None else _log(connection).last_event + 1


def _extra(chosen: Format, options: Options, rows: dict[str, int]) -> dict[str, Any]:
    """Files of fixed content: with a split LLaMA-Factory is told of both halves, and a Parquet folder gets its card."""
    if options.format == "parquet":
        return {"README.md": _card(rows)}
    extra = dict(chosen.extra)
    if options.test_share and (info := extra.get("dataset_info.json")):
        extra["dataset_info.json"] = {
            f"{name}_{split}": entry | {"file_name": entry["file_name"].replace(".jsonl", f".{split}.jsonl")}
            for name, entry in info.items() for split in ("train", "test")
        }  # fmt: skip
    return extra


def _card(rows: dict[str, int]) -> str:
    configs: dict[str, list[str]] = {}
    for name in rows:
        _, config, file = name.split("/")
        configs.setdefault(config, []).append(file.split("-")[0])
    listed = "".join(
        f"- config_name: {config}\n  data_files:\n" + "".join(f"  - split: {split}\n    path: data/{config}/{split}-*.parquet\n" for split in splits)
        for config, splits in configs.items()
    )
    counted = "".join(f"- `{name}`: {n:,} rows\n" for name, n in rows.items())
    return (
        f"---\nlicense: other\ntags: [human-feedback, rlhf, tamer, preference]\nconfigs:\n{listed}---\n\n# Judgements of one operator\n\n"
        f"Exported by tamer-tui. `preference` compares answers, with a margin from 0 to 1; `kto` labels single answers; `sft` is what the operator\n"
        f"wrote. Prompts and answers are lists of messages.\n\n{counted}"
    )
