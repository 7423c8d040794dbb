"""What screens and learners read. A Record sees every commit of the writing process, and can change nothing.

Every answer is computed from the log at the moment of asking: there is no state to go stale.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from storage import blind, derived, kept, lessons, provenance, repeats, rows, statistics
from storage.blind import BlindCount
from storage.counts import Counts, counts
from storage.database import explain, open_reader
from storage.lessons import Taught, Teaching
from storage.people import People, people
from storage.records import BASE_VERSION, BaseModel, Calibration, Critique, Logged, Prompt, Response, Run, SampleSet, Shown, Tap
from storage.rows import MarkedVersion
from storage.sample_pairs import SamplePair, sample_pairs
from storage.statistics import Agreement, Habits
from storage.verdict import Verdict, comparisons, verdict, votes

T = TypeVar("T")


class Record:
    """Reads one database. Belongs to one thread at a time. Every method raises JournalError where the file cannot be read."""

    def __init__(self, path: Path) -> None:
        """Raises JournalError where there is no database, or one that this version cannot read."""
        self.path = path.expanduser().resolve()
        self._connection = open_reader(self.path)
        self._connection.row_factory = sqlite3.Row

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --- the log ------------------------------------------------------------------------------------------------------

    def live(self, set_uid: str | None = None) -> list[Logged]:
        """Live judgements (skips and peeks among them) in seq order, of one set or of all; of ratings, the newest alone."""
        if set_uid is None:
            return self._logged("v_live", "1")
        return self._logged("v_live", "e.set_id = (SELECT id FROM sample_sets WHERE uid = ?)", set_uid)

    def log(self, after: int = 0) -> list[Logged]:
        """Everything that was said after seq `after`, undone or not, undo and redo too."""
        return self._logged("events", "e.seq > ?", after)

    def last_seq(self) -> int:
        """The number of the newest event; 0 in an empty log. No number is left out, so this is how many there are."""
        return int(self._values("SELECT coalesce(max(seq), 0) FROM events")[0])

    def logged(self, seq: int) -> Logged:
        """One event of the log. Raises KeyError."""
        return _only(self._logged("events", "e.seq = ?", seq), seq)

    def last_undoable(self) -> int | None:
        """The newest judgement that an Undo may target."""
        found = self._values("SELECT e.seq FROM v_standing e JOIN event_kinds k ON k.kind = e.kind WHERE k.undoable ORDER BY e.seq DESC LIMIT 1")
        return found[0] if found else None

    def last_redoable(self) -> int | None:
        """The judgement undone last, unless a newer one on the same subject has taken its place."""
        # The plus keeps SQLite from the index of kinds: from the end of the log backwards the first that fits is near.
        found = self._values("""
            SELECT e.seq FROM events u CROSS JOIN events e ON e.seq = u.target_seq JOIN event_kinds k ON k.kind = e.kind
            WHERE +u.kind = 'undo' AND NOT EXISTS (SELECT 1 FROM events w WHERE w.target_seq = u.target_seq AND w.seq > u.seq)
              AND (k.again = 'kept' OR NOT EXISTS (
                SELECT 1 FROM v_standing s WHERE s.kind = e.kind AND s.subject = e.subject AND (k.again = 'refused' OR s.seq > e.seq)))
            ORDER BY u.seq DESC LIMIT 1""")
        return found[0] if found else None

    def rating_seqs(self, response_uid: str, criterion: str = "overall") -> tuple[int, ...]:
        """The ratings of an answer that are not undone, newest first: clearing the score undoes them all."""
        subject = f"{response_uid}/{criterion}"
        sql = "SELECT seq FROM v_standing WHERE kind = 'rating' AND subject = ? ORDER BY seq DESC"
        return tuple(self._values(sql, subject))

    def wishes(self) -> list[Logged]:
        """Live critiques that hold for every prompt, those that are switched off too, in seq order."""
        return self._logged("v_live", "e.kind = 'critique' AND e.seq IN (SELECT seq FROM critiques WHERE scope = 'all')")

    def criticised(self, prompt: Prompt) -> bool:
        """Whether a live critique of a single prompt holds for this one: said of it, or of a conversation that it goes on from."""
        begun = [Prompt(prompt.messages[:i]).uid for i in range(1, len(prompt.messages) + 1)]
        marks = ", ".join("?" * len(begun))
        sql = f"SELECT 1 FROM v_critiques WHERE scope = 'prompt' AND strength <> 0 AND prompt_uid IN ({marks}) LIMIT 1"
        return bool(self._values(sql, *begun))

    def said_before(self, seq: int) -> bool:
        """Whether a critique only says again, with another strength, what stands without it."""
        others = "SELECT 1 FROM events e JOIN v_standing s ON s.kind = e.kind AND s.subject = e.subject AND s.seq < e.seq WHERE e.seq = ? LIMIT 1"
        return bool(self._values(others, seq))

    def strengths(self, wish: str) -> list[int]:
        """Those that a standing wish in these words had while it was on, oldest first."""
        found = self._logged("v_standing", "e.seq IN (SELECT seq FROM critiques WHERE scope = 'all' AND text = ? AND strength <> 0)", wish)
        return [logged.judgement.strength for logged in found if isinstance(logged.judgement, Critique)]

    def taps(self, response_uid: str) -> list[tuple[int, Tap]]:
        """Live taps on an answer, with their seqs."""
        found = self._logged("v_live", "e.kind = 'tap' AND e.seq IN (SELECT seq FROM taps WHERE response_uid = ?)", response_uid)
        return [(logged.seq, logged.judgement) for logged in found if isinstance(logged.judgement, Tap)]

    def shown(self, response_uid: str) -> Shown | None:
        """An answer that was tapped, as far as it appeared."""
        with self._snapshot() as connection:
            return rows.shown(connection, "k.response_uid = ?", (response_uid,)).get(response_uid)

    def calibrations(self) -> list[Calibration]:
        """Windows for taps that were measured here, the one in force last."""
        found = self._logged("events", "e.kind = 'calibration' AND i.build_id IS NOT NULL")
        return [logged.judgement for logged in found if isinstance(logged.judgement, Calibration)]

    def lessons(self) -> list[Taught]:
        """Every live judgement that teaches, in seq order, with its set and answers."""
        return self._lessons("1")

    def teaching(self, own: bool = False) -> list[Teaching]:
        """What `lessons` are of, in seq order, without their texts: a hundred thousand are told in a second. `own`: see lessons.OWN."""
        with self._snapshot() as connection:
            return lessons.teaching(connection, lessons.OWN if own else "1")

    def has_imports(self) -> bool:
        """Whether any set came from elsewhere."""
        return bool(self._values("SELECT 1 FROM sample_sets WHERE purpose = 'imported' LIMIT 1"))

    def teaches_nothing(self) -> dict[str, int]:
        """Events that `teaching` leaves out: why, and how many."""
        with self._snapshot() as connection:
            return lessons.teaches_nothing(connection)

    def lessons_of(self, seqs: Sequence[int]) -> list[Taught]:
        """Those lessons, in seq order: for a log that is too long to be read at once, or in another order."""
        return self._lessons("e.seq IN (SELECT value FROM json_each(?))", json.dumps(list(seqs)))

    def lesson(self, seq: int) -> Taught:
        """The same for one judgement. Raises KeyError if it is not live or does not teach."""
        return _only(self._lessons("e.seq = ?", seq), seq)

    def surpassed_after(self, set_uid: str) -> dict[int, frozenset[str]]:
        """Of live rankings and scores of later sets of the same prompt, by seq: the criticised answers that they beat."""
        later = """e.kind IN ('ranking', 'rating') AND e.set_id IN (SELECT l.id FROM sample_sets s JOIN sample_sets l ON l.prompt_id = s.prompt_id
            AND l.id > s.id WHERE s.uid = ?)"""
        with self._snapshot() as connection:
            criticised = "SELECT 1 FROM sample_sets s JOIN events e ON e.set_id = s.id WHERE s.uid = ? AND e.kind = 'critique'"
            if connection.execute(f"{criticised} LIMIT 1", (set_uid,)).fetchone() is None:
                return {}
            found = {seq: set[str]() for (seq,) in connection.execute(f"SELECT e.seq FROM v_live e WHERE {later}", (set_uid,))}
            for seq, uid, _ in derived.surpassed(connection, later, (set_uid,)):
                found[seq].add(uid)
        return {seq: frozenset(uids) for seq, uids in found.items()}

    # --- what was shown -----------------------------------------------------------------------------------------------

    def identity(self) -> str:
        """What no other database has, but copies of this one: the uid of its first sitting; '' before that."""
        found = self._values("SELECT uid FROM sittings ORDER BY id LIMIT 1")
        return str(found[0]) if found else ""

    def sets_of(self, seqs: Sequence[int]) -> dict[int, str]:
        """Uids of the sets that these judgements are about, by seq."""
        sql = "SELECT e.seq, s.uid FROM events e JOIN sample_sets s ON s.id = e.set_id WHERE e.seq IN (SELECT value FROM json_each(?))"
        with self._snapshot() as connection:
            return {int(seq): str(uid) for seq, uid in connection.execute(sql, (json.dumps(list(seqs)),))}

    def base(self) -> BaseModel | None:
        """The model that the database belongs to; None before the first sitting."""
        with self._snapshot() as connection:
            row = connection.execute("""
                SELECT b.base_hash, b.name, b.quantize, b.parameters, b.layers, d.weights_sha256, d.tokenizer_sha256, d.template_sha256
                FROM base_models b LEFT JOIN base_builds d ON d.id = (SELECT max(id) FROM base_builds)""").fetchone()
        return BaseModel(*row) if row else None

    def settings(self) -> dict[str, Any]:
        """What the last sitting with a model ran with; empty before the first."""
        found = self._values("SELECT settings FROM sittings WHERE build_id IS NOT NULL ORDER BY id DESC LIMIT 1")
        return dict(json.loads(found[0])) if found else {}

    def kinds_of(self, seqs: Sequence[int]) -> dict[str, int]:
        """How many of these events there are of each kind, and under 'imported' how many are about answers from elsewhere."""
        of_them = "e.seq IN (SELECT value FROM json_each(?))"
        with self._snapshot() as connection:
            found = dict(iter(connection.execute(f"SELECT kind, count(*) FROM events e WHERE {of_them} GROUP BY 1", (json.dumps(seqs),))))
            imported = f"SELECT count(*) FROM events e JOIN sample_sets s ON s.id = e.set_id WHERE s.purpose = 'imported' AND {of_them}"
            (found["imported"],) = connection.execute(imported, (json.dumps(seqs),)).fetchone()
        return found

    def sample_set(self, uid: str) -> SampleSet:
        """Raises KeyError."""
        with self._snapshot() as connection:
            return _only(rows.sample_sets(connection, "s.uid = ?", (uid,)), uid)

    def responses(self, set_uid: str) -> list[Response]:
        """The finished answers of a set, by slot."""
        with self._snapshot() as connection:
            return rows.responses(connection, "s.uid = ?", (set_uid,))

    def kept(self, set_uid: str) -> dict[str, Any] | None:
        """What an imported set has beside its texts: see exchange.items.Kept. None for any other."""
        found = self._values("SELECT k.content FROM kept_rows k JOIN sample_sets s ON s.id = k.set_id WHERE s.uid = ?", set_uid)
        return kept.read(found[0]) if found else None

    def teaches(self, set_uid: str) -> bool:
        """Whether anything is learned from judgements of this set."""
        return not self._values("SELECT 1 FROM kept_rows k JOIN sample_sets s ON s.id = k.set_id WHERE s.uid = ? AND NOT k.teaches", set_uid)

    def repeatable(self, place: float) -> str | None:
        """A set to be judged once more; see repeats.repeatable."""
        with self._snapshot() as connection:
            return repeats.repeatable(connection, place)

    def kept_alone(self) -> int:
        """Imported sets that nothing is learned from."""
        return int(self._values("SELECT count(*) FROM kept_rows WHERE NOT teaches")[0])

    def judged_prompts(self) -> set[str]:
        """Uids of the prompts that were judged, or skipped, and not taken back."""
        return set(self._values("SELECT prompt_uid FROM judged_prompts WHERE n > 0"))

    def typed_prompts(self, most: int = 50) -> list[str]:
        """What operators asked themselves, the last first, each once."""
        return self._values(
            "SELECT n.content FROM sample_sets s JOIN prompts p ON p.id = s.prompt_id JOIN nodes n ON n.id = p.node_id"
            " WHERE s.source = 'typed' GROUP BY n.content ORDER BY max(s.id) DESC LIMIT ?",
            most,
        )

    # --- what was learned ---------------------------------------------------------------------------------------------

    def versions(self) -> list[MarkedVersion]:
        """Every version, newest first."""
        with self._snapshot() as connection:
            return rows.versions(connection, "1", ())

    def acting_version(self) -> MarkedVersion | None:
        """The version that the last activation named; None for the base without an adapter."""
        with self._snapshot() as connection:
            return next(iter(rows.versions(connection, "v.acting", ())), None)

    def held(self) -> bool:
        """Whether the last word was a rollback: learning waits until the operator resumes it."""
        with self._snapshot() as connection:
            last = connection.execute("SELECT why FROM activations ORDER BY id DESC LIMIT 1").fetchone()
        return last is not None and last["why"] == "rollback"

    def new_version_id(self) -> str:
        """The id that the next version gets."""
        with self._snapshot() as connection:
            return provenance.new_version_id(connection)

    def runs(self) -> list[Run]:
        """Every stretch of training, oldest first."""
        with self._snapshot() as connection:
            return rows.runs(connection)

    def blind_count(self, last: int | None = None, policy: Literal["acting", "adapter"] = "acting") -> BlindCount:
        """The acting slot against the base slot in the `last` counted sets, or in all.

        'acting' is the policy as it acted, 'adapter' the same where it acted without bias. Counted are sets that were shown to
        be judged, without a peek before the judgement, whose live ranking mentions at least one of the two slots (mentioned
        beats unmentioned), or, without a ranking, whose two slots have live overall ratings.
        """
        with self._snapshot() as connection:
            return blind.tally(connection, last, policy)

    def duels(self) -> dict[tuple[str, str], BlindCount]:
        """Comparisons in sets that were made for nothing else, by pair: see blind.duels; never part of `blind_count`."""
        with self._snapshot() as connection:
            return blind.duels(connection)

    def duel_count(self, one: str = "acting", other: str = BASE_VERSION) -> BlindCount:
        """Of one pair, the first one's wins."""
        return self.duels().get((one, other), blind.NOTHING)

    def verdict(self) -> Verdict:
        """What the blind sets prove: see verdict.py. Reads every counted set and every duel."""
        with self._snapshot() as connection:
            return verdict(votes(connection), comparisons(connection))

    def sample_pairs(self, version: str, other: str = "") -> list[SamplePair]:
        """Answers of this version beside another's, or any other's, to the same prompts, newest first."""
        with self._snapshot() as connection:
            return sample_pairs(connection, version, other)

    def counts(self) -> Counts:
        """How much there is of everything."""
        with self._snapshot() as connection:
            return counts(connection)

    def imported_file(self, sha256: str, format: str) -> bool:
        """Whether all of a file was imported."""
        return bool(self._values("SELECT 1 FROM imports WHERE sha256 = ? AND format = ?", sha256, format))

    def agreement(self) -> Agreement:
        """How far operators agree with themselves, and what that leaves to foresee."""
        with self._snapshot() as connection:
            return statistics.agreement(connection)

    def habits(self) -> Habits:
        """How the operator judges: seconds for a million events."""
        with self._snapshot() as connection:
            return statistics.habits(connection)

    def people(self) -> People:
        """Who judged, and how far they agree: seconds for a hundred thousand judgements."""
        with self._snapshot() as connection:
            return people(connection)

    # --- reading ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """All queries inside see the database at one moment."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _values(self, sql: str, *values: object) -> list[Any]:
        """The first column."""
        with self._snapshot() as connection:
            return [row[0] for row in connection.execute(sql, values)]

    def _logged(self, table: str, where: str, *values: object) -> list[Logged]:
        with self._snapshot() as connection:
            return rows.logged(connection, table, where, values)

    def _lessons(self, where: str, *values: object) -> list[Taught]:
        with self._snapshot() as connection:
            return lessons.taught(connection, where, values)


def _only(found: list[T], name: str | int) -> T:
    if not found:
        raise KeyError(name)
    return found[0]
