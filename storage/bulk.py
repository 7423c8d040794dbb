"""Sets of answers from elsewhere, many at a time: the rows that `provenance` and `judgements` write one by one, a thousand sets to a statement.

The rows are the same, the hash chain and what `state` keeps among them; a test writes both ways and compares. Everything here is of new sets, so no
judgement can stand in the way of another. Runs inside the writer's transaction.
"""

from __future__ import annotations

import gc
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from storage.database import now
from storage.hashes import START, event_hash, message_hash
from storage.judgements import subject_of
from storage.migration import without_replace_guards
from storage.records import Comment, Correction, Critique, Demonstration, Judgement, Prompt, Ranking, Rating, Span, new_uid

BATCH = 1000
"""Sets that are held in memory."""
INDEXED_AT_ONCE = 32_000
"""Sets whose words go into the full-text index together: each time writes a piece of it, and many small pieces are merged again and again."""
_encode = msgspec.json.Encoder().encode
_COLUMNS = {
    "nodes": "id, hash, parent_id, role, content, origin",
    "prompts": "id, uid, node_id",
    "sample_sets": "id, uid, sitting_id, prompt_id, source, k, purpose, utc",
    "responses": "id, uid, set_id, slot, node_id, origin, utc",
    "kept_rows": "set_id, teaches, content",
    "events": "seq, uid, kind, sitting_id, set_id, response_id, subject, utc, payload",
    "chain": "seq, sha256",
    "ranking_items": "seq, response_id, rank",
    "ranking_strengths": "seq, strength",
    "ratings": "seq, response_id, criterion, value",
    "corrections": "seq, response_id, node_id",
    "demonstrations": "seq, set_id, node_id",
    "critiques": "seq, set_id, response_id, text, scope, strength",
    "spans": "seq, response_id, start, stop, label, value",
    "comments": "seq, set_id, response_id, text",
    "import_items": "sha256, import_id, set_id",
}
"""In the order in which they refer to each other."""
_REPLACE = ("rating", "correction", "demonstration", "critique")
"""Of which the last on the same subject is live."""
_JUDGES = ("ranking", "rating", "correction", "demonstration", "critique")


class JudgedSet(NamedTuple):
    """Answers of which only the texts are known, and what was said of them."""

    sitting: tuple[int, str]  # row id and uid
    uid: str
    prompt: Prompt  # its source is the origin of everything
    answers: Sequence[tuple[str, str]]  # uid and text
    judgements: Sequence[Judgement]
    sha256: str  # of the content: see import_items
    kept: str | None = None  # JSON: see kept_rows
    teaches: bool = True


class Written(NamedTuple):
    """How much was new."""

    sets: int
    judgements: int


def write(connection: sqlite3.Connection, import_id: int, sets: Iterable[JudgedSet]) -> Written:
    """All that were not imported before."""
    (pages,) = connection.execute("PRAGMA cache_size").fetchone()
    connection.execute("PRAGMA cache_size = -65536")  # KiB: content addresses are spread over their indices
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and looking for what is would take an eighth of the time
    try:
        with without_replace_guards(connection, *_COLUMNS):
            writer, waiting = _Writer(connection, import_id), iter(sets)
            while batch := list(islice(waiting, BATCH)):
                writer.write(batch)
            writer.index()
        return Written(writer.sets, writer.judgements)
    finally:
        if collecting:
            gc.enable()
        connection.execute(f"PRAGMA cache_size = {pages}")


