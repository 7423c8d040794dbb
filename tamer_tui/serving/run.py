"""`tamer serve`: a socket first, then the model, then requests until it is stopped."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import secrets
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from storage.journal import Journal, JournalError
from tamer_tui.headless import make_session, within
from tamer_tui.session import Session
from tamer_tui.session_store import SessionError
from tamer_tui.text import one_line
from tamer_tui.views import Change, SessionSettings

if TYPE_CHECKING:
    import uvicorn


class Place(Struct, frozen=True):
    """Where requests come in."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None  # PEM; with its key, for TLS
    key: Path | None = None
    unprotected: bool = False  # other machines may come without TLS
    token: str = ""  # '' for a new one


def check(place: Place) -> None:
    """Raises SessionError for what would give away the token, and without the extra."""
    from importlib.util import find_spec

    if missing := next((name for name in ("starlette", "uvicorn") if find_spec(name) is None), None):
        raise SessionError(f"serve needs {missing}", "pip install 'tamer-tui[serve]'")
    if (place.certificate is None) != (place.key is None):
        raise SessionError("TLS takes both files", "give --certfile and --keyfile")
    if not (_is_loopback(place.host) or place.certificate is not None or place.unprotected):
        raise SessionError(
            f"{place.host} can be reached from elsewhere, and without TLS the token can be read on the way",
            "give --certfile and --keyfile, or --unprotected where the network is trusted",
        )


def bring_up_to_date(database: Path) -> None:
    """A database that an earlier version wrote is read before a sitting opens it. Raises SessionError where it is not here, or open elsewhere."""
    if not database.expanduser().exists():
        raise SessionError(f"there is no database {database}", "teach one first: tamer run")
    try:
        Journal.open(database).close()
    except JournalError as error:
        raise SessionError(error.message, error.hint) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(place: Place) -> socket.socket:
    """Raises SessionError where nothing can listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SessionError(f"port {place.port} is in use", "give another --port, or 0 for a free one") from error
        raise SessionError(f"cannot listen at {place.host}, port {place.port}: {error.strerror or error}", "give another --host or --port") from error
    return opened


def serve(settings: SessionSettings, database: Path, command: tuple[str, ...] | None, place: Place, say: Callable[[str], None]) -> None:
    """Until it is stopped. Raises SessionError."""
    session = make_session(replace(settings, autostart=False), database, command)
    session.status.paused = True  # Ĥ learns at once; adapters are trained in a sitting
    with listening(place) as opened, suppress(KeyboardInterrupt):
        asyncio.run(within(session, lambda session: _serve(session, place, opened, say)))


async def _serve(session: Session, place: Place, opened: socket.socket, say: Callable[[str], None]) -> None:
    server, token, models = prepared(session, place)
    host, port = opened.getsockname()[:2]
    say(f"http{'s' if place.certificate else ''}://{f'[{host}]' if ':' in host else host}:{port}/v1   models: {', '.join(models)}")
    say(f"token: {token}")
    for note in session.notes:
        say(one_line(note))
    session.observe(lambda change: say(session.notice) if change is Change.NOTICE else None)
    serving = asyncio.ensure_future(server.serve(sockets=[opened]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        raise


def prepared(session: Session, place: Place) -> tuple[uvicorn.Server, str, list[str]]:
    """Over a session that is ready: what serves it, the token, and the models' names."""
    import uvicorn

    from tamer_tui.serving.desk import Desk
    from tamer_tui.serving.http import application

    desk, token = Desk(session), place.token or secrets.token_urlsafe(24)
    config = uvicorn.Config(
        application(desk, token, session.sampling),
        log_level="warning",
        timeout_graceful_shutdown=2,
        ssl_certfile=place.certificate,
        ssl_keyfile=place.key,
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # it would end the process before the database is closed
    return server, token, desk.models()
