"""Every setting of a sitting: its value, where that came from, and how another one gets into config.toml. For `tamer config` and its screen."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tamer_tui.config import ConfigError, config_file, tables

SOURCES = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "config.toml",
    ParameterSource.DEFAULT: "default",
}


@dataclass(frozen=True)
class Setting:
    """One of them, as text."""

    name: str  # in config.toml
    flag: str  # '' for what only config.toml says
    value: str
    source: str
    about: str
    option: click.Option | None = None
    given: Any = None  # the value itself

    @property
    def typed(self) -> list[str]:
        """The words that say it on a command line again."""
        if self.option is None or self.given is None or self.given is False:
            return []
        if self.given is True:
            return [self.flag]
        values = self.given if self.option.multiple else [shown(self.given)]
        return [word for value in values for word in (self.flag, str(value))]

    def parsed(self, text: str) -> Any:
        """What config.toml is to say; of an option that may be given several times, its values with commas between them. Raises ConfigError for
        what the program would not take."""
        if self.option is None:
            return text.strip()
        given = [part.strip() for part in text.split(",") if part.strip()] if self.option.multiple else text.strip()
        try:
            value = self.option.process_value(click.Context(click.Command(self.name)), given)
        except click.UsageError as error:
            raise ConfigError(error.message) from error
        return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def described(context: click.Context) -> list[Setting]:
    """Each option of the command that a context is of, as it was started."""
    found = [parameter for parameter in context.command.params if isinstance(parameter, click.Option) and not parameter.hidden]
    return [_described(context, option) for option in found] + _of_the_screens()


def started_with() -> list[Setting]:
    """Those of the command that runs now, if one does."""
    context = click.get_current_context(silent=True)
    return described(context) if context is not None else []


def listed(command: click.Command, context: click.Context) -> list[tuple[str, str, str]]:
    """Flag, value and source of each option of a command, as it would start now. Raises click.UsageError for what it would not take."""
    with command.make_context(command.name, [], parent=context) as made:
        return [(setting.flag, setting.value, setting.source) for setting in described(made) if setting.flag]


def key_table() -> list[tuple[str, str, str]]:
    """Binding id, keys and meaning, for [keymap]."""
    from tamer_tui.keys import ALL

    return [(binding.id or "", binding.key, binding.tooltip) for binding in ALL]


def write(name: str, value: Any) -> None:
    """Let config.toml say so from the next start on; the rest of it stays as it is. Raises ConfigError, and leaves it alone then."""
    path = config_file()
    tables()  # what cannot be read is not written over
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    changed = _with_line(text, name, f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    try:
        tomllib.loads(changed)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(changed, encoding="utf-8")
        os.replace(fresh, path)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error


def _with_line(text: str, name: str, line: str) -> str:
    """In place of the one that says it now, else before the first table."""
    lines = text.splitlines()
    end = next((i for i, each in enumerate(lines) if each.lstrip().startswith("[")), len(lines))
    here = next((i for i, each in enumerate(lines[:end]) if re.match(rf"\s*[\"']?{_either(name)}[\"']?\s*=", each)), None)
    if here is not None:
        lines[here] = line
    else:
        lines.insert(end, line)
    return "\n".join(lines) + "\n"


def _either(name: str) -> str:
    """max-new-tokens and max_new_tokens are one option."""
    return re.escape(name).replace("\\-", "[-_]").replace("_", "[-_]")


def _described(context: click.Context, option: click.Option) -> Setting:
    name = option.name or ""
    return Setting(name, option.opts[0], shown(context.params[name]), _source(context, option), option.help or "", option, context.params[name])


def _of_the_screens() -> list[Setting]:
    """What config.toml says of keys and colours."""
    from tamer_tui.keymap import PRESETS
    from tamer_tui.themes import names

    said = tables()
    found = {
        "theme": ("textual-dark", "Colours", click.Choice(names())),
        "bidi": ("terminal", "Who turns right-to-left words around: the terminal, or tamer for it", click.Choice(["terminal", "here"])),
        "keys": ("default", "A preset of keys; [keymap] changes single ones", click.Choice(list(PRESETS))),
    }
    return [
        Setting(name, "", str(said.get(name, usual)), "config.toml" if name in said else "default", about, click.Option([f"--{name}"], type=choice))
        for name, (usual, about, choice) in found.items()
    ]


def _source(context: click.Context, option: click.Option) -> str:
    source = context.get_parameter_source(option.name or "")
    name = SOURCES.get(source, "default") if source is not None else "default"
    return f"{name} {option.envvar}" if name == "environment" else name


def shown(value: Any) -> str:
    """As it is typed."""
    if isinstance(value, tuple | list):
        return ",".join(str(each).replace("\n", "\\n") for each in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