class _Writer:
    def __init__(self, connection: sqlite3.Connection, import_id: int) -> None:
        self._connection, self._import_id = connection, import_id
        self._last = {
            table: self._highest(table, "seq" if table == "events" else "id") for table in ("nodes", "prompts", "sample_sets", "responses", "events")
        }
        last = connection.execute("SELECT sha256 FROM chain ORDER BY seq DESC LIMIT 1").fetchone()
        self._link = last[0] if last else START
        self._indexed = self._last["nodes"]
        self._not_indexed = 0  # sets
        self.sets = self.judgements = 0

    def _highest(self, table: str, key: str) -> int:
        return int(self._connection.execute(f"SELECT coalesce(max({key}), 0) FROM {table}").fetchone()[0])

    def _new(self, table: str) -> int:
        self._last[table] += 1
        return self._last[table]

    def write(self, batch: list[JudgedSet]) -> None:
        known = self._ids("import_items", "sha256", "1", [each.sha256 for each in batch])
        first: dict[str, JudgedSet] = {}
        for each in batch:
            if each.sha256 not in known:
                first.setdefault(each.sha256, each)
        new = list(first.values())
        self._rows: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self._utc = now()
        self.sets += len(new)
        self._not_indexed += len(new)
        paths = [list(_path(each)) for each in new]
        self._nodes = self._ids("nodes", "hash", "id", [address for path in paths for address, *_ in path])
        uids = [each.prompt.uid for each in new]
        self._prompts = self._ids("prompts", "uid", "id", uids)
        tallies: Counter[str] = Counter()
        prompts: Counter[str] = Counter()
        for each, path, uid in zip(new, paths, uids, strict=True):
            self._set(each, path, uid)
            live = set[tuple[str, str | int]]()
            for place, judgement in enumerate(each.judgements):
                kind = _kind(judgement)
                live.add((kind, subject_of(judgement) or place if kind in _REPLACE else place))
                prompts[uid] += kind in _JUDGES
            tallies.update(kind for kind, _ in live)
        for table, columns in _COLUMNS.items():
            if rows := self._rows.get(table):
                marks = ", ".join("?" * (columns.count(",") + 1))
                self._connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
        if self._not_indexed >= INDEXED_AT_ONCE:
            self.index()
        self._keep_count("tallies", [(f"live {kind}", n) for kind, n in tallies.items()])
        self._keep_count("judged_prompts", [(uid, n) for uid, n in prompts.items() if n])

    def index(self) -> None:
        """What was written since the last time can be searched."""
        self._connection.execute("INSERT INTO search(rowid, content) SELECT id, content FROM nodes WHERE id > ?", (self._indexed,))
        self._indexed, self._not_indexed = self._last["nodes"], 0

    def _ids(self, table: str, key: str, value: str, wanted: list[str]) -> dict[str, int]:
        sql = f"SELECT {key}, {value} FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))"
        return dict(self._connection.execute(sql, (_encode(wanted).decode(),)).fetchall())

    def _keep_count(self, table: str, counts: list[tuple[str, int]]) -> None:
        self._connection.executemany(f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", counts)

    def _set(self, each: JudgedSet, path: list[_Node], prompt_uid: str) -> None:
        nodes: list[int] = []
        turns = len(each.prompt.messages)
        for place, (address, role, content, origin) in enumerate(path):
            parent = nodes[min(place, turns) - 1] if place else None
            known = self._nodes.get(address)
            nodes.append(self._node(address, parent, role, content, origin) if known is None else known)
        set_id, prompt_id = self._new("sample_sets"), self._prompts.get(prompt_uid)
        rows, source = self._rows, each.prompt.source
        if prompt_id is None:
            prompt_id = self._prompts[prompt_uid] = self._new("prompts")
            rows["prompts"].append((prompt_id, prompt_uid, nodes[turns - 1]))
        rows["sample_sets"].append((set_id, each.uid, each.sitting[0], prompt_id, source, max(1, len(each.answers)), "imported", self._utc))
        responses = {}
        for slot, (answer_uid, _) in enumerate(each.answers):
            responses[answer_uid] = self._new("responses")
            rows["responses"].append((responses[answer_uid], answer_uid, set_id, slot, nodes[turns + slot], source, self._utc))
        if each.kept is not None:
            rows["kept_rows"].append((set_id, each.teaches, each.kept))
        written = iter(nodes[turns + len(each.answers) :])
        for judgement in each.judgements:
            self._event(each, set_id, responses, judgement, written)
        rows["import_items"].append((each.sha256, self._import_id, set_id))

    def _node(self, address: str, parent: int | None, role: str, content: str, origin: str) -> int:
        made = self._nodes[address] = self._new("nodes")
        self._rows["nodes"].append((made, address, parent, role, content, origin))
        return made

    def _event(self, each: JudgedSet, set_id: int, responses: dict[str, int], judgement: Judgement, written: Iterator[int]) -> None:
        seq, kind, uid = self._new("events"), _kind(judgement), new_uid()
        answer: str | None = getattr(judgement, "response_uid", None)
        response_id = responses[answer] if answer is not None else None
        subject = subject_of(judgement) or answer or each.uid
        payload = _encode(judgement).decode()
        self._link = event_hash(self._link, (seq, uid, kind, each.sitting[1], each.uid, answer, subject, None, self._utc, payload))
        self._rows["events"].append((seq, uid, kind, each.sitting[0], set_id, response_id, subject, self._utc, payload))
        self._rows["chain"].append((seq, self._link))
        self.judgements += 1
        match judgement:
            case Ranking(ranks=ranks, strength=strength):
                self._rows["ranking_items"] += [(seq, responses[answer], rank) for answer, rank in ranks.items()]
                if strength is not None:
                    self._rows["ranking_strengths"].append((seq, strength))
            case Rating(criterion=criterion, value=value):
                self._rows["ratings"].append((seq, response_id, criterion, value))
            case Correction():
                self._rows["corrections"].append((seq, response_id, next(written)))
            case Demonstration():
                self._rows["demonstrations"].append((seq, set_id, next(written)))
            case Critique(text=text, scope=scope, strength=strength):
                self._rows["critiques"].append((seq, set_id, response_id, text, scope, strength))
            case Span(start=start, stop=stop, label=label, value=amount):
                self._rows["spans"].append((seq, response_id, start, stop, label, amount))
            case Comment(text=text):
                self._rows["comments"].append((seq, set_id, response_id, text))
            case _:
                raise ValueError(f"a {kind} is not imported")


_Node = tuple[str, str, str, str]
"""Address, role, content, origin."""


def _path(each: JudgedSet) -> Iterator[_Node]:
    """The messages of the prompt, each below the one before it; below the last one the answers, then what was written."""
    address = START
    for message in each.prompt.messages:
        address = message_hash(address, message.role, message.content)
        yield address, message.role, message.content, "imported"
    for text, origin in _said(each):
        yield message_hash(address, "assistant", text), "assistant", text, origin


def _said(each: JudgedSet) -> Iterator[tuple[str, str]]:
    yield from ((text, "imported") for _, text in each.answers)
    for judgement in each.judgements:
        if isinstance(judgement, Correction):
            yield judgement.text, "correction"
        elif isinstance(judgement, Demonstration):
            yield judgement.text, "operator"


def _kind(judgement: Judgement) -> str:
    return judgement.__struct_config__.tag  # type: ignore[return-value]
