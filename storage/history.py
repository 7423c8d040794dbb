"""The log as people read it: every event with its prompt and what became of it, one after another, whatever its length."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from storage.database import explain, open_reader
from storage.records import Judgement

_decode = msgspec.json.Decoder(Judgement).decode


class Entry(Struct, frozen=True):
    """One event, undone or not."""

    seq: int
    utc: str  # ISO 8601, milliseconds
    kind: str
    operator: str
    judgement: Judgement
    prompt: str = ""  # its last turn
    slots: dict[str, int] = {}  # of the set's answers, by uid
    undone_by: int | None = None  # the event that took it back, unless it was put back since
    best_of: int | None = None  # of so many answers the best were shown in its set (best-of-n) …
    chosen: tuple[str, ...] = ()  # … which are these


class Wanted(Struct, frozen=True):
    """Which events; all conditions hold at once."""

    since_seq: int = 0
    since_utc: str = ""
    kind: str = ""
    search: str = ""  # words that all begin words of one prompt, answer, correction or demonstration, or a part of a comment or critique


_MATCHES = "(SELECT rowid FROM search WHERE search MATCH :words)"
_SEARCH = f"""
    (e.set_id IN (SELECT s.id FROM sample_sets s JOIN prompts p ON p.id = s.prompt_id WHERE p.node_id IN {_MATCHES}
                  UNION SELECT set_id FROM responses WHERE node_id IN {_MATCHES})
     OR e.seq IN (SELECT seq FROM corrections WHERE node_id IN {_MATCHES}
                  UNION SELECT seq FROM demonstrations WHERE node_id IN {_MATCHES}
                  UNION SELECT seq FROM comments WHERE instr(lower(text), lower(:search))
                  UNION SELECT seq FROM critiques WHERE instr(lower(text), lower(:search))))"""


def history(path: Path, wanted: Wanted) -> Iterator[Entry]:
    """Events in the order of the log, on one snapshot. Raises JournalError."""
    conditions = ["e.seq >= :since_seq", "e.utc >= :since_utc", "(:kind = '' OR e.kind = :kind)"]
    if words := _quoted(wanted.search):
        conditions.append(_SEARCH)
    sql = f"""
        SELECT e.seq, e.utc, e.kind, i.operator, e.payload, tip.content,
               (SELECT json_group_object(r.uid, r.slot) FROM responses r WHERE r.set_id = e.set_id),
               (SELECT iif(u.kind = 'undo', u.seq, NULL) FROM events u WHERE u.target_seq = e.seq ORDER BY u.seq DESC LIMIT 1),
               b.drawn, (SELECT json_group_array(key) FROM json_each(b.scores))
        FROM events e JOIN sittings i ON i.id = e.sitting_id
        LEFT JOIN sample_sets s ON s.id = e.set_id LEFT JOIN prompts p ON p.id = s.prompt_id LEFT JOIN nodes tip ON tip.id = p.node_id
        LEFT JOIN selections b ON b.set_id = e.set_id
        WHERE {" AND ".join(conditions)} ORDER BY e.seq"""
    values = msgspec.structs.asdict(wanted) | {"words": words}
    with closing(open_reader(path)) as connection:
        try:
            for seq, utc, kind, operator, payload, prompt, slots, undone_by, drawn, chosen in connection.execute(sql, values):
                best = (drawn, tuple(json.loads(chosen)))
                yield Entry(seq, utc, kind, operator, _decode(payload), prompt or "", json.loads(slots), undone_by, *best)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise explain(error, path) from error


def _quoted(search: str) -> str:
    """A query that no punctuation can turn into another one."""
    return " ".join('"' + word.replace('"', '""') + '"*' for word in search.replace("\0", " ").split())
