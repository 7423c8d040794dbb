"""What an operator asked for is done, or it is said why not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tamer_tui.session import SessionError

Attempt = Callable[[Callable[[], Awaitable[object]], str], Awaitable[bool]]
"""`attempt` below, with a screen to say it on."""


async def attempt(say: Callable[[str], None], work: Callable[[], Awaitable[object]], done: str = "") -> bool:
    """Do it and say the words, its own or these; say why not, if not. Nothing typed is lost."""
    try:
        result = await work()
    except SessionError as error:
        say(str(error))
        return False
    if isinstance(result, str) or done:
        say(result if isinstance(result, str) else done)
    return True
