"""`tamer serve-web`: the same screens in a browser of this machine, by textual-serve, an extra. Whoever connects sits at the keyboard."""

from __future__ import annotations

import ipaddress
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence

from tamer_tui.session_store import SessionError

GET = "pip install 'tamer-tui[web]'"
HTTP = 80


def loopback(host: str) -> str:
    """The host, if connections can come from this machine alone. Raises SessionError."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise SessionError(f"there is no host {host}") from error
    if not found or not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found):
        raise SessionError(f"{host} can be reached from elsewhere, and whoever connects sits at the keyboard", "use localhost, and ssh -L from afar")
    return host


def serve(arguments: Sequence[str], host: str, port: int) -> None:
    """Until it is ended. Each page that is opened runs `tamer` with these arguments. Raises SessionError."""
    host = loopback(host)
    try:
        from textual_serve.server import Server
    except ImportError as error:
        raise SessionError("serve-web needs the package textual-serve", GET) from error
    from aiohttp import web

    names = (host, "localhost", "127.0.0.1", "[::1]")
    own = {f"{name}:{port}" for name in names} | (set(names) if port == HTTP else set())  # which browsers do not say

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """A page from elsewhere may not reach it through the browser: neither by its own name, nor by a name that now points here."""
        origin = request.headers.get("Origin")
        if request.host not in own or (origin is not None and origin.partition("://")[2] not in own):
            raise web.HTTPForbidden(text="this is for pages of this machine")
        return await handler(request)

    class Guarded(Server):
        async def _make_app(self) -> web.Application:
            app = await super()._make_app()
            app.middlewares.append(guard)
            return app

    Guarded(shlex.join([sys.executable, "-m", "tamer_tui.cli", "run", *arguments]), host, port, title="tamer").serve()
