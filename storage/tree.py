"""Messages as a content-addressed tree: what two conversations have in common is there once. Runs inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from typing import Literal

from storage.hashes import START, message_hash
from storage.records import Message

Origin = Literal["operator", "dataset", "model", "correction", "imported"]


def plant(connection: sqlite3.Connection, parent_id: int | None, message: Message, origin: Origin) -> int:
    """The node of a message below its parent; it is made where it is new, and keeps the origin of its first writer."""
    parent = START
    if parent_id is not None:
        (parent,) = connection.execute("SELECT hash FROM nodes WHERE id = ?", (parent_id,)).fetchone()
    address = message_hash(parent, message.role, message.content)
    known = connection.execute("SELECT id FROM nodes WHERE hash = ?", (address,)).fetchone()
    if known is not None:
        return int(known[0])
    values = (address, parent_id, message.role, message.content, origin)
    cursor = connection.execute("INSERT INTO nodes (hash, parent_id, role, content, origin) VALUES (?, ?, ?, ?, ?)", values)
    assert cursor.lastrowid is not None
    # No trigger: SQLite lets none write to a virtual table where the schema is not trusted.
    connection.execute("INSERT INTO search(rowid, content) VALUES (?, ?)", (cursor.lastrowid, message.content))
    return cursor.lastrowid


def plant_conversation(connection: sqlite3.Connection, messages: tuple[Message, ...], source: str) -> int:
    """The node of the last message. Source is that of the prompt: 'set', 'typed', 'continued', or where it was imported from."""
    said: Origin = {"set": "dataset", "typed": "operator", "continued": "operator"}.get(source, "imported")  # type: ignore[assignment]
    node_id: int | None = None
    for message in messages:
        answered: Origin = "model" if source == "continued" else said
        node_id = plant(connection, node_id, message, answered if message.role == "assistant" else said)
    assert node_id is not None
    return node_id


def plant_answer(connection: sqlite3.Connection, set_id: int, text: str, origin: Origin) -> int:
    """The node of what answers the prompt of a set."""
    row = connection.execute("SELECT p.node_id FROM sample_sets s JOIN prompts p ON p.id = s.prompt_id WHERE s.id = ?", (set_id,))
    return plant(connection, row.fetchone()[0], Message("assistant", text), origin)
