"""Settings: each with its value and where that came from; changed for this sitting where that is possible, and in config.toml."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from tamer_tui.config import ConfigError, config_file
from tamer_tui.keys import SETTINGS_KEYS
from tamer_tui.screens.attempt import attempt
from tamer_tui.screens.editor import NumberScreen, WrittenText
from tamer_tui.session import Session, SessionError
from tamer_tui.settings import Setting, shown, write
from tamer_tui.text import one_line
from tamer_tui.widgets.rows import Rows

COLUMNS = {"setting": 20, "value": 20, "where it came from": 28, "what it is": None}
NEXT_START, NOW = "typed, for the next start", "this sitting"


class SettingsScreen(ModalScreen[None]):
    """`settings` is the app's own list, in which changes stay."""

    CSS_PATH = "settings.tcss"
    BINDINGS = list(SETTINGS_KEYS)

    def __init__(self, session: Session, settings: list[Setting]) -> None:
        super().__init__()
        self._session, self._settings = session, settings

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Rows(COLUMNS)
            yield Static(id="hint")

    def on_mount(self) -> None:
        self.query_one("#box").border_title = "settings"
        self._show()
        self.query_one(Rows).focus()

    def _show(self) -> None:
        self.query_one(Rows).fill((each.name, (each.flag or each.name, each.value, each.source, each.about)) for each in self._settings)

    @on(Rows.Looked)
    def _look(self) -> None:
        chosen = self._chosen()
        self.say(f"{one_line(chosen.about) if chosen else 'as it was started'}  ·  enter changes it, w writes it to config.toml, esc leaves")

    def say(self, line: str) -> None:
        """At the bottom."""
        self.query_one("#hint", Static).update(Content(one_line(line)))

    def _chosen(self) -> Setting | None:
        return next((each for each in self._settings if each.name == self.query_one(Rows).chosen), None)

    @on(Rows.RowSelected)
    def _change(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return

        async def written(result: WrittenText | None) -> None:
            if result is not None and result.saved and result.text.strip() != chosen.value:
                await attempt(self.say, lambda: self._take(chosen, result.text))

        self.app.push_screen(NumberScreen(chosen.name, chosen.value), written)

    async def _take(self, setting: Setting, text: str) -> str:
        """Now, where that is possible."""
        try:
            value = setting.parsed(text)
        except ConfigError as error:
            raise SessionError(str(error)) from error
        use = self._uses().get(setting.name)
        if use is not None:
            await use(value)
        self._put(replace(setting, value=one_line(shown(value)), source=NOW if use else NEXT_START))
        then = f"is {shown(value)} from now on" if use else "takes effect at the next start, if w writes it to config.toml"
        return f"{setting.name} {then}"

    def _uses(self) -> dict[str, Callable[..., Awaitable[None]]]:
        """What changes a setting of a sitting that runs."""

        async def paint(theme: str) -> None:
            self.app.theme = theme

        machine = self._session.machine
        return {"nats": machine.set_nats, "no_bias": lambda off: machine.set_bias(not off), "theme": paint}

    def _put(self, setting: Setting) -> None:
        self._settings[[each.name for each in self._settings].index(setting.name)] = setting
        self._show()

    async def action_write(self) -> None:
        if (chosen := self._chosen()) is None:
            return

        async def keep() -> str:
            try:
                await asyncio.to_thread(write, chosen.name, chosen.parsed(chosen.value))
            except ConfigError as error:
                raise SessionError(str(error)) from error
            return f"✓ {config_file()} says {chosen.name} = {chosen.value}"

        if chosen.value:
            await attempt(self.say, keep)
        else:
            self.say(f"{chosen.name} has no value to be written: enter gives it one")
