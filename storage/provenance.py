"""Where judgements and versions come from, as rows: models, sittings, sets of answers, training runs, versions.

Runs inside the writer's transaction; every function raises JournalError for what does not fit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

import msgspec

from storage import rows, state
from storage.database import JournalError, now
from storage.records import (
    BASE_VERSION,
    DRAWN,
    Activation,
    BaseModel,
    Import,
    ImportedItem,
    KeptRow,
    Prequential,
    Prompt,
    Response,
    Run,
    SampleSet,
    Sampling,
    Selection,
    Shown,
    Sitting,
    Version,
)
from storage.tree import plant_answer, plant_conversation

Entry = SampleSet | Response | Shown | Run | Version | Activation | Prequential | Import | ImportedItem | KeptRow | Selection


def bind(connection: sqlite3.Connection, base: BaseModel | None, sitting: Sitting) -> int:
    """Registers the base model (none for an import) and the sitting, both only once. Returns the sitting's row id."""
    build_id = _build_id(connection, base, sitting.quantize) if base is not None else None
    known = connection.execute("SELECT id FROM sittings WHERE uid = ?", (sitting.uid,)).fetchone()
    if known is not None:
        return int(known[0])
    _check_json(sitting.settings)
    kind = "import" if sitting.operator.startswith("import ") else "program" if ":" in sitting.operator else "person"
    _insert_new(connection, "operators", "name", (sitting.operator, kind, now()))
    values = (sitting.uid, build_id, sitting.operator, sitting.app_version, sitting.settings, now())
    return _insert(connection, "sittings", "uid, build_id, operator, app_version, settings, utc", values)


def _build_id(connection: sqlite3.Connection, base: BaseModel, quantize: str) -> int:
    values = (bind_base(connection, base), base.weights_sha256, base.tokenizer_sha256, base.template_sha256, quantize)
    known = connection.execute(
        "SELECT id FROM base_builds WHERE base_id = ? AND weights_sha256 IS ? AND tokenizer_sha256 IS ? AND template_sha256 IS ? AND quantize = ?",
        values,
    ).fetchone()
    if known is not None:
        return int(known[0])
    columns = "base_id, weights_sha256, tokenizer_sha256, template_sha256, quantize, utc"
    return _insert(connection, "base_builds", columns, (*values, now()))


def has_template(connection: sqlite3.Connection) -> bool:
    """Whether the base has a chat template. Taken to have one where no build says so: before there were hashes, and where nothing was loaded."""
    told = "SELECT template_sha256 FROM base_builds WHERE weights_sha256 IS NOT NULL ORDER BY id DESC LIMIT 1"
    known = connection.execute(told).fetchone()
    return known is None or known[0] is not None


def bind_base(connection: sqlite3.Connection, base: BaseModel) -> int:
    """The row of the base model, made where there is none. Raises JournalError where the database belongs to another."""
    row = connection.execute("SELECT id, base_hash, name FROM base_models").fetchone()
    if row is None:
        values = (base.base_hash, base.name, base.quantize, base.parameters, base.layers, now())
        return _insert(connection, "base_models", "base_hash, name, quantize, parameters, layers, utc", values)
    base_id, base_hash, name = row
    if base_hash != base.base_hash:
        raise JournalError(
            f"this database belongs to {name} ({base_hash[:8]}), not to {base.name} ({base.base_hash[:8]})",
            "give another database, or the model it belongs to",
        )
    return int(base_id)


def write(connection: sqlite3.Connection, sitting_id: int | None, record: Entry) -> None:
    """Inserts one record with all its rows."""
    match record:
        case SampleSet():
            _write_set(connection, record)
        case Response():
            _write_response(connection, record)
        case Shown():
            _write_shown(connection, record)
        case Run():
            _write_run(connection, sitting_id, record)
        case Version():
            _write_version(connection, sitting_id, record)
        case Activation():
            _write_activation(connection, sitting_id, record)
        case Prequential(seq, judge, log_loss, right, pairs, margin):
            _id(connection, "events", "seq", seq, "judgement")
            columns = 'seq, judge, log_loss, "right", pairs, margin, utc'
            _insert(connection, "prequential", columns, (seq, judge, log_loss, right, pairs, margin, now()))
        case Selection():
            scores, left_out = (msgspec.json.encode(each).decode() for each in (record.scores, record.left_out))
            set_id = _id(connection, "sample_sets", "uid", record.set_uid, "set")
            _insert(connection, "selections", "set_id, drawn, judge, scores, left_out", (set_id, record.drawn, record.judge, scores, left_out))
        case Import():
            _write_import(connection, sitting_id, record)
        case ImportedItem():
            _write_item(connection, record)
        case KeptRow(set_uid, content, teaches):
            _check_json(content)
            values = (_id(connection, "sample_sets", "uid", set_uid, "set"), teaches, content)
            _insert(connection, "kept_rows", "set_id, teaches, content", values)


