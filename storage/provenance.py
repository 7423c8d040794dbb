"""Where judgements and versions come from, as rows: models, sittings, sets of answers, training runs, versions.

Runs inside the writer's transaction; every function raises JournalError for what does not fit.
"""

from __future__ import annotations

import json
import sqlite3

from storage.database import JournalError, now
from storage.records import BASE_VERSION, Activation, BaseModel, Prompt, Response, Run, SampleSet, Shown, Sitting, Version

Record = SampleSet | Response | Shown | Run | Version | Activation


def bind(connection: sqlite3.Connection, base: BaseModel, sitting: Sitting) -> int:
    """Registers the base model and the sitting, both only once. Returns the sitting's row id."""
    base_id = _bind_base(connection, base)
    known = connection.execute("SELECT id FROM sittings WHERE uid = ?", (sitting.uid,)).fetchone()
    if known is not None:
        return int(known[0])
    _check_json(sitting.settings)
    values = (sitting.uid, base_id, sitting.app_version, sitting.settings, sitting.operator, sitting.quantize, now())
    return _insert(connection, "sittings", "uid, base_id, app_version, settings, operator, quantize, utc", values)


def _bind_base(connection: sqlite3.Connection, base: BaseModel) -> int:
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


def write(connection: sqlite3.Connection, sitting_id: int | None, record: Record) -> None:
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
    prompt_id = _insert(connection, "prompts", "uid", (uid,))
    connection.executemany(
        "INSERT INTO messages VALUES (?, ?, ?, ?)",
        [(prompt_id, i, message.role, message.content) for i, message in enumerate(prompt.messages)],
    )
    return prompt_id


def _write_response(connection: sqlite3.Connection, record: Response) -> None:
    values = (
        record.uid,
        _id(connection, "sample_sets", "uid", record.set_uid, "set"),
        record.slot,
        record.policy,
        record.version,
        record.h_epoch,
        record.beta,
        record.seed,
        record.sampling.temperature,
        record.sampling.max_new_tokens,
        json.dumps(record.prompt_ids),
        record.text,
        record.stop,
        record.kl,
        now(),
    )
    columns = (
        "uid, set_id, slot, policy, version, h_epoch, beta, seed, temperature, max_new_tokens,"
        " prompt_ids, text, stop, kl, utc"
    )
    response_id = _insert(connection, "responses", columns, values)
    _write_tokens(connection, response_id, record)


def _write_tokens(connection: sqlite3.Connection, response_id: int, record: Response) -> None:
    n = len(record.token_ids)
    measured = (record.logprobs, record.unbiased_logprobs, record.times)
    if any(len(column) not in (0, n) for column in measured):  # none at all where it was not measured
        raise JournalError(
            f"answer {record.uid} has {n} tokens but {[len(column) for column in measured]} measurements"
        )
    columns = [column or (None,) * n for column in measured]
    connection.executemany(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
        [(response_id, i, *row) for i, row in enumerate(zip(record.token_ids, *columns, strict=True))],
    )


def _write_shown(connection: sqlite3.Connection, record: Shown) -> None:
    columns = (record.token_ids, record.texts, record.seconds, record.h_epochs, record.betas)
    if any(len(column) != len(record.token_ids) for column in columns):
        raise JournalError(f"answer {record.response_uid} has {len(record.token_ids)} tokens but {[len(column) for column in columns]} columns")
    set_id = _id(connection, "sample_sets", "uid", record.set_uid, "set")
    connection.executemany(
        "INSERT INTO shown_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(record.response_uid, i, set_id, *row) for i, row in enumerate(zip(*columns, strict=True), start=record.start)],
    )


def _write_run(connection: sqlite3.Connection, sitting_id: int | None, record: Run) -> None:
    _check_json(record.settings)
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
    )
    columns = (
        "version, sitting_id, sha256, parent, stage, published, reason, reason_code, seed, kl, win_rate, h_epoch, utc"
    )
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
