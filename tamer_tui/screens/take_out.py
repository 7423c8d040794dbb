"""Answers and conversations for elsewhere: into the clipboard, and into Markdown files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from textual.app import App

from tamer_tui import clipboard, transcript
from tamer_tui.markdown import code_blocks, has_thoughts, without_thoughts
from tamer_tui.screens.attempt import Attempt
from tamer_tui.session import CandidateView, SessionError, SetView
from tamer_tui.text import one_line


class TakeOut:
    """What `y`, `Y` and `E` do."""

    def __init__(self, app: App[None], attempt: Attempt, name: Callable[[CandidateView], str] = lambda answer: f"answer {answer.letter}") -> None:
        """`name` is what an answer is called."""
        self._app, self._attempt, self._name = app, attempt, name
        self._copied = ("", 0)  # the answer whose code block was copied last, and which one

    async def copy(self, candidate: CandidateView | None, folded: bool) -> None:
        """An answer, as far as it came; thoughts that are folded stay behind."""

        async def copy() -> str:
            if candidate is None:
                raise SessionError("there is no answer to copy")
            text = candidate.so_far
            thinks = folded and candidate.ended is not None and has_thoughts(text)
            await clipboard.copy(self._app, without_thoughts(text) if thinks else text)
            return f"{self._name(candidate)} is in the clipboard{', without its thoughts' if thinks else ''}"

        await self._attempt(copy, "")

    async def copy_code(self, candidate: CandidateView | None) -> None:
        """A code block of an answer; the next one at each call."""

        async def copy() -> str:
            blocks = code_blocks(candidate.text) if candidate is not None else []
            if candidate is None or not blocks:
                raise SessionError("there is no code block in this answer")
            again = self._copied[0] == candidate.uid
            self._copied = (candidate.uid, (self._copied[1] + 1) % len(blocks) if again else 0)
            await clipboard.copy(self._app, blocks[self._copied[1]])
            return f"code block {self._copied[1] + 1} of {len(blocks)} of {self._name(candidate)} is in the clipboard"

        await self._attempt(copy, "")

    async def export(self, view: SetView | None, candidate: CandidateView | None) -> None:
        """The conversation, into a new file of the current folder."""

        async def write() -> str:
            if view is None or candidate is None:
                raise SessionError("there is no conversation to write down yet")
            return f"✓ written to {one_line(str(await asyncio.to_thread(transcript.write, view, candidate, Path.cwd())))}"

        await self._attempt(write, "")
