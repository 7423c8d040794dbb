"""What screens and learners read. A Record sees every commit of the writing process, and can change nothing.

Every answer is computed from the log at the moment of asking: there is no state to go stale.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec
from msgspec import Struct

from storage import blind, provenance
from storage.blind import BlindCount, wilson
from storage.database import JournalError, explain, open_reader
from storage.records import (
    BaseModel,
    Correction,
    Judgement,
    Logged,
    Message,
    Prompt,
    Ranking,
    Rating,
    Response,
    Run,
    SampleSet,
    Sampling,
    Version,
)

__all__ = ["BlindCount", "Counts", "JournalError", "MarkedVersion", "Record", "Taught", "wilson"]

_decode = msgspec.json.Decoder(Judgement).decode


class Taught(NamedTuple):
    """A live judgement with what a learner needs to learn from it."""

    logged: Logged
    sample_set: SampleSet
    responses: tuple[Response, ...]  # of a ranking the whole set; of a demonstration none; else the one it is about


class MarkedVersion(Version, frozen=True):
    """A version as it stands now."""

    stale: bool = False  # it, or a version it came from, learned from a judgement that is undone now
    acting: bool = False


class Refusals(Struct, frozen=True):
    """How many candidate versions the gate refused for one reason."""

    reason_code: str
    count: int


class Counts(Struct, frozen=True):
    """How much there is of everything; judgements as they are live."""

    rankings: int
    ratings: int
    corrections: int
    demonstrations: int
    skips: int
    peeks: int
    undone: int
    sittings: int
    sets: int  # shown to be judged
    responses: int
    tokens: int
    runs: int
    published: int
    refused: tuple[Refusals, ...]

    @property
    def judged(self) -> int:
        """Live judgements that teach."""
        return self.rankings + self.ratings + self.corrections + self.demonstrations

    @property
    def versions(self) -> int:
        """Versions in all, published and refused."""
        return self.published + sum(refusals.count for refusals in self.refused)


class Record:
    """Reads one database. Belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises JournalError where there is no database, or one that this version cannot read."""
        self.path = path.expanduser().resolve()
        self._connection = open_reader(self.path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- the log ------------------------------------------------------------------------------------------------------

    def live(self, set_uid: str | None = None) -> list[Logged]:
        """Live judgements (skips and peeks among them) in seq order, of one set or of all; of ratings, the newest alone."""
        where = "1" if set_uid is None else "e.set_id = (SELECT id FROM sample_sets WHERE uid = ?)"
        return self._logged("v_live", where, () if set_uid is None else (set_uid,))

    def log(self, after: int = 0) -> list[Logged]:
        """Everything that was said after seq `after`, undone or not, undo and redo too."""
        return self._logged("events", "e.seq > ?", (after,))

    def logged(self, seq: int) -> Logged:
        """One event of the log. Raises KeyError."""
        found = self._logged("events", "e.seq = ?", (seq,))
        if not found:
            raise KeyError(seq)
        return found[0]

    def last_undoable(self) -> int | None:
        """The newest judgement that an Undo may target."""
        return self._value(
            "SELECT e.seq FROM v_standing e JOIN event_kinds k ON k.kind = e.kind WHERE k.undoable ORDER BY e.seq DESC LIMIT 1"
        )

    def last_redoable(self) -> int | None:
        """The judgement undone last, unless a newer one on the same subject has taken its place."""
        return self._value("""
            SELECT e.seq FROM v_undone e JOIN event_kinds k ON k.kind = e.kind
            WHERE k.again = 'kept' OR NOT EXISTS (
              SELECT 1 FROM v_standing s
              WHERE s.kind = e.kind AND s.subject = e.subject AND (k.again = 'refused' OR s.seq > e.seq))
            ORDER BY (SELECT max(u.seq) FROM events u WHERE u.target_seq = e.seq) DESC LIMIT 1""")

    def rating_seqs(self, response_uid: str, criterion: str = "overall") -> tuple[int, ...]:
        """The ratings of an answer that are not undone, newest first: clearing the score undoes them all."""
        subject = f"{response_uid}/{criterion}"
        rows = self._rows("SELECT seq FROM v_standing WHERE kind = 'rating' AND subject = ? ORDER BY seq DESC", subject)
        return tuple(seq for (seq,) in rows)

    def lessons(self) -> list[Taught]:
        """Every live judgement that teaches, in seq order, with its set and answers."""
        return self._taught("1")

    def lesson(self, seq: int) -> Taught:
        """The same for one judgement. Raises KeyError if it is not live or does not teach."""
        found = self._taught("e.seq = ?", seq)
        if not found:
            raise KeyError(seq)
        return found[0]

    # --- what was shown -----------------------------------------------------------------------------------------------

    def base(self) -> BaseModel | None:
        """The model that the database belongs to; None before the first sitting."""
        rows = self._rows("SELECT base_hash, name, quantize, parameters, layers FROM base_models")
        return BaseModel(*rows[0]) if rows else None

    def sample_set(self, uid: str) -> SampleSet:
        """Raises KeyError."""
        with self._snapshot():
            found = self._sets("s.uid = ?", uid)
        return found[uid]

    def responses(self, set_uid: str) -> list[Response]:
        """The finished answers of a set, by slot."""
        with self._snapshot():
            return self._responses("s.uid = ?", set_uid)

    def judged_prompts(self) -> set[str]:
        """Uids of the prompts that were judged, or skipped, and not taken back."""
        rows = self._rows("""
            SELECT DISTINCT p.uid FROM v_standing e JOIN event_kinds k ON k.kind = e.kind
            JOIN sample_sets s ON s.id = e.set_id JOIN prompts p ON p.id = s.prompt_id WHERE k.undoable""")
        return {uid for (uid,) in rows}

    # --- what was learned ---------------------------------------------------------------------------------------------

    def versions(self) -> list[MarkedVersion]:
        """Every version, newest first."""
        return self._versions("1")

    def acting_version(self) -> MarkedVersion | None:
        """The version that the last activation named; None for the base without an adapter."""
        found = self._versions("v.acting")
        return found[0] if found else None

    def new_version_id(self) -> str:
        """The id that the next version gets."""
        return provenance.new_version_id(self._connection)

    def runs(self) -> list[Run]:
        """Every stretch of training, oldest first."""
        with self._snapshot():
            seqs = _grouped(self._rows("SELECT run_id, seq FROM run_events ORDER BY run_id, seq"))
            rows = self._rows("SELECT id, uid, stage, seed, steps, seconds, settings FROM runs ORDER BY id")
        return [
            Run(uid, stage, tuple(seq for (seq,) in seqs[key]), seed, steps, seconds, settings)
            for key, uid, stage, seed, steps, seconds, settings in rows
        ]

    def blind_count(self, last: int | None = None, policy: Literal["acting", "adapter"] = "acting") -> BlindCount:
        """The acting slot against the base slot in the `last` counted sets, or in all.

        'acting' is the policy as it acted, 'adapter' the same where it acted without bias. Counted are sets that were shown to
        be judged, without a peek before the judgement, whose live ranking mentions at least one of the two slots (mentioned
        beats unmentioned), or, without a ranking, whose two slots have live overall ratings.
        """
        try:
            return blind.tally(self._connection, last, policy)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def counts(self) -> Counts:
        """How much there is of everything."""
        with self._snapshot():
            live = dict(self._rows("SELECT kind, count(*) FROM v_live GROUP BY kind"))
            refused = self._rows(
                "SELECT reason_code, count(*) FROM versions WHERE NOT published GROUP BY reason_code ORDER BY reason_code"
            )
            return Counts(
                **{f"{kind}s": live.get(kind, 0) for kind in ("ranking", "rating", "correction", "demonstration")},
                skips=live.get("skip", 0),
                peeks=live.get("peek", 0),
                undone=self._count("v_undone"),
                sittings=self._count("sittings"),
                sets=self._count("sample_sets WHERE purpose = 'judge'"),
                responses=self._count("responses"),
                tokens=self._count("tokens"),
                runs=self._count("runs"),
                published=self._count("versions WHERE published"),
                refused=tuple(Refusals(*row) for row in refused),
            )

    # --- rows to structs ----------------------------------------------------------------------------------------------

    def _rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _value(self, sql: str, *values: object) -> int | None:
        rows = self._rows(sql, *values)
        return int(rows[0][0]) if rows else None

    def _count(self, table: str) -> int:
        return self._value(f"SELECT count(*) FROM {table}") or 0

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All queries inside see the database at one moment."""
        self._rows("BEGIN")
        try:
            yield
        finally:
            self._rows("COMMIT")

    def _logged(self, table: str, where: str, values: tuple[object, ...]) -> list[Logged]:
        rows = self._rows(
            f"SELECT e.seq, e.payload, e.utc, i.uid FROM {table} e JOIN sittings i ON i.id = e.sitting_id"
            f" WHERE {where} ORDER BY e.seq",
            *values,
        )
        return [Logged(seq, _decode(payload), utc, sitting) for seq, payload, utc, sitting in rows]

    def _taught(self, where: str, *values: object) -> list[Taught]:
        teaching = f"e.kind IN (SELECT kind FROM event_kinds WHERE teaches) AND {where}"
        of_set = f"s.id IN (SELECT e.set_id FROM v_live e WHERE {teaching})"
        with self._snapshot():
            judged = self._logged("v_live", teaching, values)
            sets = self._sets(of_set, *values)
            answers = self._responses(of_set, *values)
        by_set: defaultdict[str, list[Response]] = defaultdict(list)
        for answer in answers:
            by_set[answer.set_uid].append(answer)
        return [_taught(logged, sets, by_set) for logged in judged]

    def _sets(self, where: str, *values: object) -> dict[str, SampleSet]:
        messages = _grouped(
            self._rows(
                "SELECT prompt_id, role, content FROM messages WHERE prompt_id IN"
                f" (SELECT s.prompt_id FROM sample_sets s WHERE {where}) ORDER BY prompt_id, position",
                *values,
            )
        )
        rows = self._rows(
            "SELECT s.uid, i.uid, s.prompt_id, s.source, s.k, s.purpose, s.blind_base, s.blind_acting"
            f" FROM sample_sets s JOIN sittings i ON i.id = s.sitting_id WHERE {where} ORDER BY s.id",
            *values,
        )
        return {
            uid: SampleSet(uid, sitting, Prompt(tuple(Message(*turn) for turn in messages[prompt_id]), source), *rest)
            for uid, sitting, prompt_id, source, *rest in rows
        }

    def _responses(self, where: str, *values: object) -> list[Response]:
        joined = f"FROM responses r JOIN sample_sets s ON s.id = r.set_id WHERE {where}"
        tokens = _grouped(
            self._rows(
                "SELECT response_id, token_id, logprob, unbiased_logprob, seconds FROM tokens"
                f" WHERE response_id IN (SELECT r.id {joined}) ORDER BY response_id, position",
                *values,
            )
        )
        rows = self._rows(
            "SELECT r.id, r.temperature, r.max_new_tokens, r.prompt_ids, r.text, r.stop, r.kl,"
            f" r.uid, s.uid, r.slot, r.policy, r.version, r.h_epoch, r.beta, r.seed {joined} ORDER BY s.id, r.slot",
            *values,
        )
        return [_response(row, tokens[row[0]]) for row in rows]

    def _versions(self, where: str) -> list[MarkedVersion]:
        with self._snapshot():
            runs = _grouped(
                self._rows(
                    "SELECT vr.version_id, r.uid FROM version_runs vr JOIN runs r ON r.id = vr.run_id"
                    " ORDER BY vr.version_id, vr.position"
                )
            )
            rows = self._rows(
                "SELECT id, version, sha256, parent, stage, published, reason, reason_code, seed, kl, win_rate, h_epoch,"
                f" utc, stale, acting FROM v_versions v WHERE {where} ORDER BY id DESC"
            )
        return [
            MarkedVersion(
                *row[1:5], bool(row[5]), *row[6:8], tuple(uid for (uid,) in runs[row[0]]), *row[8:13], bool(row[13]), bool(row[14])
            )
            for row in rows
        ]


