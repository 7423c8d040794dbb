"""Conversations of people: OpenAssistant's message trees, nested and flat, Anthropic's transcripts, and Open WebUI's feedback."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from storage.exchange.items import Judged, Row
from storage.exchange.shapes.pieces import (
    MOST_ANSWERS,
    BadRow,
    Reply,
    Turn,
    empty,
    judged,
    label_of,
    messages_of,
    number_of,
    ranked,
    reply_of_turns,
    rest,
    said,
    score_of,
    text_of,
)
from storage.exchange.shapes.trainers import BAD, GOOD
from storage.records import Role

# --- OpenAssistant ---------------------------------------------------------------------------------------------------------

_OASST: dict[str, Role] = {"prompter": "user", "user": "user", "human": "user", "assistant": "assistant", "system": "system", "gpt": "assistant"}
GROUP = "message_tree_id"


def is_tree(row: Row) -> bool:
    return isinstance(row.get("prompt"), dict)


def tree(row: Row) -> Iterator[Judged]:
    """A ranking for every question with at least two ranked answers. Ranks say the order alone."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise BadRow("a tree without a prompt")
    about = rest(row, "prompt")
    waiting: list[tuple[Row, tuple[Turn, ...]]] = [(root, ())]
    while waiting:
        node, before = waiting.pop(0)
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            raise BadRow("the replies of a message are no messages")
        role = _OASST.get(str(node.get("role")))
        if role is None:
            raise BadRow(f"an unknown role {str(node.get('role'))[:40]!r}")
        turns = (*before, Turn(role, text_of(node.get("text"), "a message")))
        found = [reply for reply in replies if reply.get("rank") is not None and _OASST.get(str(reply.get("role"))) == "assistant"]
        if role == "user" and len(found) >= 2:
            yield _ranked_replies(turns, found, about)
        waiting += [(reply, turns) for reply in replies]


def _ranked_replies(turns: Sequence[Turn], replies: list[Row], about: Row) -> Judged:
    ranks = [number_of(reply["rank"], "rank") for reply in replies]
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), 1)}
    columns = dict(about)
    if any(more := [rest(reply, "text", "role", "rank", "replies", "deleted") for reply in replies]):
        columns["replies"] = more
    answers = [Reply(said(reply.get("text"), "an answer")) for reply in replies]
    return ranked(turns, answers, [places[rank] for rank in ranks], columns=columns)


def is_flat_tree(row: Row) -> bool:
    return {"message_id", "parent_id", GROUP, "text", "role"} <= row.keys()


def flat_tree(row: Row) -> Iterator[Judged]:
    """The messages of one tree, as rows that follow each other."""
    nodes: dict[object, Row] = {}
    roots: list[Row] = []
    for each in row["rows"]:
        name = str(each.get("message_id"))
        nodes[name] = {key: value for key, value in each.items() if key not in ("message_id", "parent_id", GROUP)} | {"replies": []}
    for each in row["rows"]:
        node, parent = nodes[str(each.get("message_id"))], each.get("parent_id")
        if empty(parent):
            roots.append(node)
        elif str(parent) not in nodes:
            raise BadRow("a message's parent is not beside it: the rows of a tree must follow each other")
        else:
            nodes[str(parent)]["replies"].append(node)
    for root in roots:
        yield from tree({"prompt": root, GROUP: row["rows"][0].get(GROUP)})


# --- Anthropic -------------------------------------------------------------------------------------------------------------

_TURN = re.compile(r"\n\n(Human|Assistant):")


def is_hh(row: Row) -> bool:
    return all(isinstance(row.get(side), str) and row[side].lstrip().startswith("Human:") for side in ("chosen", "rejected")) and empty(
        row.get("prompt")
    )


