"""The Textual application: one Session, one screen at first, and a card on leaving."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

from textual import events
from textual.app import App
from textual.binding import Binding
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import TextArea

from tamer_tui import endings
from tamer_tui.collecting import settle
from tamer_tui.config import ConfigError, config_file, tables
from tamer_tui.headless import make_session
from tamer_tui.keys import COMMON, MODES, check_keymap, key_name
from tamer_tui.options import OF_A_TERMINAL
from tamer_tui.remote_engine import socket_of
from tamer_tui.screens.arena import ArenaScreen
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.editor import EditorScreen
from tamer_tui.screens.writing import Writing
from tamer_tui.session import Session, SessionError
from tamer_tui.settings import Setting, started_with
from tamer_tui.terminal import POSIX, TerminalDriver
from tamer_tui.text import visible
from tamer_tui.themes import HIGH_CONTRAST, PLAIN_LINES, names
from tamer_tui.views import EngineState, SessionSettings

SERVED = bool(os.environ.get("TEXTUAL_DRIVER"))
"""Whether the screens are in a browser, to which stdout leads."""
INTERRUPT_SECONDS = 2.0
"""Within which a second ctrl+c leaves, and a second R restarts an engine that runs."""

ENDINGS = {
    "SIGTERM": "another program ended it (SIGTERM)",
    "SIGHUP": "its terminal was closed (SIGHUP)",
    "SIGINT": "another program interrupted it (SIGINT)",
}
"""By the signal's name: not every system has all of them."""


PATIENCE_SECONDS = 0.5
"""For what a key does to be done, where it takes away what it was sent to."""


def _through(pumps: Sequence[MessagePump], then: Callable[[], object]) -> None:
    """Do it once each of these in turn has handled what it was sent before; those that are gone have."""
    if not pumps:
        then()
    elif not pumps[0].call_later(_through, pumps[1:], then):
        _through(pumps[1:], then)


class Saying(Protocol):
    """What every screen of a mode can do."""

    def say(self, line: str) -> None:
        """Show one line to the operator."""


