"""The desk over HTTP: OpenAI's chat completions and models, and feedback."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from storage.records import Sampling
from storage.thoughts import OPENS, split_thought
from tamer_tui.serving.desk import Desk, Drawing, stopped_at
from tamer_tui.serving.requests import Refused, chat_request, feedback
from tamer_tui.views import CandidateView

LARGEST_BODY = 4 * 2**20
"""Bytes of a request."""
MOST_READ = 64 * 2**20
Handler = Callable[[Request], Awaitable[Response]]


def application(desk: Desk, token: str, usual: Sampling) -> Starlette:
    """`usual`: how answers are drawn where a request does not say."""

    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "tamer"} for name in desk.models()]})

    async def complete(request: Request) -> Response:
        wanted = chat_request(await _body(request), usual)
        drawing = await _unless_it_leaves(request, desk.ask(wanted))
        if wanted.stream:
            return StreamingResponse(_stream(desk, drawing), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await _unless_it_leaves(request, _whole(desk, drawing))

    async def judge(request: Request) -> Response:
        return _json({"object": "feedback", "seq": await desk.judge(feedback(await _body(request)))})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        working = asyncio.create_task(desk.run())
        yield
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working

    routes = [
        Route("/v1/models", _guarded(models, token)),
        Route("/v1/chat/completions", _guarded(complete, token), methods=["POST"]),
        Route("/v1/feedback", _guarded(judge, token), methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _guarded(handler: Handler, token: str) -> Handler:
    """Only with the token; what is refused is told as OpenAI tells it."""

    async def guarded(request: Request) -> Response:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
                raise Refused("the token is missing or wrong: see what tamer serve printed", 401, "invalid_api_key")
            return await handler(request)
        except Refused as error:
            said = {"error": {"message": error.message, "type": "invalid_request_error", "param": None, "code": error.code}}
            return _json(said, error.status)
        except ClientDisconnect:
            return Response(status_code=499)

    return guarded


async def _body(request: Request) -> bytes:
    """Of one that is too large the rest is read too, within reason: else the client would not hear why."""
    body, n = bytearray(), 0
    async for part in request.stream():
        n += len(part)
        if n <= LARGEST_BODY:
            body += part
        elif n > MOST_READ:
            break
    if n > LARGEST_BODY:
        raise Refused(f"a request has at most {LARGEST_BODY // 2**20} MiB", 413)
    return bytes(body)


async def _unless_it_leaves(request: Request, work: Any) -> Any:
    """The result of the work, which is given up where the client goes away before. Raises ClientDisconnect."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def _json(said: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(said), status, media_type="application/json")


# --- completions -----------------------------------------------------------------------------------------------------------


async def _whole(desk: Desk, drawing: Drawing) -> Response:
    async for _ in desk.follow(drawing):
        pass
    drawing.check()
    choices = []
    for place, view in enumerate(drawing.views):
        thought, said = split_thought(view.text)
        end = stopped_at(said, drawing.wanted.stop)
        message = {"role": "assistant", "content": said[:end]} | ({"reasoning_content": thought} if thought else {})
        choices.append({"index": place, "message": message, "finish_reason": _reason(view), "logprobs": _logprobs(view, 0, drawing)})
    return _json(_head(drawing, "chat.completion") | {"choices": choices, "usage": _usage(drawing)})


async def _stream(desk: Desk, drawing: Drawing) -> AsyncIterator[bytes]:
    """Each answer's text as it grows. What may be the beginning of a stop word waits until it is known."""
    head = _head(drawing, "chat.completion.chunk")
    sent, told = [0] * len(drawing.views), [0] * len(drawing.views)  # characters, tokens
    open_ = set(range(len(drawing.views)))
    for place in open_:
        yield _event(head | {"choices": [_chunk(place, {"role": "assistant", "content": ""})]})
    async for _ in desk.follow(drawing):
        if drawing.failed is not None:
            yield _event({"error": {"message": drawing.failed.message, "type": "server_error", "code": drawing.failed.code}})
            return
        for place in sorted(open_):
            view = drawing.views[place]
            text, over = _certain(view, drawing.wanted.stop)
            if len(text) > sent[place]:
                more = _chunk(place, {"content": text[sent[place] :]}, logprobs=_logprobs(view, told[place], drawing))
                sent[place], told[place] = len(text), len(view.token_ids)
                yield _event(head | {"choices": [more]})
            if over:
                open_.discard(place)
                yield _event(head | {"choices": [_chunk(place, {}, _reason(view))]})
    if drawing.wanted.usage:
        yield _event(head | {"choices": [], "usage": _usage(drawing)})
    yield b"data: [DONE]\n\n"


def _certain(view: CandidateView, stop: tuple[str, ...]) -> tuple[str, bool]:
    """What can be shown of an answer without its thought, and whether that is all."""
    text = view.text if view.ended is not None else "".join(view.pieces)
    if view.ended is None and OPENS.startswith(text.lstrip()):
        return "", False
    text = split_thought(text).answer
    if (end := stopped_at(text, stop)) is not None:
        return text[:end], view.ended is not None
    if view.ended is not None:
        return text, True
    begun = max((n for word in stop for n in range(1, len(word)) if text.endswith(word[:n])), default=0)
    return text[: len(text) - begun], False


def _head(drawing: Drawing, kind: str) -> dict[str, Any]:
    return {"id": drawing.id, "object": kind, "created": drawing.created, "model": drawing.wanted.model}


def _chunk(place: int, delta: dict[str, str], reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": place, "delta": delta, "finish_reason": reason, "logprobs": logprobs}


def _event(said: Any) -> bytes:
    return b"data: " + msgspec.json.encode(said) + b"\n\n"


def _reason(view: CandidateView) -> str:
    return "length" if view.ended == "length" else "stop"


def _logprobs(view: CandidateView, start: int, drawing: Drawing) -> dict[str, Any] | None:
    """Of the tokens as they were drawn, from one on."""
    if not drawing.wanted.logprobs:
        return None
    pairs = zip(view.pieces[start:], view.logprobs[start:], strict=True)
    return {"content": [{"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []} for text, logprob in pairs]}


def _usage(drawing: Drawing) -> dict[str, int]:
    read = len(started.prompt_ids) if (started := drawing.views[0].started) is not None else 0
    drawn = sum(len(view.token_ids) for view in drawing.views)
    return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}