def _grouped(rows: list[Any]) -> defaultdict[int, list[Any]]:
    """Rows by their first column, which is dropped."""
    groups: defaultdict[int, list[Any]] = defaultdict(list)
    for key, *rest in rows:
        groups[key].append(rest)
    return groups


def _response(row: tuple[Any, ...], tokens: list[Any]) -> Response:
    _, temperature, max_new_tokens, prompt_ids, text, stop, kl, *head = row
    columns = tuple(zip(*tokens, strict=True)) if tokens else ((),) * 4
    measured = [() if column[:1] == (None,) else column for column in columns[1:]]
    logprobs, unbiased_logprobs, times = measured
    return Response(
        *head,
        sampling=Sampling(temperature, max_new_tokens),
        prompt_ids=tuple(json.loads(prompt_ids)),
        token_ids=columns[0],
        text=text,
        logprobs=logprobs,
        unbiased_logprobs=unbiased_logprobs,
        times=times,
        stop=stop,
        kl=kl,
    )


def _taught(logged: Logged, sets: dict[str, SampleSet], answers: dict[str, list[Response]]) -> Taught:
    judgement = logged.judgement
    of_set = answers[judgement.set_uid]
    match judgement:
        case Ranking():
            about = of_set
        case Rating(response_uid=uid) | Correction(response_uid=uid):
            about = [answer for answer in of_set if answer.uid == uid]
        case _:
            about = []
    return Taught(logged, sets[judgement.set_uid], tuple(about))