class TamerApp(App[None]):
    """Shows a session that has been started: a screen for each mode, which keeps what is on it, and the keys that work in all of them."""

    TITLE = "tamer"
    ENABLE_COMMAND_PALETTE = True
    CSS = PLAIN_LINES
    DEFAULT_MODE = "arena"
    BINDINGS = [*COMMON, Binding("ctrl+z", "suspend_process", "suspend", show=False)]

    def __init__(self, session: Session, theme: str = "", settings: Sequence[Setting] = ()) -> None:
        """`theme` '' is Textual's own choice; `settings` are what the sitting was started with, to be looked at."""
        super().__init__(driver_class=TerminalDriver if POSIX and not SERVED else None)
        self.session, self.settings = session, list(settings)
        self._own_theme = theme
        self.register_theme(HIGH_CONTRAST)
        self._typed: deque[events.Event] = deque()  # and not handled yet
        self._handled: events.Event | None = None  # is being handled
        self._sent_to: Widget | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._interrupted = self._restarted = float("-inf")  # monotonic seconds of the last ctrl+c, and of the last R
        self.ended_because = ""  # what ended it, if it was not the operator
        self.arena: ArenaScreen
        for name in MODES:
            self.add_mode(name, partial(self._screen_of, name))

    async def on_mount(self) -> None:
        if self._own_theme:
            self.theme = self._own_theme
        self.watch(self, "theme", self._take_frames)
        self._writing = Writing(self.session, self, self.attempt)
        self.app_resume_signal.subscribe(self, lambda _: self.screen.refresh(layout=True))  # after fg the terminal's screen is another
        self.run_worker(self._begin())
        settle()

    def _take_frames(self, theme: str) -> None:
        self.set_class(theme == HIGH_CONTRAST.name, "-high-contrast")

    def _screen_of(self, mode: str) -> Screen[Any]:
        """Made when it is first looked at; only the Arena is needed at once."""
        if mode == "arena":
            self.arena = ArenaScreen(self.session)
            return self.arena
        from tamer_tui.screens import modes

        return modes.make(mode, self.session)

    async def _begin(self) -> None:
        """A sitting that cannot begin is no screen to stay on; one whose engine died is: R restarts it."""
        with contextlib.suppress(SessionError):
            await self.session.wait_ready()
            settle()
        if self.session.engine.refused:
            self.exit(return_code=1)

    # --- what is typed ---------------------------------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """What is typed is handled one by one, each once all that the one before it does has happened. A slow connection sends many keys at once: one
        that opens an editor, the words for it, and the one that ends it."""
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded or not self.screen_stack:
            await super().on_event(event)
            return
        self._typed.append(event)
        if self._handled is None or (len(self._typed) == 1 and self._goes_on(event)):
            await self._handle_next()

    def _goes_on(self, event: events.Event) -> bool:
        """Whether it is a letter for the box that the one before it went to, which keeps their order."""
        letters = all(isinstance(each, events.Key) and each.is_printable for each in (event, self._handled))
        return letters and isinstance(self.focused, TextArea) and self._sent_to is self.focused

    async def _handle_next(self) -> None:
        self._handled = event = self._typed.popleft()
        self._sent_to = self.focused or self.screen
        way = list(self._sent_to.ancestors_with_self)
        await super().on_event(event)
        self._wait_for(event)
        _through(way, partial(self._settle, event))

    def _wait_for(self, event: events.Event) -> None:
        """Not longer than it takes, though what it was sent to, or opened, may be gone before it says so."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._settle, event)

    def _settle(self, event: events.Event) -> None:
        """It has been where it was sent to: what it opens is there next."""
        if self._handled is event and self.screen_stack:  # which an app that ends has none of
            self._wait_for(event)
            _through([self.screen, self], lambda: self.call_later(self._next, event))

    async def _next(self, event: events.Event) -> None:
        if self._handled is event:
            self._handled = None
            if self._patience is not None:
                self._patience.cancel()
            if self._typed:
                await self._handle_next()

    # --- what every screen can do ------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """On the screen of the mode that is on, also where another lies over it."""
        cast(Saying, self.screen_stack[0]).say(line)

    async def attempt(self, work: Callable[[], Awaitable[object]], done: str = "") -> bool:
        """Do it; say why not, if not."""
        return await attempt(self.say, work, done)

    async def action_mode(self, name: str) -> None:
        """Another screen. The tap view is the Arena with one answer."""
        await self.arena.finish_tap()
        if name not in ("arena", "tap"):
            await self.switch_mode(name)
            return
        await self.switch_mode("arena")
        if self.arena.tap_view != (name == "tap"):
            await self.arena.action_tap_view()

    async def action_back(self) -> None:
        """To the Arena or the tap view, whichever it was."""
        await self.switch_mode("arena")

    def action_leader(self) -> None:
        from tamer_tui.screens.choice import ChoiceScreen

        async def chosen(mode: str | None) -> None:
            if mode is not None:
                await self.action_mode(mode)

        options = {letter: (mode, f"f{n}  {meaning}") for n, (mode, (letter, _, meaning)) in enumerate(MODES.items(), start=2)}
        self.push_screen(ChoiceScreen("go to", options), chosen)

    async def action_pause(self) -> None:
        paused = not self.session.status.paused
        await self.attempt(lambda: self.session.machine.set_paused(paused))

    async def action_train(self) -> None:
        await self.attempt(self.session.machine.train_now, "training now")

    async def action_bias(self) -> None:
        on = not self.session.status.bias
        said = "answers are steered by what you said" if on else "neither Ĥ nor your words steer answers"
        await self.attempt(lambda: self.session.machine.set_bias(on), said)

    def action_nats(self) -> None:
        self._writing.nats()

    async def action_versions(self) -> None:
        await self.action_mode("versions")

    async def action_restart(self) -> None:
        """At once where it died; of one that runs, as far as is known, at the second time: it may not answer any more."""
        again, self._restarted = time.monotonic() - self._restarted < INTERRUPT_SECONDS, time.monotonic()
        if again or self.session.engine_state is EngineState.DEAD:
            self.say("restarting the engine")
            await self.attempt(self.session.engine.restart)
        else:
            self.say("the engine is running: R again restarts it, if it does not answer any more")

    def action_settings(self) -> None:
        from tamer_tui.screens.settings import SettingsScreen

        self.push_screen(SettingsScreen(self.session, self.settings))

    def action_help(self) -> None:
        from tamer_tui.screens.help import HelpScreen

        base = self.screen_stack[0]
        found = [] if base is self.arena else [key for key in base.BINDINGS if isinstance(key, Binding)]
        self.push_screen(HelpScreen([(key_name(key), key.description) for key in found]))

    def end(self, why: str) -> None:
        """Leave, not because the operator wants to; the next sitting says so."""
        self.ended_because = self.ended_because or why
        self.exit()

    async def action_quit(self) -> None:
        """What was tapped counts. Not out of an editor: what is typed there would be lost."""
        if not isinstance(self.screen, EditorScreen):
            await self.arena.finish_tap()
            self.exit()

    def action_help_quit(self) -> None:
        """ctrl+c: once is a slip of the hand."""
        again, self._interrupted = time.monotonic() - self._interrupted < INTERRUPT_SECONDS, time.monotonic()
        if again:
            self.exit()
        else:
            self.say("ctrl+c again leaves, as ctrl+q does; everything judged is on disk")


