"""Answers of two versions to the same prompt, as they were recorded: what a version says otherwise than another."""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from storage.records import BASE_VERSION

MOST_PAIRS = 20


class SamplePair(Struct, frozen=True):
    """Two answers to one prompt, whose last message is given."""

    prompt: str
    versions: tuple[str, str]
    texts: tuple[str, str]


def sample_pairs(connection: sqlite3.Connection, version: str, other: str = "") -> list[SamplePair]:
    """Newest first, one for each prompt: the version's last answer, and the last one there is by `other`, or by any other version."""
    rows = connection.execute(
        """
        WITH written AS (
          SELECT r.id, s.prompt_id, CASE r.policy WHEN 'base' THEN :base ELSE r.version END AS version, r.node_id
          FROM responses r JOIN sample_sets s ON s.id = r.set_id WHERE r.version IS NOT NULL
        ), own AS (SELECT max(id) AS id, prompt_id FROM written WHERE version = :version GROUP BY prompt_id)
        , other AS (SELECT max(id) AS id, prompt_id FROM written WHERE version <> :version AND :other IN ('', version) GROUP BY prompt_id)
        SELECT asked.content, o.version, ours.content, theirs.content
        FROM own JOIN other ON other.prompt_id = own.prompt_id
        JOIN prompts p ON p.id = own.prompt_id JOIN nodes asked ON asked.id = p.node_id
        JOIN written w ON w.id = own.id JOIN nodes ours ON ours.id = w.node_id
        JOIN written o ON o.id = other.id JOIN nodes theirs ON theirs.id = o.node_id
        ORDER BY own.id DESC LIMIT :most""",
        {"version": version, "other": other, "base": BASE_VERSION, "most": MOST_PAIRS},
    )
    return [SamplePair(prompt, (other, version), (theirs, ours)) for prompt, other, ours, theirs in rows]
