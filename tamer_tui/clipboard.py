"""Text for the clipboard of the terminal that the operator sits at, also over ssh and within tmux."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Any

from tamer_tui.text import editable

if TYPE_CHECKING:
    from textual.app import App

TMUX_SECONDS = 2.0


async def copy(app: App[Any], text: str) -> None:
    """By OSC 52, which most terminals take. tmux in its usual settings keeps that from its programs and passes on what it is handed itself."""
    text = editable(text)
    app.copy_to_clipboard(text)
    if os.environ.get("TMUX"):
        await _hand_to_tmux(text)


async def _hand_to_tmux(text: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec("tmux", "load-buffer", "-w", "-", stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
        await asyncio.wait_for(process.communicate(text.encode()), TMUX_SECONDS)
    except (OSError, TimeoutError):
        return
