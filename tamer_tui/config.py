"""Where things lie, by the XDG rules, and where options come from: a flag, else TAMER_* in the environment, else config.toml, else the default."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from platformdirs import PlatformDirs

_DIRS = PlatformDirs("tamer", appauthor=False)


class ConfigError(Exception):
    """What is wrong with the settings, in one line."""


def default_database(base_hash: str) -> Path:
    """One database for each base model."""
    return databases() / f"{base_hash[:12]}.db"


def databases() -> Path:
    """The folder of those that were given no path."""
    return Path(_DIRS.user_data_dir)


def engine_log() -> Path:
    """What the engine prints."""
    return Path(_DIRS.user_state_dir) / "engine.log"


def endings_folder() -> Path:
    """How sittings ended that nobody left."""
    return Path(_DIRS.user_state_dir) / "endings"


def tour_note() -> Path:
    """There once the tour of a first sitting has been told."""
    return Path(_DIRS.user_state_dir) / "tour-told"


def config_file() -> Path:
    """Optional: options by their long names, such as `nats = 8`."""
    return Path(_DIRS.user_config_dir) / "config.toml"


NO_OPTIONS = ("keys", "keymap", "theme", "bidi")
"""What config.toml says of the screens."""


def file_defaults() -> dict[str, Any]:
    """Options of config.toml, for every command that has them. Raises ConfigError."""
    return {name.replace("-", "_"): value for name, value in tables().items() if name not in NO_OPTIONS}


def tables() -> dict[str, Any]:
    """All of config.toml. Raises ConfigError."""
    path = config_file()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