def new_version_id(connection: sqlite3.Connection) -> str:
    """'v1', or the number after the highest so far; refused versions have numbers too."""
    (last,) = connection.execute("SELECT max(CAST(substr(version, 2) AS INTEGER)) FROM versions").fetchone()
    return f"v{(last or 0) + 1}"


def _write_set(connection: sqlite3.Connection, record: SampleSet) -> None:
    values = (
        record.uid,
        _id(connection, "sittings", "uid", record.sitting_uid, "sitting"),
        _prompt_id(connection, record.prompt),
        record.prompt.source,
        record.k,
        record.purpose,
        record.blind_base,
        record.blind_acting,
        now(),
    )
    _insert(
        connection,
        "sample_sets",
        "uid, sitting_id, prompt_id, source, k, purpose, blind_base, blind_acting, utc",
        values,
    )


def _prompt_id(connection: sqlite3.Connection, prompt: Prompt) -> int:
    uid = prompt.uid
    known = connection.execute("SELECT id FROM prompts WHERE uid = ?", (uid,)).fetchone()
    if known is not None:
        return int(known[0])
    if not prompt.messages:
        raise JournalError("the prompt has no message")
    return _insert(connection, "prompts", "uid, node_id", (uid, plant_conversation(connection, prompt.messages, prompt.source)))


def _write_response(connection: sqlite3.Connection, record: Response) -> None:
    set_id = _id(connection, "sample_sets", "uid", record.set_uid, "set")
    values = (
        record.uid,
        set_id,
        record.slot,
        plant_answer(connection, set_id, record.text, "model" if record.origin == DRAWN else "imported"),
        record.origin,
        record.policy,
        record.version,
        record.h_epoch,
        record.beta,
        record.seed,
        *_sampling(record.sampling),
        record.thought_tokens,
        record.forced_tokens if record.thought_tokens is not None else None,
        json.dumps(record.prompt_ids) if record.prompt_ids or record.origin == DRAWN else None,
        record.stop,
        record.kl,
        now(),
    )
    drawn = f"{', '.join(rows.SAMPLING)}, thought_tokens, forced_tokens"
    columns = f"uid, set_id, slot, node_id, origin, policy, version, h_epoch, beta, seed, {drawn}, prompt_ids, stop, kl, utc"
    response_id = _insert(connection, "responses", columns, values)
    _write_tokens(connection, response_id, record)
    state.follow_answer(connection, set_id, len(record.token_ids))


def _sampling(sampling: Sampling | None) -> Iterator[object]:
    """In the order of rows.SAMPLING."""
    for name in rows.SAMPLING.values():
        value = getattr(sampling, name) if sampling is not None else None
        yield json.dumps(value) if isinstance(value, tuple) else value


def _write_tokens(connection: sqlite3.Connection, response_id: int, record: Response) -> None:
    n = len(record.token_ids)
    measured = (record.logprobs, record.unbiased_logprobs, record.times)
    if any(len(column) not in (0, n) for column in measured):  # none at all where it was not measured
        raise JournalError(f"answer {record.uid} has {n} tokens but {[len(column) for column in measured]} measurements")
    columns = [column or (None,) * n for column in measured]
    connection.executemany(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
        [(response_id, i, *row) for i, row in enumerate(zip(record.token_ids, *columns, strict=True))],
    )


