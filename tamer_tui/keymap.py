"""Keys of one's own: `keys = "vim"` and a table `[keymap]` in config.toml, a binding's id = its keys.

What is wrong with them is said by `check` before a screen is opened; a table of keys (keys.py) only asks what was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tamer_tui.config import ConfigError, config_file, tables

PRESETS: dict[str, dict[str, str]] = {
    "default": {},
    "vim": {
        "scroll.down": "down,j", "scroll.up": "up,k", "scroll.page_down": "pagedown,ctrl+f", "scroll.page_up": "pageup,ctrl+u",
        "tap.view": "K", "screen.leader": "backslash",
    },
    "left-hand": {
        "set.commit": "enter,q", "set.skip": "s,X", "set.undo": "u,z", "focus.next": "tab,right,G", "screen.leader": "j,Q", "show.differences": "A",
    },
    "azerty": {  # the upper row without shift, but for the minus, which taps; digits with shift work everywhere
        "score.1": "1,ampersand", "score.2": "2,é", "score.3": "3,quotation_mark", "score.4": "4,apostrophe", "score.5": "5,left_parenthesis",
        "score.7": "7,è", "score.clear": "0,à",
    },
}  # fmt: skip


@cache
def chosen() -> Mapping[str, str]:
    """Binding id -> keys, the table over the preset. Empty where the file cannot be read."""
    try:
        return _chosen(tables())
    except ConfigError:
        return {}


def check(groups: Sequence[Sequence[tuple[str, str]]]) -> None:
    """`groups` are ids and keys as they are now, of keys that work together. Raises ConfigError with the line of the file."""
    found, known = _chosen(tables()), {identity for group in groups for identity, _ in group}
    for identity in found:
        if identity not in known:
            raise ConfigError(f"{_where(identity)}: there is no binding {identity}: `tamer config --keys` lists them")
    for group in groups:
        owner: dict[str, str] = {}
        for identity, keys in sorted(group, key=lambda pair: pair[0] in found):  # so that the blame is on what was chosen
            for key in keys.split(","):
                if owner.setdefault(key, identity) != identity:
                    raise ConfigError(f"{_where(identity)}: {key} is the key of {owner[key]} already")


def _chosen(settings: Mapping[str, Any]) -> dict[str, str]:
    preset, own = settings.get("keys", "default"), _flat(settings.get("keymap", {}))
    if preset not in PRESETS:
        raise ConfigError(f"{_where('keys')}: keys is one of {', '.join(PRESETS)}")
    for identity, keys in own.items():
        if not (isinstance(keys, str) and keys.strip()):
            raise ConfigError(f'{_where(identity)}: keys are text, such as "enter,q"')
    return PRESETS[preset] | {identity: ",".join(key.strip() for key in keys.split(",")) for identity, keys in own.items()}


def _flat(table: object, above: str = "") -> dict[str, Any]:
    """set.undo = "z" is a table in a table, "set.undo" = "z" is not."""
    if not isinstance(table, dict):
        raise ConfigError(f"{_where('keymap')}: keymap is a table")
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found


def _where(name: str) -> str:
    """File and line."""
    path = config_file()
    pattern = re.compile(rf"^\s*\[?[\"']?{re.escape(name)}[\"']?\s*[=\]]")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return str(path)
    return next((f"{path}:{number}" for number, line in enumerate(lines, start=1) if pattern.match(line)), str(path))