def theme_of(settings: Mapping[str, Any]) -> str:
    """The theme that config.toml names, '' for none. Raises ConfigError."""
    theme = settings.get("theme", "")
    if theme and theme not in names():
        raise ConfigError(f"{config_file()}: there is no theme {theme}: {', '.join(names())}")
    return str(theme)


def run(settings: SessionSettings, database: Path | None, command: tuple[str, ...] | None = None) -> int:
    """Open the Arena; the exit code. What cannot be opened is one line on stderr."""
    if not SERVED and not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _failed("the Arena needs a terminal: tamer simulate and tamer generate work without one")
    try:
        check_keymap()
        theme = theme_of(tables())
    except ConfigError as error:
        return _failed(str(error))
    return asyncio.run(_run(make_session(settings, database, command), theme=theme, settings=started_with()))


async def _run(session: Session, headless: bool = False, theme: str = "", settings: Sequence[Setting] = ()) -> int:
    app = TamerApp(session, theme, settings)
    loop = asyncio.get_running_loop()
    for name, why in ENDINGS.items():
        with contextlib.suppress(NotImplementedError, AttributeError):
            loop.add_signal_handler(getattr(signal, name), app.end, why)
    try:
        await session.start()
    except SessionError as error:
        await session.close()
        return _failed(str(error))
    try:
        await app.run_async(headless=headless)
        card = farewell(session, settings)
    finally:
        if app.ended_because and session.database is not None:
            endings.note(session.database, app.ended_because)
        await session.close()
    if session.engine.refused:
        return _failed(session.engine.refused)
    with contextlib.suppress(OSError):
        print(visible(card), flush=True, file=sys.stderr if SERVED else sys.stdout)
    return app.return_code or 0


def _failed(why: str) -> int:
    print(f"Error: {visible(why)}", file=sys.stderr)
    return 1


def farewell(session: Session, settings: Sequence[Setting] = ()) -> str:
    """Where everything is, and how to go on, with what the command line said of `settings`."""
    if session.database is None or (session.ready is None and not session.judged):
        return session.notice or "nothing was judged"
    version = session.status.acting[0]
    given = [setting for setting in settings if setting.source == "flag" and setting.name != "model"]
    again = shlex.join(["tamer", str(session.database), "--model", session.settings.model, *_typed(given)])
    if way := session.engine.goes_on:
        own = [setting for setting in given if setting.name in OF_A_TERMINAL]
        again = shlex.join(["tamer", "attach", socket_of(way) or shlex.join(way), str(session.database), *_typed(own)])
        again += "   (the engine learns on)"
    return "\n".join([
        f"{session.judged} judgement{'s' if session.judged != 1 else ''} in {session.database}; acting: {version}",
        f"  go on      {again}",
        f"  look       {'   '.join(shlex.join(['tamer', what, str(session.database)]) for what in ('stats', 'versions'))}",
        "  take out   it is an SQLite file: any tool opens it; adapters lie beside it as PEFT directories",
    ])  # fmt: skip


def _typed(settings: Sequence[Setting]) -> list[str]:
    return [word for setting in settings for word in setting.typed]
