"""What clients ask for, checked. What cannot be done as it is asked is refused with one clear line; nothing that would matter is passed over."""

from __future__ import annotations

import random
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from storage.limits import HIGHEST_TEMPERATURE, LOWEST_SERVED_TEMPERATURE
from storage.records import Message, Sampling

MOST_CHOICES = 8
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
PLAIN: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (None, 0), "presence_penalty": (None, 0), "logit_bias": (None, {}), "tools": (None, []),
    "functions": (None, []), "response_format": (None, {"type": "text"}), "top_logprobs": (None, 0), "modalities": (None, ["text"]),
}  # fmt: skip
"""Options that would change what is drawn, and the values that ask for nothing."""


class Refused(Exception):
    """An answer to a client that is none."""

    def __init__(self, message: str, status: int = 400, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.message, self.status, self.code = message, status, code


class StreamOptions(Struct, frozen=True):
    include_usage: bool = False


class ChatRequest(Struct, frozen=True):
    """OpenAI's, as far as it is understood here."""

    messages: list[dict[str, Any]]
    model: str = "acting"
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    n: int | None = 1
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False


class Wanted(NamedTuple):
    """Answers to one conversation."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    seeds: tuple[int, ...]  # one for each answer
    stop: tuple[str, ...]
    logprobs: bool
    stream: bool
    usage: bool  # at the end of a stream


class Answered(Struct, frozen=True):
    """One answer that was given: the id of its completion, and which of the choices."""

    id: str
    choice: int = 0


class Feedback(Struct, frozen=True):
    """A thumb, or what should have been said, on one answer; or which of two is the better one."""

    id: str = ""
    choice: int = 0
    thumb: Literal["up", "down"] | None = None
    text: str | None = None
    better: Answered | None = None
    worse: Answered | None = None


def chat_request(body: bytes, usual: Sampling) -> Wanted:
    """Raises Refused."""
    try:
        raw = msgspec.json.decode(body)
        asked = msgspec.convert(raw, ChatRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"not a request for a chat completion: {error}") from error
    for name, nothing in PLAIN.items():
        if raw.get(name) not in nothing:
            raise Refused(f"{name} is not done here")
    tokens = asked.max_completion_tokens or asked.max_tokens or usual.max_new_tokens
    temperature = usual.temperature if asked.temperature is None else asked.temperature
    top_p = usual.top_p if asked.top_p is None else asked.top_p
    n = asked.n or 1
    if not (1 <= n <= MOST_CHOICES and 1 <= tokens <= 100_000 and 0 <= temperature <= HIGHEST_TEMPERATURE and 0 < top_p <= 1):
        raise Refused(f"n is 1 to {MOST_CHOICES}, max_tokens 1 to 100000, temperature 0 to {HIGHEST_TEMPERATURE:g}, top_p above 0 to 1")
    temperature = max(LOWEST_SERVED_TEMPERATURE, temperature)  # for 0 too: Ĥ's budget has no meaning without chance
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Wanted(
        asked.model,
        _messages(asked.messages),
        replace(usual, temperature=temperature, max_new_tokens=tokens, top_p=top_p),
        _seeds(0 if asked.seed is None and asked.temperature == 0 else asked.seed, n),
        tuple(text for text in stop if text),
        bool(asked.logprobs),
        bool(asked.stream),
        asked.stream_options is not None and asked.stream_options.include_usage,
    )


def feedback(body: bytes) -> Feedback:
    """Raises Refused."""
    try:
        said = msgspec.json.decode(body, type=Feedback)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"not feedback: {error}") from error
    compared = said.better is not None and said.worse is not None
    if sum((said.thumb is not None, said.text is not None, compared)) != 1 or (said.better is None) != (said.worse is None):
        raise Refused('say one of {"id", "thumb": "up"}, {"id", "text"} and {"better": {"id", "choice"}, "worse": {"id", "choice"}}')
    return said


def _messages(asked: list[dict[str, Any]]) -> tuple[Message, ...]:
    found = []
    for place, message in enumerate(asked):
        role = ROLES.get(str(message.get("role")))
        if role is None:
            raise Refused(f"messages[{place}] has the role {message.get('role')!r}: user, assistant and system are understood")
        found.append(Message(role, _text(message.get("content"), place)))  # type: ignore[arg-type]
    if not found or found[-1].role != "user":
        raise Refused("the last message has to be the user's")
    return tuple(found)


def _text(content: object, place: int) -> str:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise Refused(f"messages[{place}] has content that is no text")
    return "".join(part["text"] for part in parts)


def _seeds(seed: int | None, n: int) -> tuple[int, ...]:
    chance = random.Random(seed) if seed is not None else random.SystemRandom()
    return tuple(chance.getrandbits(31) for _ in range(n))
