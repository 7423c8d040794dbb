"""The screens in a browser: of this machine alone, and of no page from elsewhere."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tamer_tui.cli import main
from tamer_tui.serve_web import loopback
from tamer_tui.session_store import SessionError
from tests.tamer_tui.pseudo_terminal import arena_command

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "no host at all"])
def test_a_host_that_others_can_reach_is_refused_in_one_line(host: str) -> None:
    done = CliRunner().invoke(main, ["serve-web", "--host", host])
    assert done.exit_code == 1 and done.stderr.splitlines()[-1].startswith("Error: ")
    with pytest.raises(SessionError):
        loopback(host)
    assert loopback("127.0.0.1") and loopback("localhost") and loopback("::1")


def test_options_that_run_does_not_take_are_refused_before_anything_is_served() -> None:
    assert CliRunner().invoke(main, ["serve-web", "--temperature", "-1"]).exit_code == 2


async def test_a_page_shows_the_arena_and_a_page_from_elsewhere_does_not(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, _, _, *arguments = arena_command(tmp_path / "a.db")
    command = [sys.executable, "-m", "tamer_tui.cli", "serve-web", "--host", "127.0.0.1", "--port", str(port), *arguments]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, env=environment)
    place = f"127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as browser:
            for _ in range(300):
                try:
                    async with browser.get(f"http://{place}") as page:
                        assert page.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
            async with browser.get(f"http://{place}", headers={"Host": "rebound.example"}) as page:
                assert page.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await browser.ws_connect(f"ws://{place}/ws", origin="http://elsewhere.example")
            async with browser.ws_connect(f"ws://{place}/ws?width=80&height=24", origin=f"http://{place}") as screen:
                painted = b""
                while b"Best first" not in painted:
                    message = await asyncio.wait_for(screen.receive(), 30)
                    assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
                    painted += message.data if isinstance(message.data, bytes) else message.data.encode()
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)
