"""What is hashed, and how: the links of the event chain and the addresses of messages. Both are part of the file format."""

from __future__ import annotations

import hashlib

import msgspec

_encode = msgspec.json.Encoder().encode

START = "0" * 64
"""What stands in the place of a hash before the first event, and above the first message of a conversation."""

EVENT_COLUMNS = """e.seq, e.uid, e.kind, i.uid, s.uid, r.uid, e.subject, e.target_seq, e.utc, e.payload
    FROM events e JOIN sittings i ON i.id = e.sitting_id
    LEFT JOIN sample_sets s ON s.id = e.set_id LEFT JOIN responses r ON r.id = e.response_id"""
"""An event as it is hashed: by names that hold outside this file, never by row numbers."""


def event_hash(previous: str, event: tuple[object, ...]) -> str:
    """SHA-256 in hex of a JSON list: the hash before it, then EVENT_COLUMNS. UTF-8, no spaces, null for what is not there."""
    return hashlib.sha256(_encode([previous, *event])).hexdigest()


def message_hash(parent: str, role: str, content: str) -> str:
    """SHA-256 in hex of a JSON list: the hash of the message before it, role and content."""
    return hashlib.sha256(_encode([parent, role, content])).hexdigest()
