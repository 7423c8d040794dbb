"""What is kept of the log's state so that nobody has to count a million events: see schema_state.py. Runs inside the writer's transaction.

`follow` brings it up to date after one event, `recount` does it from nothing, and `differences` tells where the two disagree.
"""

from __future__ import annotations

import sqlite3

JUDGES = "(k.teaches OR k.kind = 'skip')"
"""Of an event kind `k`: a prompt with one of these, standing, is judged."""

_TALLIES = """
    SELECT 'live ' || kind AS name, count(*) AS n FROM v_live GROUP BY kind
    UNION ALL SELECT 'undone', count(*) FROM v_undone
    UNION ALL SELECT 'tokens', count(*) FROM tokens"""
_PROMPTS = f"""
    SELECT p.uid AS prompt_uid, count(*) AS n FROM v_standing e JOIN event_kinds k ON k.kind = e.kind
    JOIN sample_sets s ON s.id = e.set_id JOIN prompts p ON p.id = s.prompt_id WHERE {JUDGES} GROUP BY p.uid"""
_OUTCOMES = "SELECT set_id, seq, policy, version, beta, outcome FROM v_blind"
_COUNTED_ANEW = "counted anew"
"""A tally of 0: there is none in a database whose imports may have counted two scores of one answer by one criterion, of which the last is live."""
_REPLACED = "SELECT kind FROM event_kinds WHERE again = 'replaces'"
_TRUTH = {"tallies": _TALLIES, "judged_prompts": _PROMPTS, "blind_outcomes": _OUTCOMES}


def recount(connection: sqlite3.Connection) -> None:
    """From the log alone: seconds for a million events."""
    for table, truth in _TRUTH.items():
        connection.execute(f"DELETE FROM {table}")
        connection.execute(f"INSERT INTO {table} {truth}")
    connection.execute("INSERT INTO tallies VALUES (?, 0)", (_COUNTED_ANEW,))


def mend(connection: sqlite3.Connection) -> None:
    """Once for each database, by whoever writes: see `_COUNTED_ANEW`."""
    if _is_exact(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name, n in tallies(connection).items():
            connection.execute("UPDATE tallies SET n = ? WHERE name = ?", (n, name))
        connection.execute("INSERT INTO tallies VALUES (?, 0)", (_COUNTED_ANEW,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def tallies(connection: sqlite3.Connection) -> dict[str, int]:
    """By name; counted where what is kept may be wrong."""
    kept = dict(iter(connection.execute("SELECT name, n FROM tallies")))
    if not _is_exact(connection) and connection.execute("SELECT 1 FROM imports LIMIT 1").fetchone():
        kept |= dict(iter(connection.execute(f"SELECT 'live ' || kind, (SELECT count(*) FROM v_live e WHERE e.kind = k.kind) FROM ({_REPLACED}) k")))
    return kept


def _is_exact(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM tallies WHERE name = ?", (_COUNTED_ANEW,)).fetchone() is not None


def differences(connection: sqlite3.Connection) -> list[str]:
    """What is kept and not so; nothing where all is well. Counts of 0 may be there or not."""
    wrong = []
    known = "" if _is_exact(connection) else f" AND name NOT IN (SELECT 'live ' || kind FROM ({_REPLACED}))"
    for table, truth in _TRUTH.items():
        some = {"blind_outcomes": "", "tallies": f" WHERE n <> 0{known}"}.get(table, " WHERE n <> 0")
        kept, counted = f"SELECT * FROM {table}{some}", f"SELECT * FROM ({truth}){some}"
        for one, other in ((kept, counted), (counted, kept)):
            rows = connection.execute(f"SELECT * FROM ({one}) EXCEPT SELECT * FROM ({other}) LIMIT 3")
            wrong += [f"{table}: {'kept' if one is kept else 'counted'} {', '.join(map(str, row))}" for row in rows]
    return wrong


def follow(connection: sqlite3.Connection, seq: int) -> None:
    """After event `seq` was written."""
    kind, target = connection.execute("SELECT kind, target_seq FROM events WHERE seq = ?", (seq,)).fetchone()
    if kind in ("undo", "redo"):
        _add(connection, "undone", 1 if kind == "undo" else -1)
    change = -1 if kind == "undo" else 1
    kind, subject, set_id, judges, replaces = connection.execute(
        f"SELECT e.kind, e.subject, e.set_id, {JUDGES}, k.again = 'replaces' FROM events e JOIN event_kinds k ON k.kind = e.kind WHERE e.seq = ?",
        (target or seq,),
    ).fetchone()
    if not (replaces and _has_company(connection, kind, subject, target or seq)):
        _add(connection, f"live {kind}", change)
    if set_id is None:
        return
    if judges:
        _judge_prompt(connection, set_id, change)
    if kind in ("ranking", "rating"):
        _refresh_outcome(connection, set_id)


def _has_company(connection: sqlite3.Connection, kind: str, subject: str, seq: int) -> bool:
    """Whether another one on the same subject stands: then as many are live as before."""
    others = "SELECT 1 FROM v_standing WHERE kind = ? AND subject = ? AND seq <> ? LIMIT 1"
    return connection.execute(others, (kind, subject, seq)).fetchone() is not None


def _add(connection: sqlite3.Connection, name: str, n: int) -> None:
    connection.execute("INSERT INTO tallies VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", (name, n))


def follow_answer(connection: sqlite3.Connection, set_id: int, tokens: int) -> None:
    """After an answer with so many tokens was written; mostly its set is not judged yet."""
    _add(connection, "tokens", tokens)
    judged = "SELECT 1 FROM events WHERE set_id = ? AND kind IN ('ranking', 'rating') LIMIT 1"
    if connection.execute(judged, (set_id,)).fetchone() is not None:
        _refresh_outcome(connection, set_id)


def _judge_prompt(connection: sqlite3.Connection, set_id: int, n: int) -> None:
    connection.execute(
        "INSERT INTO judged_prompts SELECT p.uid, ? FROM sample_sets s JOIN prompts p ON p.id = s.prompt_id WHERE s.id = ?"
        " ON CONFLICT DO UPDATE SET n = n + excluded.n",
        (n, set_id),
    )


def _refresh_outcome(connection: sqlite3.Connection, set_id: int) -> None:
    connection.execute("DELETE FROM blind_outcomes WHERE set_id = ?", (set_id,))
    connection.execute(f"INSERT INTO blind_outcomes {_OUTCOMES} WHERE set_id = ?", (set_id,))