def _write_shown(connection: sqlite3.Connection, record: Shown) -> None:
    columns = (record.token_ids, record.texts, record.seconds, record.h_epochs, record.betas)
    if len({len(column) for column in columns}) > 1:
        raise JournalError(f"what was shown of answer {record.response_uid} has unequal columns")
    set_id = _id(connection, "sample_sets", "uid", record.set_uid, "set")
    known = connection.execute("SELECT count(*), min(set_id) FROM shown_tokens WHERE response_uid = ?", (record.response_uid,)).fetchone()
    if known[0] != record.start or known[1] not in (None, set_id):
        raise JournalError(f"{known[0]} tokens of answer {record.response_uid} were shown: it does not go on at {record.start}")
    connection.executemany(
        "INSERT INTO shown_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(record.response_uid, i, set_id, *row) for i, row in enumerate(zip(*columns, strict=True), start=record.start)],
    )


def _write_run(connection: sqlite3.Connection, sitting_id: int | None, record: Run) -> None:
    _check_json(record.settings)
    if connection.execute("SELECT 1 FROM runs WHERE uid = ?", (record.uid,)).fetchone():
        return  # an engine that terminals come back to tells of it until the version is on disk
    values = (record.uid, sitting_id, record.stage, record.seed, record.steps, record.seconds, record.settings, now())
    run_id = _insert(connection, "runs", "uid, sitting_id, stage, seed, steps, seconds, settings, utc", values)
    for seq in sorted(set(record.seqs)):
        _id(connection, "events", "seq", seq, "judgement")
        connection.execute("INSERT INTO run_events VALUES (?, ?)", (run_id, seq))


def _write_version(connection: sqlite3.Connection, sitting_id: int | None, record: Version) -> None:
    if record.parent != BASE_VERSION:
        _id(connection, "versions", "version", record.parent, "version")
    values = (
        record.id,
        sitting_id,
        record.sha256,
        record.parent,
        record.stage,
        record.published,
        record.reason,
        record.reason_code,
        record.seed,
        record.kl,
        record.win_rate,
        record.h_epoch,
        record.utc or now(),
        msgspec.json.encode(record.canary).decode() if record.canary is not None else None,
    )
    columns = "version, sitting_id, sha256, parent, stage, published, reason, reason_code, seed, kl, win_rate, h_epoch, utc, canary"
    version_id = _insert(connection, "versions", columns, values)
    for i, run_uid in enumerate(record.runs):
        run_id = _id(connection, "runs", "uid", run_uid, "run")
        connection.execute("INSERT INTO version_runs VALUES (?, ?, ?)", (version_id, i, run_id))


def _write_activation(connection: sqlite3.Connection, sitting_id: int | None, record: Activation) -> None:
    if record.version != BASE_VERSION:
        row = connection.execute("SELECT published FROM versions WHERE version = ?", (record.version,)).fetchone()
        if row != (1,):
            what = "there is no version" if row is None else "nothing was kept of the refused version"
            raise JournalError(f"{what} {record.version}", "choose a published version")
    values = (record.version, record.why, sitting_id, now())
    _insert(connection, "activations", "version, why, sitting_id, utc", values)


def _write_import(connection: sqlite3.Connection, sitting_id: int | None, record: Import) -> None:
    if sitting_id is None:
        raise JournalError("no sitting has begun", "bind the journal first")
    values = (record.uid, record.sha256, record.format, record.name, record.rows, record.skipped, sitting_id, now())
    _insert(connection, "imports", "uid, sha256, format, name, rows, skipped, sitting_id, utc", values)


def _write_item(connection: sqlite3.Connection, record: ImportedItem) -> None:
    import_id = _id(connection, "imports", "uid", record.import_uid, "import")
    set_id = _id(connection, "sample_sets", "uid", record.set_uid, "set") if record.set_uid is not None else None
    connection.execute("INSERT INTO import_items VALUES (?, ?, ?)", (record.sha256, import_id, set_id))


def _insert_new(connection: sqlite3.Connection, table: str, key: str, values: tuple[object, ...]) -> None:
    """Unless the first value is there already."""
    if connection.execute(f"SELECT 1 FROM {table} WHERE {key} = ?", values[:1]).fetchone() is None:
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)


def _insert(connection: sqlite3.Connection, table: str, columns: str, values: tuple[object, ...]) -> int:
    marks = ", ".join("?" * len(values))
    cursor = connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _id(connection: sqlite3.Connection, table: str, column: str, name: str | int, what: str) -> int:
    row = connection.execute(f"SELECT rowid FROM {table} WHERE {column} = ?", (name,)).fetchone()
    if row is None:
        raise JournalError(f"there is no {what} {name}")
    return int(row[0])


def _check_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        raise JournalError("the settings are not JSON") from None
