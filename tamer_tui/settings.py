"""`tamer config`: every setting of a sitting, its value, and where that came from."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

SOURCES = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "config.toml",
    ParameterSource.DEFAULT: "default",
}


def listed(command: click.Command, context: click.Context) -> list[tuple[str, str, str]]:
    """Name, value and source of each option of a command, as it would start now. Raises click.UsageError for what it would not take."""
    with command.make_context(command.name, [], parent=context) as made:
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden]
        return [(option.opts[0], _shown(made.params[option.name or ""]), _source(made, option)) for option in options]


def key_table() -> list[tuple[str, str, str]]:
    """Binding id, keys and meaning, for [keymap]."""
    from tamer_tui.keys import ARENA

    return [(binding.id or "", binding.key, binding.tooltip) for binding in ARENA]


def _source(context: click.Context, option: click.Option) -> str:
    source = context.get_parameter_source(option.name or "")
    name = SOURCES.get(source, "default") if source is not None else "default"
    return f"{name} {option.envvar}" if name == "environment" else name


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(str(each).replace("\n", "\\n") for each in value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
