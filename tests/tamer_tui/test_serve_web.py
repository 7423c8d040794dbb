"""The screens in a browser: of this machine alone, and of no page from elsewhere."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from storage.journal import JournalError
from storage.queries import Record
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


@asynccontextmanager
async def served(database: Path) -> AsyncIterator[str]:
    """Where the screens are, over the scripted engine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, _, _, *arguments = arena_command(database)
    command = [sys.executable, "-m", "tamer_tui.cli", "serve-web", "--host", "127.0.0.1", "--port", str(port), *arguments]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, env=environment)
    try:
        async with aiohttp.ClientSession() as browser:
            for _ in range(300):
                try:
                    async with browser.get(f"http://127.0.0.1:{port}") as page:
                        assert page.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)


async def test_a_page_shows_the_arena_and_a_page_from_elsewhere_does_not(tmp_path: Path) -> None:
    async with served(tmp_path / "a.db") as place, aiohttp.ClientSession() as browser:
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


class Page:
    """A page of headless Chromium, by the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._asked = socket, 0

    async def ask(self, method: str, **parameters: Any) -> Any:
        """What it answers."""
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": parameters})
        while True:
            said = await asyncio.wait_for(self._socket.receive_json(), 30)
            if said.get("id") == self._asked:
                return said["result"]

    async def press(self, key: str, code: int) -> None:
        """A key of the keyboard, down and up."""
        text = {"Enter": "\r"}.get(key, key)
        for kind in ("keyDown", "keyUp"):
            await self.ask("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Page]:
    """With a profile that is thrown away."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium")
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--window-size=1200,800")
    process = await asyncio.create_subprocess_exec(program, *flags, "about:blank", stderr=asyncio.subprocess.DEVNULL)
    try:
        port_file = folder / "DevToolsActivePort"
        for _ in range(300):
            if port_file.exists() and port_file.read_text().count("\n"):
                break
            await asyncio.sleep(0.1)
        place = f"127.0.0.1:{port_file.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://{place}/json") as listed:
                found = next(each for each in await listed.json() if each["type"] == "page")
            async with client.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
                yield Page(devtools)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def test_keys_that_are_pressed_in_a_browser_are_judgements(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    async with served(database) as place, chromium(tmp_path / "profile") as page:
        await page.ask("Page.navigate", url=f"http://{place}")
        for _ in range(60):
            await page.ask("Runtime.evaluate", expression="document.querySelector('textarea')?.focus()")  # as a click does
            await page.press("a", 65)
            await page.press("Enter", 13)
            await asyncio.sleep(0.5)
            if rankings(database):
                break
        picture = base64.b64decode((await page.ask("Page.captureScreenshot"))["data"])
        assert rankings(database) and len(picture) > 30_000, "an empty page is a few kilobytes"


def rankings(database: Path) -> int:
    """0 while it is being made, too."""
    try:
        with Record(database) as record:
            return record.counts().rankings
    except JournalError:
        return 0
