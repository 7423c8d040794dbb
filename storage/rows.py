"""Rows become structs: the inverse of `judgements` and `provenance`, over any read connection.

Every function takes a condition in SQL over the named aliases and its values, so that one statement serves one record and all.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from typing import Any

import msgspec

from storage.records import Canary, Judgement, Logged, Message, Prompt, Response, Run, SampleSet, Sampling, Shown, Version

Values = tuple[object, ...]

SAMPLING = {
    "temperature": "temperature", "max_new_tokens": "max_new_tokens", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "repetition_penalty": "repetition_penalty", "stop_texts": "stop", "max_thinking_tokens": "max_thinking_tokens",
}  # fmt: skip
"""Columns of an answer -> fields of its Sampling."""

_decode = msgspec.json.Decoder(Judgement).decode


class MarkedVersion(Version, frozen=True):
    """A version as it stands now."""

    stale: bool = False  # it, or a version it came from, learned from a judgement that is undone now, or from words that are said otherwise
    acting: bool = False


def logged(connection: sqlite3.Connection, table: str, where: str, values: Values) -> list[Logged]:
    """Events `e` of a table or view of events, by seq."""
    rows = connection.execute(
        f"SELECT e.seq, e.payload, e.utc, i.uid FROM {table} e JOIN sittings i ON i.id = e.sitting_id WHERE {where} ORDER BY e.seq",
        values,
    )
    return [Logged(seq, _decode(payload), utc, sitting_uid) for seq, payload, utc, sitting_uid in rows]


def sample_sets(connection: sqlite3.Connection, where: str, values: Values) -> list[SampleSet]:
    """Sets `s` with their prompts, in the order they were made."""
    of_prompt = f"SELECT s.prompt_id FROM sample_sets s WHERE {where}"
    messages = _grouped(
        connection.execute(
            f"""WITH RECURSIVE up(prompt_id, node_id, height) AS (
                  SELECT p.id, p.node_id, 0 FROM prompts p WHERE p.id IN ({of_prompt})
                  UNION ALL SELECT u.prompt_id, n.parent_id, u.height + 1
                  FROM up u JOIN nodes n ON n.id = u.node_id WHERE n.parent_id IS NOT NULL)
                SELECT u.prompt_id, n.role, n.content FROM up u JOIN nodes n ON n.id = u.node_id ORDER BY u.prompt_id, u.height DESC""",
            values,
        )
    )
    rows = connection.execute(
        "SELECT s.prompt_id, s.source, s.uid, i.uid, s.k, s.purpose, s.blind_base, s.blind_acting"
        f" FROM sample_sets s JOIN sittings i ON i.id = s.sitting_id WHERE {where} ORDER BY s.id",
        values,
    )
    return [
        SampleSet(uid, sitting_uid, Prompt(tuple(Message(*turn) for turn in messages[prompt_id]), source), *rest)
        for prompt_id, source, uid, sitting_uid, *rest in rows
    ]


def shown(connection: sqlite3.Connection, where: str, values: Values) -> dict[str, Shown]:
    """Answers that were tapped, as far as they appeared: tokens `k`, by answer."""
    columns = "k.response_uid, s.uid, k.position, k.token_id, k.text, k.seconds, k.h_epoch, k.beta"
    joined = f"FROM shown_tokens k JOIN sample_sets s ON s.id = k.set_id WHERE {where} ORDER BY k.response_uid, k.position"
    answers: dict[str, list[Any]] = {}
    for uid, *token in connection.execute(f"SELECT {columns} {joined}", values):
        answers.setdefault(uid, []).append(token)
    return {
        uid: Shown(tokens[0][0], uid, tokens[0][1], *(tuple(column) for column in list(zip(*tokens, strict=True))[2:]))
        for uid, tokens in answers.items()
    }


def responses(connection: sqlite3.Connection, where: str, values: Values) -> list[Response]:
    """Answers `r` of sets `s` with their tokens, by set and slot."""
    joined = f"FROM responses r JOIN sample_sets s ON s.id = r.set_id WHERE {where}"
    tokens = _grouped(
        connection.execute(
            "SELECT response_id, token_id, logprob, unbiased_logprob, seconds FROM tokens"
            f" WHERE response_id IN (SELECT r.id {joined}) ORDER BY response_id, position",
            values,
        )
    )
    plain = "r.slot, r.origin, r.policy, r.version, r.h_epoch, r.beta, r.seed, r.stop, r.kl, r.thought_tokens"
    drawn = ", ".join(f"r.{column}" for column in (*SAMPLING, "forced_tokens"))
    rows = connection.execute(
        f"SELECT r.uid, s.uid AS set_uid, {plain}, r.id, {drawn}, r.prompt_ids,"
        f" (SELECT content FROM nodes WHERE id = r.node_id) AS text {joined} ORDER BY s.id, r.slot",
        values,
    )
    return [_response(dict(row), tokens[row["id"]]) for row in rows]


def versions(connection: sqlite3.Connection, where: str, values: Values) -> list[MarkedVersion]:
    """Versions `v`, newest first."""
    runs_of = _grouped(
        connection.execute("SELECT vr.version_id, r.uid FROM version_runs vr JOIN runs r ON r.id = vr.run_id ORDER BY vr.version_id, vr.position")
    )
    rows = connection.execute(
        "SELECT v.version AS id, v.sha256, v.parent, v.stage, v.reason, v.reason_code, v.seed, v.kl, v.win_rate, v.h_epoch,"
        f" v.utc, v.canary, v.id AS number, v.published, v.stale, v.acting FROM v_versions v WHERE {where} ORDER BY v.id DESC",
        values,
    )
    return [_version(dict(row), runs_of[row["number"]]) for row in rows]


def runs(connection: sqlite3.Connection) -> list[Run]:
    """Every run with its seqs in order, oldest first."""
    seqs = _grouped(connection.execute("SELECT run_id, seq FROM run_events ORDER BY run_id, seq"))
    rows = connection.execute("SELECT id, uid, stage, seed, steps, seconds, settings FROM runs ORDER BY id")
    return [
        Run(uid, stage, tuple(seq for (seq,) in seqs[number]), seed, steps, seconds, settings)
        for number, uid, stage, seed, steps, seconds, settings in rows
    ]


def _grouped(rows: sqlite3.Cursor) -> defaultdict[Any, list[Any]]:
    """Rows by their first column, which is dropped."""
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for key, *rest in rows:
        groups[key].append(rest)
    return groups


def _response(row: dict[str, Any], tokens: list[Any]) -> Response:
    del row["id"]
    token_ids, *measured = zip(*tokens, strict=True) if tokens else ((), (), (), ())
    logprobs, unbiased_logprobs, times = (() if column[:1] == (None,) else column for column in measured)
    drawn = {field: value for column, field in SAMPLING.items() if (value := row.pop(column)) is not None}
    return Response(
        forced_tokens=row.pop("forced_tokens") or 0,
        sampling=Sampling(**drawn | {"stop": tuple(json.loads(drawn.get("stop", "[]")))}) if drawn else None,
        prompt_ids=tuple(json.loads(row.pop("prompt_ids") or "[]")),
        token_ids=token_ids,
        logprobs=logprobs,
        unbiased_logprobs=unbiased_logprobs,
        times=times,
        **row,
    )


def _version(row: dict[str, Any], runs_of_it: list[Any]) -> MarkedVersion:
    del row["number"]
    canary = msgspec.json.decode(row.pop("canary") or "null", type=Canary | None)
    marks: dict[str, Any] = {name: bool(row.pop(name)) for name in ("published", "stale", "acting")}
    return MarkedVersion(**row, **marks, canary=canary, runs=tuple(uid for (uid,) in runs_of_it))