def hh(row: Row) -> Iterator[Judged]:
    """Two transcripts that part at the last answer, which may be empty, or be the same twice (then neither is better)."""
    chosen, rejected = (_transcript(text_of(row.get(side), side), side) for side in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or "user" in (chosen[-1].role, rejected[-1].role):
        raise BadRow("chosen and rejected are answers to different conversations")
    answers = (Reply(chosen[-1].content), Reply(rejected[-1].content))
    yield judged(chosen[:-1], answers, ranks=(1, 1 if answers[0] == answers[1] else 2), columns=rest(row, "chosen", "rejected"))


def _transcript(text: str, what: str) -> tuple[Turn, ...]:
    before, *parts = _TURN.split(text)
    if before.strip() or not parts:
        raise BadRow(f"{what} is no transcript of Human and Assistant")
    turns: list[Turn] = []
    for who, words in zip(parts[::2], parts[1::2], strict=True):
        role: Role = "user" if who == "Human" else "assistant"
        if turns and turns[-1].role == role:  # two in a row are one
            words = f"{turns.pop().content}\n\n{words.strip()}"
        turns.append(Turn(role, words.strip()))
    return tuple(turns)


# --- Open WebUI ------------------------------------------------------------------------------------------------------------


def is_open_webui(row: Row) -> bool:
    return isinstance(row.get("data"), dict) and "rating" in row["data"] and isinstance(row.get("meta"), dict) and "snapshot" in row


def open_webui(row: Row) -> Iterator[Judged]:
    """A thumb on a message of a chat; in its arena, or where answers of several models stand beside each other, a comparison too."""
    data, meta = row["data"], row["meta"]
    messages = _history(row["snapshot"])
    name = str(meta.get("message_id"))
    message = messages.get(name)
    if message is None:
        raise BadRow("the message that was rated is not in the chat")
    good = label_of(data["rating"], "the rating")
    parents = _above(messages, message)
    others = [
        messages[uid] for uid in messages.get(str(message.get("parentId")), {}).get("childrenIds") or []
        if uid in messages and uid != name and messages[uid].get("role") == "assistant" and messages[uid].get("content")
    ] if data.get("sibling_model_ids") else []  # fmt: skip
    turns = tuple(turn for parent in parents for turn in messages_of([_plain(parent)], "a message"))
    shown = [message, *others[: MOST_ANSWERS - 1]]
    answers = [reply_of_turns(messages_of([_plain(one)], "the answer"), "the answer") for one in shown]
    notes = [str(text) for text in (data.get("reason"), data.get("comment")) if isinstance(text, str) and text.strip()]
    finer = score_of((data.get("details") or {}).get("rating")) if isinstance(data.get("details"), dict) else None
    columns = rest(row, "snapshot", "user_id") | ({"details": {"rating": finer}} if finer is not None else {})
    yield judged(
        turns, answers, ranks=((1,) + (2,) * (len(answers) - 1) if good else (2,) + (1,) * (len(answers) - 1)) if len(answers) > 1 else (),
        ratings=((0, "overall", GOOD if good else BAD),), comments=tuple((0, text_of(note, "a comment")) for note in notes),
        columns=columns, by=str(row["user_id"]) if row.get("user_id") else None,
    )  # fmt: skip


def _plain(message: Row) -> Row:
    return {"role": message.get("role"), "content": message.get("content")}


def _history(snapshot: object) -> dict[str, Row]:
    """A chat's messages by name, however deep the snapshot holds them."""
    for _ in range(4):
        if not isinstance(snapshot, dict):
            break
        history = snapshot.get("history")
        if isinstance(history, dict) and isinstance(history.get("messages"), dict):
            return {str(name): one for name, one in history["messages"].items() if isinstance(one, dict)}
        snapshot = snapshot.get("chat")
    raise BadRow("the chat is not in the export")


def _above(messages: dict[str, Row], message: Row) -> list[Row]:
    """What was said before it, oldest first."""
    found: list[Row] = []
    seen: set[str] = set()
    name = str(message.get("parentId"))
    while name in messages and name not in seen:
        seen.add(name)
        found.append(messages[name])
        name = str(messages[name].get("parentId"))
    return found[::-1]
